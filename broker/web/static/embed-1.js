// <anybinder-launch>: where to run a repository, offered inside of a page elsewhere. One file, nothing else is loaded.
//
//   <anybinder-launch repo="owner/name" ref="commit" path="index.ipynb" backends="a,b"><a href="…">Launch</a></anybinder-launch>
//
// What the element holds is shown until the hub has answered, and where it never does. More, and how to change its looks: docs/links.md

const HOME = new URL("./", import.meta.url).href;
const PREFIX = /^(gh|gist|git|gl|bb|zenodo|figshare|hydroshare|dataverse|ckan|osf|swh|docker)\//;
const ASKED = ["backends", "size", "cpu", "memory", "disk", "gpu", "hours"];
const WORDS = {
  en: { run: "Run {repo}", where: "Where to run", launch: "Launch", signIn: "You are asked to sign in first.", connect: "You are asked to connect your account there.", hub: "Opens at {hub}.", terms: "Its terms", privacy: "Its privacy policy" },
  fr: { run: "Exécuter {repo}", where: "Où l’exécuter", launch: "Lancer", signIn: "Il faudra d’abord vous connecter.", connect: "Il faudra y associer votre compte.", hub: "S’ouvre sur {hub}.", terms: "Ses conditions", privacy: "Sa politique de confidentialité" },
  es: { run: "Ejecutar {repo}", where: "Dónde ejecutarlo", launch: "Abrir", signIn: "Antes tendrá que iniciar sesión.", connect: "Tendrá que conectar su cuenta allí.", hub: "Se abre en {hub}.", terms: "Sus condiciones", privacy: "Su política de privacidad" },
};
const LIGHT = "--ink:#1b1f24;--soft:#545d68;--paper:#fff;--line:#77828e;--accent:#0b5fad;--on:#fff;--tint:#e9f2fb;";
const DARK = "--ink:#e8ebee;--soft:#aab3bd;--paper:#15181c;--line:#7d8894;--accent:#7db8f0;--on:#10161c;--tint:#1a2a3a;";
const STYLE = `
:host { display: block; color-scheme: light dark; ${LIGHT} }
@media (prefers-color-scheme: dark) { :host { ${DARK} } }
:host([theme=light]) { color-scheme: light; ${LIGHT} }
:host([theme=dark]) { color-scheme: dark; ${DARK} }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
section { --i: var(--anybinder-ink, var(--ink)); --s: var(--anybinder-soft, var(--soft)); --p: var(--anybinder-paper, var(--paper)); --l: var(--anybinder-line, var(--line)); --a: var(--anybinder-accent, var(--accent)); --o: var(--anybinder-on, var(--on)); --t: var(--anybinder-tint, var(--tint)); color: var(--i); background: var(--p); border: 1px solid var(--l); border-radius: var(--anybinder-radius, 8px); padding: 1rem 1.125rem; font: var(--anybinder-font, 1rem/1.5 system-ui, sans-serif); overflow-wrap: anywhere; }
p, fieldset, legend { margin: 0; padding: 0; border: 0; min-width: 0; }
.title { font-weight: 650; margin-bottom: .5rem; }
legend { margin-bottom: .375rem; }
legend, .about, .note { color: var(--s); font-size: .875em; }
label { display: grid; grid-template-columns: auto 1fr; gap: 0 .625rem; padding: .625rem .75rem; min-height: 44px; border: 1px solid var(--l); border-radius: 6px; cursor: pointer; }
label + label { margin-top: .375rem; }
label:has(:checked) { border-color: var(--a); background: var(--t); }
input { width: 18px; height: 18px; margin: .2rem 0 0; accent-color: var(--a); }
.name { font-weight: 600; }
.about { grid-column: 2; }
a { color: var(--a); }
.launch { display: inline-flex; align-items: center; min-height: 44px; margin: .75rem 0 .5rem; padding: 0 1.25rem; border-radius: 6px; font-weight: 600; text-decoration: none; color: var(--o); background: var(--a); }
.launch:hover { text-decoration: underline; }
.launch:focus-visible, a:focus-visible, label:has(:focus-visible) { outline: 3px solid var(--a); outline-offset: 2px; }
@media (forced-colors: active) { .launch { border: 2px solid LinkText; } label:has(:checked) { border: 3px solid Highlight; } }
`;
const asked = new Map(); // one page asks once

function made(tag, part, text = "", more = {}) {
  const one = Object.assign(document.createElement(tag), { className: part, textContent: text, ...more });
  if (part) one.setAttribute("part", part);
  return one;
}

