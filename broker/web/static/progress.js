// The page shows a launch without this. Here: its lines as they come, and the session as soon as it is ready.

import { offerCopies } from "./copying.js";
import { pageNow, replace, since } from "./times.js";
import { say } from "./words.js";

const LINES_MOST = 2000, LOOK_EVERY = 5000, RETRY_AFTER = 3000;
const page = document.getElementById("launch"), log = document.getElementById("log");
const connection = document.getElementById("connection"), said = document.getElementById("said");
let last = Number(page.dataset.after), watching = page.dataset.situation === "starting";
let following = true, drawing = false, again = false, stageNow = "", stream = null, places = null;
const waiting = [];

remember();
log.parentElement.addEventListener("toggle", toEnd);
log.addEventListener("scroll", () => (following = log.scrollTop + log.clientHeight >= log.scrollHeight - 8));
if (location.hash === "#log") log.parentElement.open = true;
if (location.hash === "#keep") document.getElementById("keep")?.setAttribute("open", "");
new ResizeObserver(toEnd).observe(log);
toEnd();
offerNotice();
attend();
followPlaces();
document.addEventListener("visibilitychange", followPlaces);

function toEnd() {
  if (following) log.scrollTop = log.scrollHeight;
}

function pause(wait) {
  return new Promise((done) => setTimeout(done, wait));
}

// A browser opens six connections to one host, and a ready session says nothing for hours: it is asked now and then.
async function attend() {
  stream?.close();
  while (page.dataset.situation === "ready") {
    await pause(LOOK_EVERY);
    await refresh();
  }
  if (page.dataset.over === "no") listen();
}

function listen() {
  stream = new EventSource(`/api/launches/${page.dataset.id}/events?follow=1&after=${last}`);
  stream.onopen = () => (connection.hidden = true);
  stream.onerror = () => (stream.readyState === EventSource.CLOSED ? comeBack() : (connection.hidden = false));
  stream.onmessage = (message) => {
    const line = JSON.parse(message.data);
    if (line.id <= last) return; // a line that is shown already
    last = line.id;
    if (line.message) add(line);
    if (line.phase === "ready" && watching) return enter();
    if (line.state === "stopped") stream.close();
    const stage = `${line.phase || stageNow.split(" ")[0]} ${line.state}`;
    if (stage !== stageNow || line.phase === "waiting") refresh(); // it may wait at another place now
    stageNow = stage;
  };
}

// It was all said (204), or something between here and the broker refused: then the browser does not try again by itself.
async function comeBack() {
  await refresh();
  connection.hidden = page.dataset.over === "yes";
  if (page.dataset.over === "yes") return;
  await pause(RETRY_AFTER);
  attend();
}

async function enter() {
  watching = false;
  stream?.close();
  if (notify()) await seen();
  said.textContent = say("Ready. Opening it.");
  location.assign(`/launches/${page.dataset.id}/open`);
}

// Browsers ask their person only after a click; who has answered once is not asked again.
function offerNotice() {
  const button = document.getElementById("notice");
  if (!button || !("Notification" in window)) return;
  button.hidden = Notification.permission !== "default";
  document.getElementById("noticed").hidden = Notification.permission !== "granted";
  button.onclick = async () => {
    await Notification.requestPermission();
    offerNotice();
  };
}

// Whoever looks at the page needs no word. True where one was given.
function notify() {
  if (!document.hidden || !("Notification" in window) || Notification.permission !== "granted") return false;
  try {
    const notice = new Notification(page.dataset.notice, { tag: page.dataset.id });
    notice.onclick = () => (window.focus(), notice.close());
    return true;
  } catch {
    return false; // some browsers of phones leave this to service workers
  }
}

// Opened in a page that nobody sees, it would take the notice with it.
function seen() {
  return new Promise((done) => {
    const look = () => document.hidden || (document.removeEventListener("visibilitychange", look), done());
    document.addEventListener("visibilitychange", look);
    look();
  });
}

// Many lines may come at once: they are drawn once a frame.
function add(line) {
  waiting.push(line);
  if (drawing) return;
  drawing = true;
  setTimeout(draw, 50);
}

function draw() {
  drawing = false;
  const fresh = document.createDocumentFragment();
  for (const line of waiting.splice(0).slice(-LINES_MOST)) fresh.append(lineOf(line));
  log.append(fresh);
  while (log.childElementCount > LINES_MOST) log.firstElementChild.remove();
  toEnd();
}

function lineOf(line) {
  const row = document.createElement("span"), at = document.createElement("span");
  row.className = line.phase === "failed" ? "line bad" : "line";
  row.dataset.id = line.id;
  at.className = "at";
  at.textContent = (since(log.dataset.since) - since(line.at)).toFixed(1).padStart(6);
  row.append(at, ` ${line.message}\n`);
  return row;
}

// Steps and panel as the server shows them now. Never two requests at once; what comes in between asks once more.
let busy = false;
async function refresh() {
  if (busy) return void (again = true);
  busy = true;
  const fresh = await pageNow();
  busy = false;
  if (fresh) show(fresh);
  if (again) {
    again = false;
    refresh();
  }
}

function show(fresh) {
  const { situation: now, over } = fresh.getElementById("launch").dataset;
  const endsSoon = document.getElementById("soon") !== null;
  page.dataset.over = over;
  replace("where", fresh);
  replace("steps", fresh);
  replace("panel", fresh);
  offerCopies();
  offerNotice();
  const soon = document.getElementById("soon");
  if (soon && !endsSoon) said.textContent = soon.textContent;
  if (now === page.dataset.situation) return;
  page.dataset.situation = now;
  if (now === "ready") return watching ? enter() : void attend(); // the page may know before the stream has said so
  watching = now === "starting";
  document.title = fresh.title;
  said.textContent = document.getElementById("panel-title").textContent;
  if (now === "failed") {
    log.parentElement.open = true;
    draw();
    followPlaces();
  }
}

// Where else it could run goes on as in the form; what is new is shown as the server words it. Under somebody's hands nothing moves.
function followPlaces() {
  const from = document.getElementById("panel").dataset.places;
  places?.close();
  if (!from || document.hidden) return;
  const mine = (places = new EventSource(from));
  let timer = 0;
  const look = () => (document.querySelector(".others:is(:hover, :focus-within)") ? soon() : refresh());
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(look, 500);
  };
  for (const news of ["place", "order"]) mine.addEventListener(news, soon);
  for (const end of ["end", "error"]) mine.addEventListener(end, () => mine.close());
}

function remember() {
  try {
    const one = { title: page.dataset.title, link: page.dataset.again };
    const kept = JSON.parse(localStorage.getItem("anybinder.recent") || "[]").filter((other) => other.link !== one.link);
    localStorage.setItem("anybinder.recent", JSON.stringify([one, ...kept].slice(0, 8)));
  } catch {
    // A browser that keeps nothing is none the worse for it.
  }
}
