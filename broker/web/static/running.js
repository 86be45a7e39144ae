// Each cloud is asked by itself, and its part put in place as soon as it has answered.

import { replace } from "./times.js";

const said = document.getElementById("said"), sum = document.getElementById("total");
const sections = (look) => [...document.querySelectorAll("section[data-look]")].filter((one) => !look || one.dataset.look === look);

function busy(look, on) {
  for (const one of sections(look)) {
    one.setAttribute("aria-busy", on);
    const note = one.querySelector(".asked");
    if (on && note) note.textContent = "Asking its cloud…";
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
    for (const one of sections(look)) (one.querySelector(".asked") || one.querySelector("h2")).textContent = "This hub does not answer. Try again in a moment.";
  }
  busy(look, false);
  sum.textContent = total();
}

// As broker/budgets.py says it: prices to the digit, sums rounded up to cents.
const signs = JSON.parse(sum.dataset.signs);

function exact(price, currency) {
  const digits = String(Number(price.toFixed(6)));
  if (!(currency in signs)) return `${digits} ${currency}`;
  return signs[currency] + price.toFixed(Math.max(2, (digits.split(".")[1] || "").length));
}

function money(amount, currency) {
  const digits = String(Math.ceil(Number((amount * 1e6).toFixed(3))) / 1e6);
  if (!(currency in signs)) return `${digits} ${currency}`;
  return signs[currency] + (amount > 0 && amount < 0.01 ? digits : (Math.ceil(Number((amount * 100).toFixed(4))) / 100).toFixed(2));
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
  const parts = Object.keys(sums).sort().map((currency) => `${exact(sums[currency][0], currency)} an hour, ${money(sums[currency][1], currency)} so far`);
  if (unpriced) parts.push(`${unpriced} without a known price`);
  return parts.length ? parts.join("; ") : "Nothing that costs money.";
}

async function everywhere() {
  await Promise.all([...new Set(sections().map((one) => one.dataset.look))].map(ask));
  const by = document.getElementById("by"), silent = sections().filter((one) => one.dataset.asked !== "yes").length;
  if (!silent && by) by.textContent = by.dataset.asked;
  said.textContent = silent ? `${silent} of ${sections().length} places could not be asked. ${sum.textContent}` : `Every place was asked. ${sum.textContent}`;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("section[data-look] a[id^='ask-']");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  ask(link.closest("section").dataset.look).then(() => (said.textContent = sum.textContent));
});

if (!new URLSearchParams(location.search).has("look")) everywhere();
