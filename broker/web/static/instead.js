// What can be opened in place of a link whose repository, branch or commit is gone. The page has room for it, `instead.html`.

const box = document.getElementById("instead");
let asking = null;

export async function offerInstead(address) {
  asking?.abort();
  box.hidden = true;
  if (!address) return;
  asking = new AbortController();
  try {
    const told = await (await fetch(address, { signal: asking.signal })).json();
    if (!told.sentence) return;
    document.getElementById("instead-sentence").textContent = told.sentence;
    document.getElementById("instead-ways").replaceChildren(...told.ways.map(row));
    box.hidden = false;
  } catch {
    // Left, or the broker is away: the refusal itself stands there already.
  }
}

function row(way) {
  const item = document.createElement("li"), link = document.createElement("a"), about = document.createElement("span");
  link.href = way.link;
  link.textContent = way.title;
  about.className = "soft";
  about.textContent = way.about;
  item.append(link, " ", about);
  return item;
}
