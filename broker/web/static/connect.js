// The pages work without this. Here: a copy button, and a word while somebody else is asked.

import "./times.js";

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy), said = button.parentElement.querySelector("[data-copied]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.value);
      said.textContent = "Copied.";
    } catch {
      source.focus();
      source.select();
      said.textContent = "It is selected: copy it with Ctrl+C or ⌘C.";
    }
  });
}

const asked = [];
for (const form of document.querySelectorAll("form[data-wait]")) {
  const button = form.querySelector("button:not([type])"), word = button.textContent;
  const said = form.querySelector("[data-said]") || form.closest("section")?.querySelector("[data-said]");
  form.addEventListener("submit", (event) => {
    if (button.getAttribute("aria-disabled") === "true") return event.preventDefault();
    button.setAttribute("aria-disabled", "true");
    button.textContent = form.dataset.wait;
    if (said) said.textContent = "This takes a few seconds, and a minute at most.";
  });
  asked.push(() => {
    button.removeAttribute("aria-disabled");
    button.textContent = word;
    if (said) said.textContent = "";
  });
}
addEventListener("pageshow", () => asked.forEach((undo) => undo()));
