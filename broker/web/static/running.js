// Each cloud is asked by itself, and its part put in place as soon as it has answered.

import { replace } from "./times.js";
import { lang, say } from "./words.js";

const said = document.getElementById("said"), sum = document.getElementById("total");
const sections = (look) => [...document.querySelectorAll("section[data-look]")].filter((one) => !look || one.dataset.look === look);

function busy(look, on) {
  for (const one of sections(look)) {
    one.setAttribute("aria-busy", on);
    const note = one.querySelector(".asked");
    if (on && note) note.textContent = say("Asking its cloud…");
  }
}

async function ask(look) {
  busy(look, true);
  try {
    const answer = await fetch(`/running?look=${encodeURIComponent(look)}`, { headers: { accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const one of sections(look)) replace(one.id, fresh);
  } catch {
    for (const one of sections(look)) (one.querySelector(".asked") || one.querySelector("h2")).textContent = say("This hub does not answer. Try again in a moment.");
  }
  busy(look, false);
  sum.textContent = total();
}

// As broker/budgets.py says it: prices to the digit, sums rounded up to cents.
const signs = JSON.parse(sum.dataset.signs);

function exact(price, currency) {
  const known = Number(price.toFixed(6));
  return written(known, currency, Math.max(2, decimals(known)));
}

function money(amount, currency) {
  const known = Math.ceil(Number((amount * 1e6).toFixed(3))) / 1e6;
  if (amount > 0 && amount < 0.01) return written(known, currency, decimals(known));
  return written(currency in signs ? Math.ceil(Number((amount * 100).toFixed(4))) / 100 : known, currency, 2);
}

const decimals = (number) => (String(number).split(".")[1] || "").length;

function written(number, currency, digits) {
  if (!(currency in signs)) return `${number.toLocaleString(lang, { maximumFractionDigits: 6, useGrouping: lang !== "en" })}${lang === "en" ? " " : "\u00a0"}${currency}`;
  const format = { style: "currency", currency, minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: lang !== "en" };
  return number.toLocaleString(lang, format);
}

function total() {
  const sums = {};
  let unpriced = 0;
  for (const row of document.querySelectorAll("tr[data-hourly]")) {
    const { hourly, cost, currency } = row.dataset;
    if (!hourly) unpriced += 1;
    if (!Number(hourly)) continue;
    const [an_hour, so_far] = sums[currency] || [0, 0];
    sums[currency] = [an_hour + Number(hourly), so_far + Number(cost || 0)];
  }
  const parts = Object.keys(sums).sort().map((currency) => say("%(price)s an hour, %(cost)s so far", { price: exact(sums[currency][0], currency), cost: money(sums[currency][1], currency) }));
  if (unpriced) parts.push(say("%(count)s without a known price", { count: unpriced }));
  return parts.length ? parts.join("; ") : say("Nothing that costs money.");
}

async function everywhere() {
  await Promise.all([...new Set(sections().map((one) => one.dataset.look))].map(ask));
  const by = document.getElementById("by"), silent = sections().filter((one) => one.dataset.asked !== "yes").length;
  if (!silent && by) by.textContent = by.dataset.asked;
  said.textContent = silent
    ? say("%(count)s of %(all)s places could not be asked. %(total)s", { count: silent, all: sections().length, total: sum.textContent })
    : say("Every place was asked. %(total)s", { total: sum.textContent });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("section[data-look] a[id^='ask-']");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  ask(link.closest("section").dataset.look).then(() => (said.textContent = sum.textContent));
});

if (!new URLSearchParams(location.search).has("look")) everywhere();
