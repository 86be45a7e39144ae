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
    copied.textContent = "It is selected: copy it with Ctrl+C or ⌘C.";
  }
});
