// A button beside what is shown once.

const token = document.getElementById("token"), copy = document.getElementById("copy"), copied = document.getElementById("copied");

copy.hidden = !navigator.clipboard;
token.addEventListener("focus", () => token.select());
copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(token.value);
    copied.textContent = "Copied.";
  } catch {
    token.select();
    copied.textContent = "Your browser does not let a page copy. It is marked: press Ctrl+C, or ⌘C.";
  }
});
