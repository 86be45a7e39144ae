// A button does this without JavaScript. Here: the stream of /build as it comes, and the session as soon as it is ready.

import { offerInstead } from "./instead.js";
import { since } from "./times.js";
import { say } from "./words.js";

const LINES_MOST = 2000, RETRY_AFTER = 3000;
const root = document.getElementById("root"), log = document.getElementById("log"), panel = document.getElementById("panel");
const part = (id) => document.getElementById(id);
const steps = [...part("steps").children], doing = JSON.parse(root.dataset.doing);
let started = "", last = "", stream = null, at = -1, following = true, over = false;
const waiting = [];

log.addEventListener("scroll", () => (following = log.scrollTop + log.clientHeight >= log.scrollHeight - 8));
part("again").addEventListener("click", () => location.reload());
// What a browser keeps of this page when it goes back is a launch that is over.
addEventListener("pageshow", (event) => event.persisted && location.reload());
if (!panel.classList.contains("failed")) begin();

function begin() {
  started = new Date().toISOString();
  part("by-hand").hidden = true;
  for (const id of ["steps", "clock", "details"]) part(id).hidden = false;
  part("elapsed").dataset.since = started;
  part("elapsed").textContent = "0:00";
  reach(0);
  listen();
}

function listen() {
  // Its own id is what the broker takes a stream up again by, however it was cut; the token names the same launch.
  const from = last ? `&last_event_id=${encodeURIComponent(last)}` : "";
  stream = new EventSource(root.dataset.build + from);
  stream.onopen = () => (part("connection").hidden = true);
  stream.onerror = () => {
    part("connection").hidden = over;
    if (over || stream.readyState !== EventSource.CLOSED) return; // a browser tries again by itself
    setTimeout(listen, RETRY_AFTER);
  };
  stream.onmessage = (message) => {
    if (message.lastEventId && message.lastEventId === last) return;
    last = message.lastEventId;
    hear(JSON.parse(message.data));
  };
}

function hear(event) {
  const phase = (event.phase || "").toLowerCase();
  if (event.message) add(event.message.trimEnd(), phase);
  if (phase === "failed") return fail(event);
  // The first event is ours to everybody; whatever follows is said by a launch, which can be stopped.
  if (log.childElementCount + waiting.length > 1) part("going").hidden = false;
  part("advice").hidden = phase !== "waiting";
  part("advice").textContent = phase === "waiting" ? event.message : "";
  reach(steps.findIndex((step) => step.dataset.phases.split(" ").includes(phase)));
  if (phase === "ready") enter(event);
}

function reach(step) {
  if (step <= at) return;
  at = step;
  steps.forEach((one, index) => {
    one.className = index < at || at === steps.length - 1 ? "done" : index === at ? "now" : "";
    one.toggleAttribute("aria-current", index === at);
    if (index === at) one.setAttribute("aria-current", "step");
  });
  const words = doing[at];
  part("panel-title").textContent = part("said").textContent = words;
  document.title = document.title.replace(/^(.+ – )?/, `${words} – `);
}

function enter(event) {
  close();
  part("said").textContent = say("Ready. Opening it.");
  location.replace(wayIn(event.url, root.dataset.opens, event.token));
}

// The token goes to the session and nowhere else, whatever the link asked for.
function wayIn(session, opens, token) {
  const base = new URL(session);
  let there = base;
  try {
    there = new URL(opens, base);
  } catch {
    // No address at all: the session opens as it is.
  }
  if (there.origin !== base.origin || !there.pathname.startsWith(base.pathname)) there = new URL(base);
  there.search += `${there.search ? "&" : "?"}token=${encodeURIComponent(token)}`;
  return there.href;
}

function fail(event) {
  close();
  if (part("going").hidden) offerInstead(root.dataset.instead); // no launch came of it: what it names may be gone
  steps[Math.max(0, at)].className = "failed";
  steps[Math.max(0, at)].removeAttribute("aria-current");
  panel.classList.add("failed");
  part("panel-title").textContent = say("It could not be started");
  part("cause").textContent = (event.message || say("The hub did not say why.")).trim();
  part("advice").textContent = say("The log says more. You can try again, or run it somewhere else.");
  part("said").textContent = say("It could not be started. %(reason)s", { reason: part("cause").textContent });
  document.title = document.title.replace(/^(.+ – )?/, `${say("Failed")} – `);
  for (const id of ["clock", "going"]) part(id).hidden = true;
  for (const id of ["cause", "advice", "after"]) part(id).hidden = false;
  part("details").open = true;
  draw();
}

function close() {
  over = true;
  stream.close();
  part("connection").hidden = true;
}

// Many lines may come at once: they are drawn together.
function add(text, phase) {
  waiting.push([since(started), text, phase]);
  if (waiting.length === 1) setTimeout(draw, 50);
}

function draw() {
  const fresh = document.createDocumentFragment();
  for (const line of waiting.splice(0).slice(-LINES_MOST)) fresh.append(row(...line));
  log.append(fresh);
  while (log.childElementCount > LINES_MOST) log.firstElementChild.remove();
  if (following) log.scrollTop = log.scrollHeight;
}

function row(passed, text, phase) {
  const line = document.createElement("span"), when = document.createElement("span");
  line.className = phase === "failed" ? "line bad" : "line";
  when.className = "at";
  when.textContent = passed.toFixed(1).padStart(6);
  line.append(when, ` ${text}\n`);
  return line;
}
