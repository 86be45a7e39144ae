// Buttons that copy what a field holds, also those that come to the page later. Without this they are not shown.

import { say } from "./words.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy), said = button.parentElement.querySelector("[data-copied]");
  try {
    await navigator.clipboard.writeText(source.value);
    said.textContent = say("Copied.");
  } catch {
    source.focus();
    source.select();
    said.textContent = say("It is selected: copy it with Ctrl+C or ⌘C.");
  }
});

export function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}

offerCopies();
