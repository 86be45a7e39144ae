// Times that go on while one looks. The same words as broker/web/wording.py.

import { say } from "./words.js";

export function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return say("%(seconds)s s", { seconds });
  if (seconds < 3600) return say("%(minutes)s min", { minutes: Math.floor(seconds / 60) });
  if (seconds >= 172800) return say("%(days)s days", { days: Math.floor(seconds / 86400) });
  const hours = Math.floor(seconds / 3600), minutes = Math.floor((seconds % 3600) / 60);
  return minutes ? say("%(hours)s h %(minutes)s min", { hours, minutes }) : say("%(hours)s h", { hours });
}

export function stopwatch(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${two(minutes % 60)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export const since = (moment) => (Date.now() - Date.parse(moment)) / 1000;

function relative(moment) {
  const passed = since(moment);
  if (passed > -5 && passed < 10) return say("just now");
  return passed > 0 ? say("%(time)s ago", { time: span(passed) }) : say("in %(time)s", { time: span(-passed) });
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tick() {
  for (const one of document.querySelectorAll("time[data-relative]")) write(one, relative(one.dateTime));
  for (const one of document.querySelectorAll("time[data-span]")) write(one, span(since(one.dateTime)));
  for (const one of document.querySelectorAll("progress[data-since]")) {
    const passed = since(one.dataset.since);
    one.value = Math.min(passed, one.max);
    document.getElementById("late").hidden = passed <= one.max;
  }
  for (const one of document.querySelectorAll(".stopwatch[data-since]")) write(one, stopwatch(since(one.dataset.since)));
}

setInterval(tick, 1000);

// The same page as the server would show it now; null where it does not answer.
export async function pageNow() {
  try {
    const answer = await fetch(location.pathname, { headers: { accept: "text/html" }, cache: "no-store" });
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  } catch {
    return null;
  }
}

// Put the part with this id in place, keeping the focus where it was, and open what was opened.
export function replace(id, fresh) {
  const old = document.getElementById(id), next = fresh.getElementById(id);
  for (const one of old?.querySelectorAll("details[id][open]") || []) fresh.getElementById(one.id)?.setAttribute("open", "");
  if (!old || !next || old.isEqualNode(next)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  old.replaceWith(document.importNode(next, true));
  if (focused) (document.getElementById(focused) || document.getElementById("main")).focus({ preventScroll: true });
}
