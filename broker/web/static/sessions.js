// The list as it is now, every five seconds while somebody looks.

import { pageNow, replace } from "./times.js";

const EVERY = 5000;
const connection = document.getElementById("connection"), said = document.getElementById("said");
const states = () => [...document.querySelectorAll("tr[data-state]")].map((row) => `${row.querySelector("th a").textContent}: ${row.querySelector(".state").textContent}`);

async function refresh() {
  if (document.hidden) return;
  const before = states(), fresh = await pageNow();
  connection.hidden = fresh !== null;
  if (!fresh) return;
  replace("sessions", fresh);
  const news = states().filter((one) => !before.includes(one));
  if (news.length) said.textContent = news.join(", ");
}

setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
