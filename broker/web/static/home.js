// The form works without this. Here: what a pasted address means, said while one types, and what was launched lately.

import { offerInstead } from "./instead.js";
import { say } from "./words.js";

const form = document.getElementById("launch"), repo = document.getElementById("repo"), ref = document.getElementById("ref");
const found = document.getElementById("repo-found"), go = document.getElementById("go");
let asking = null, timer = 0, asked = "";

function tell(text, kind = "") {
  found.className = `found ${kind}`.trim();
  found.textContent = text;
}

async function resolve() {
  clearTimeout(timer);
  const words = new URLSearchParams({ repo: repo.value.trim(), ref: ref.value.trim() });
  if (words.toString() === asked) return;
  asking?.abort();
  asked = words.toString();
  if (!repo.value.trim()) return tell("");
  const mine = (asking = new AbortController());
  tell(say("Looking it up…"), "asking");
  try {
    const answer = await fetch(`/api/resolve?${words}`, { signal: mine.signal });
    const told = await answer.json();
    if (answer.status === 401) return tell(""); // for visitors nothing is looked up before they launch
    const gone = told.reason === "ref_not_found" || told.reason === "repo_not_found";
    offerInstead(gone ? `/link/instead?${new URLSearchParams(new FormData(form))}` : "");
    if (!answer.ok) return tell(told.detail || "", "wrong");
    const named = { title: told.title, commit: told.commit.slice(0, 7), path: told.path };
    tell(told.path ? say("Found: %(title)s at commit %(commit)s, opens %(path)s", named) : say("Found: %(title)s at commit %(commit)s", named));
  } catch {
    // Left, or the broker is away: launching says so itself.
    if (mine === asking) tell("");
  }
}

function soon(wait) {
  clearTimeout(timer);
  timer = setTimeout(resolve, wait);
}

for (const field of [repo, ref]) {
  field.addEventListener("blur", () => soon(0));
  field.addEventListener("paste", () => soon(50));
  field.addEventListener("input", () => soon(900));
}
if (repo.value && !repo.hasAttribute("aria-invalid") && !ref.hasAttribute("aria-invalid")) soon(0);

// A link to what is typed here needs it typed once.
document.querySelector('footer a[href="/link"]')?.addEventListener("click", ({ currentTarget }) => {
  const typed = ["repo", "ref", "path"].map((name) => [name, form.elements[name].value.trim()]).filter(([, value]) => value);
  if (repo.value.trim()) currentTarget.href = `/link?${new URLSearchParams(typed)}`;
});

// One press is one launch.
form.addEventListener("submit", (event) => {
  if (event.submitter && event.submitter !== go) return; // to the same form in another language
  if (go.getAttribute("aria-disabled") === "true") return event.preventDefault();
  asking?.abort();
  clearTimeout(timer);
  go.setAttribute("aria-disabled", "true");
  go.textContent = say("Looking it up…");
});
addEventListener("pageshow", () => {
  go.removeAttribute("aria-disabled");
  go.textContent = say("Launch");
});

// Connecting an account leads back to the form as it is filled by then.
for (const link of document.querySelectorAll("a[data-next]")) {
  link.addEventListener("click", () => {
    const filled = [...new FormData(form)].filter(([, value]) => typeof value === "string" && value.trim());
    const typed = new URLSearchParams(filled);
    typed.set("backend", link.dataset.next);
    link.search = `?${new URLSearchParams({ next: `/?${typed}` })}`;
  });
}

const KEY = "anybinder.recent";

function recent() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) || "[]");
    return kept.filter((one) => typeof one.title === "string" && /^\/\?repo=/.test(one.link));
  } catch {
    return [];
  }
}

function row(one) {
  const item = document.createElement("li"), link = document.createElement("a"), remove = document.createElement("button");
  link.href = one.link;
  link.append(Object.assign(document.createElement("span"), { className: "strong", textContent: one.title }));
  remove.type = "button";
  remove.className = "remove";
  remove.textContent = "×";
  remove.setAttribute("aria-label", say("Remove %(title)s from this list", { title: one.title }));
  remove.addEventListener("click", () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(recent().filter((other) => other.link !== one.link)));
    } catch {
      // A browser that keeps nothing shows nothing.
    }
    show();
    (document.querySelector(".remove") || repo).focus();
  });
  item.append(link, remove);
  return item;
}

function show() {
  const rows = recent().map(row);
  document.getElementById("recent-list").replaceChildren(...rows);
  document.getElementById("recent").hidden = !rows.length;
}

show();
