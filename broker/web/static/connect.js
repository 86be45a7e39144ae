// The pages work without this. Here: a word while somebody else is asked.

import "./copying.js";
import "./times.js";
import { say } from "./words.js";

const asked = [];
for (const form of document.querySelectorAll("form[data-wait]")) {
  const button = form.querySelector("button:not([type])"), word = button.textContent;
  const said = form.querySelector("[data-said]") || form.closest("section")?.querySelector("[data-said]");
  form.addEventListener("submit", (event) => {
    if (button.getAttribute("aria-disabled") === "true") return event.preventDefault();
    button.setAttribute("aria-disabled", "true");
    button.textContent = form.dataset.wait;
    if (said) said.textContent = say("This takes a few seconds, and a minute at most.");
  });
  asked.push(() => {
    button.removeAttribute("aria-disabled");
    button.textContent = word;
    if (said) said.textContent = "";
  });
}
addEventListener("pageshow", () => asked.forEach((undo) => undo()));
