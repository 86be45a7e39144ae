// The choice of a place goes on by itself: prices as clouds answer, what the repository needs, what a size would cost.
// All words come from the server; without this the page shows them when it is loaded again.

const form = document.getElementById("launch"), list = document.getElementById("places"), said = document.getElementById("places-said");
const ASKS = ["repo", "ref", "size", "cpu", "memory", "disk", "gpu", "hours", "backends", "sort"];
const KEPT = "anybinder.place";
let source = null, timer = 0, sort = new FormData(form).get("sort") || "", touched = false;
let count = list.children.length;

const radios = () => [...list.querySelectorAll("input[name=backend]")];
const row = (name) => [...list.children].find((one) => one.dataset.place === name);

function spans(target, words) {
  const old = [...target.children].map((one) => one.textContent);
  if (JSON.stringify(old) === JSON.stringify(words)) return;
  target.replaceChildren(...words.map((word) => Object.assign(document.createElement("span"), { textContent: word })));
}

function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// A place that was found since: a server of their own, which its cloud has only now told of.
function added(place) {
  const at = list.querySelector(".place")?.cloneNode(true);
  if (!at) return null;
  const id = `place-${(count += 1)}`, radio = at.querySelector("input"), label = at.querySelector("label");
  at.dataset.place = radio.value = place.name;
  radio.checked = false;
  radio.id = label.htmlFor = id;
  radio.setAttribute("aria-describedby", `${id}-session ${id}-about`);
  at.querySelector(".place-session").id = `${id}-session`;
  at.querySelector(".place-about").id = `${id}-about`;
  label.querySelector(".place-title").textContent = place.title;
  for (const one of at.querySelectorAll(".own, .needed")) one.remove();
  list.append(at);
  return at;
}

function show(place) {
  const at = row(place.name) || added(place);
  if (!at) return;
  const radio = at.querySelector("input");
  radio.disabled = Boolean(place.closed);
  put(at.querySelector(".place-session"), place.closed ? "" : place.session);
  spans(at.querySelector(".reasons"), place.closed ? [place.closed] : place.reasons.filter((one) => one !== place.session));
  spans(at.querySelector(".figures"), place.closed ? [] : place.price.slice(1));
  put(at.querySelector(".news"), place.news);
  at.classList.toggle("asking", place.asking);
  at.dataset.sizes = (place.sizes || []).join(" ");
  at.dataset.ends = place.ends;
  if (radio.disabled && radio.checked) radio.checked = false;
  if (!radios().some((one) => one.checked)) (radios().find((one) => !one.disabled) || {}).checked = true;
  chosen();
}

// Under somebody's hands nothing moves.
function arrange(names) {
  if (touched || list.contains(document.activeElement)) return;
  const rows = names.map(row).filter(Boolean);
  for (const gone of radios().filter((one) => !names.includes(one.value) && !one.checked)) gone.closest(".place").remove();
  if (rows.some((one, at) => list.children[at] !== one)) list.append(...rows);
}

function chosen() {
  const radio = radios().find((one) => one.checked), at = radio?.closest(".place");
  if (!at) return;
  put(document.getElementById("ends"), at.dataset.ends);
  for (const size of form.querySelectorAll("input[name=size]")) {
    const had = !size.value || at.dataset.sizes.split(" ").includes(size.value);
    size.closest(".size").classList.toggle("lacking", !had);
    size.disabled = !had && !size.checked;
  }
}

function follow() {
  clearTimeout(timer);
  source?.close();
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (ASKS.includes(name) && value.trim()) asked.set(name, value.trim());
  if (sort) asked.set("sort", sort);
  const mine = (source = new EventSource(`/api/places/stream?${asked}`));
  mine.addEventListener("place", (event) => show(JSON.parse(event.data)));
  mine.addEventListener("order", (event) => arrange(JSON.parse(event.data)));
  mine.addEventListener("repo", (event) => {
    const told = JSON.parse(event.data);
    put(document.getElementById("asks"), told.asks);
  });
  mine.addEventListener("end", () => {
    mine.close();
    const news = [...list.querySelectorAll(".news")].map((one) => one.textContent).filter(Boolean);
    put(said, news.join(" "));
  });
  mine.addEventListener("error", () => mine.close()); // what is shown stays
}

function soon(wait) {
  clearTimeout(timer);
  timer = setTimeout(follow, wait);
}

form.addEventListener("change", (event) => {
  if (event.target.name === "backend") {
    touched = true;
    chosen();
  } else if (ASKS.includes(event.target.name)) soon(0);
});
form.addEventListener("input", (event) => {
  if (ASKS.includes(event.target.name) && event.target.type !== "radio") soon(900);
});
form.addEventListener("submit", () => {
  source?.close();
  try {
    localStorage.setItem(KEPT, new FormData(form).get("backend") || "");
  } catch {
    // A browser that keeps nothing remembers nothing.
  }
});
for (const link of form.querySelectorAll("a[data-sort]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    sort = link.dataset.sort;
    for (const other of form.querySelectorAll("a[data-sort]")) other.toggleAttribute("aria-current", false);
    link.setAttribute("aria-current", "true");
    touched = false;
    follow();
  });
}
// A page that nobody looks at keeps no connection: a browser has six.
document.addEventListener("visibilitychange", () => (document.hidden ? source?.close() : follow()));
addEventListener("pagehide", () => source?.close());

// What this browser chose last, where the broker remembers nothing of this person and the link says nothing.
try {
  const kept = !list.dataset.last && !new URLSearchParams(location.search).get("backend") && localStorage.getItem(KEPT);
  const radio = kept && radios().find((one) => one.value === kept && !one.disabled);
  if (radio) radio.checked = true;
} catch {
  // It keeps nothing.
}
chosen();
if (!document.hidden) follow();
