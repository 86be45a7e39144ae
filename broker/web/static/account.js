// A button beside what is shown once.

import { say } from "./words.js";

const token = document.getElementById("token"), copy = document.getElementById("copy"), copied = document.getElementById("copied");

copy.hidden = !navigator.clipboard;
token.addEventListener("focus", () => token.select());
copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(token.value);
    copied.textContent = say("Copied.");
  } catch {
    token.select();
    copied.textContent = say("It is selected: copy it with Ctrl+C or ⌘C.");
  }
});