async function places(address) {
  const answer = await fetch(address, { credentials: "omit", signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
}

function web(address) {
  return /^https?:\/\//.test(address) ? address : "";
}

class AnybinderLaunch extends HTMLElement {
  static observedAttributes = ["repo", "ref", "path", "hub", "lang", "target", ...ASKED];
  #slot = document.createElement("slot");
  #box = made("section", "box", "", { hidden: true });
  #places = [];
  #chosen = "";
  #times = 0;

  constructor() {
    super();
    const sheet = new CSSStyleSheet(), root = this.attachShadow({ mode: "open" });
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.append(this.#slot, this.#box);
    this.#box.addEventListener("change", (event) => this.#choose(event.target.value));
  }

  connectedCallback() {
    this.#ask();
  }

  attributeChangedCallback() {
    this.#times = 0;
    if (this.isConnected) this.#ask();
  }

  #told(name) {
    return (this.getAttribute(name) || "").trim();
  }

  get hub() {
    const told = this.#told("hub");
    return told ? new URL(told.replace(/\/*$/, "/"), HOME).href : HOME;
  }

  // The launch link of what is chosen. It goes to this hub, whatever the attributes say.
  get href() {
    const repo = this.#told("repo"), ref = this.#told("ref");
    let spec = /^[a-z][a-z0-9+.-]*:\/\//i.test(repo) ? `git/${encodeURIComponent(repo)}` : PREFIX.test(repo) ? repo : `gh/${repo}`;
    if (ref) spec += `/${/^(gh|bb)\//.test(spec) ? ref.split("/").map(encodeURIComponent).join("/") : encodeURIComponent(ref)}`;
    else if (/^(git|gl)\/[^/]+$/.test(spec)) spec += "/HEAD";
    const query = new URLSearchParams(), path = this.#told("path");
    if (path) query.set(path.startsWith("/") ? "urlpath" : "labpath", path.replace(/^\/+/, ""));
    for (const name of ASKED) if (this.#told(name)) query.set(name, this.#told(name));
    const place = this.#places.find((one) => one.name === this.#chosen);
    if (place) query.set("backend", place.name);
    if (place?.needs.length) query.set("choose", "1");
    return `${this.hub}v2/${spec.replace(/[?#\\]/g, encodeURIComponent)}${query.size ? `?${query}` : ""}`;
  }

  get #words() {
    const lang = (this.closest("[lang]")?.lang || navigator.language || "en").slice(0, 2).toLowerCase();
    return { lang: lang in WORDS ? lang : "en", ...(WORDS[lang] || WORDS.en) };
  }

  async #ask() {
    if (!this.#told("repo")) return;
    const address = `${this.hub}api/places?${new URLSearchParams({ backends: this.#told("backends"), lang: this.#words.lang })}`;
    if (!asked.has(address)) asked.set(address, places(address));
    try {
      const told = await asked.get(address);
      if (!this.isConnected) return;
      this.#show(told.places);
      if (told.asking && this.#times++ < 4) setTimeout(() => (asked.delete(address), this.isConnected && this.#ask()), 3000);
    } catch {
      asked.delete(address);
      if (!this.#places.length) this.#show([]); // the hub is away: the plain link stays
    }
  }

  #show(found) {
    this.#places = found;
    if (!found.some((one) => one.name === this.#chosen)) this.#chosen = found[0]?.name || "";
    const words = this.#words, repo = this.#told("repo").replace(PREFIX, "").replaceAll("%2F", "/").replace(/^\w+(:|%3A)\/\//, "");
    const focused = this.shadowRoot.activeElement, kept = focused && [focused.localName, focused.value];
    const title = made("p", "title", words.run.replace("{repo}", repo), { id: "title" });
    const list = made("fieldset", "places"), note = made("p", "note", words.hub.replace("{hub}", new URL(this.hub).host));
    list.append(made("legend", "legend", words.where), ...found.map((one) => this.#row(one, words)));
    const link = made("a", "launch", words.launch, { href: this.href, rel: "noopener", target: this.#told("target") });
    link.setAttribute("aria-describedby", "title");
    this.#box.lang = words.lang;
    this.#box.setAttribute("aria-labelledby", "title");
    this.#box.replaceChildren(title, ...(found.length ? [list] : []), link, note);
    // Without a choice the author's own link says as much; an element that holds none shows ours.
    const empty = !this.textContent.trim() && !this.querySelector("img,a");
    this.#box.hidden = !found.length && !empty;
    this.#slot.hidden = !this.#box.hidden;
    if (kept) [...this.#box.querySelectorAll(kept[0])].find((one) => one.value === kept[1])?.focus();
  }

  #row(place, words) {
    const row = made("label", "place"), about = made("span", "about");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "place", value: place.name, checked: place.name === this.#chosen });
    const needs = place.needs.includes("sign in") ? words.signIn : place.needs.includes("connect") ? words.connect : "";
    const said = [...new Set([place.session, ...place.reasons])].filter(Boolean).join(" · ");
    about.textContent = [said && `${said}.`, needs].filter(Boolean).join(" ");
    for (const [text, address] of [[words.terms, web(place.terms_url)], [words.privacy, web(place.privacy_url)]]) {
      if (address) about.append(" ", made("a", "", text, { href: address, rel: "noopener noreferrer" }));
    }
    row.append(radio, made("span", "name", place.title), about);
    return row;
  }

  #choose(name) {
    this.#chosen = name;
    this.shadowRoot.querySelector(".launch").href = this.href;
  }
}

if (!customElements.get("anybinder-launch")) customElements.define("anybinder-launch", AnybinderLaunch);
