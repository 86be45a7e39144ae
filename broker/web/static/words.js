// What scripts say, in the language of the page, which holds it; without that in English, as it is written in them.

export const lang = document.documentElement.lang || "en";
const told = JSON.parse(document.getElementById("words")?.textContent || "{}");

export function say(text, values = {}) {
  return (told[text] || text).replace(/%\((\w+)\)s/g, (_, name) => values[name]);
}
