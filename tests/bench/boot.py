"""From the cloud being asked to a session that is ready, part by part, on an AWS whose machines boot (tests/clouds).

    python -m tests.bench.boot --svg docs/images/boot.svg

Prints a Markdown table and draws the same as a stacked chart. Needs root, Chromium and the package index, as the suite does.
The double's machine has its power at once, where a cloud takes its time: that part is the cloud's, and is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from playwright.sync_api import Page

from tests import servers
from tests.browser.shared import APP
from tests.clouds import aws, launching
from tests.clouds.world import World
from tests.doubles.machines import Machine, image
from tests.servers import chromium
from tests.waiting import until

PARTS = {
    "power": "power on",
    "told": "systemd, cloud-init reads the user data",
    "program": "programs fetched from the broker",
    "enrolled": "agent enrols",
    "fetched": "repository fetched, git installed",
    "built": "environment built",
    "served": "server up",
    "ready": "tunnel, and ready",
}
"""Each is named by its end, with what a reader is told of it."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "JupyterLab and one package, first launch": launching.NOTEBOOKS,
    "the same once more": launching.NOTEBOOKS,
    "an app that needs nothing": APP,
}
READY_SECONDS = 600
COLOURS = ("#9aa5b1", "#4c78a8", "#72b7b2", "#54a24b", "#eeca3b", "#f58518", "#e45756", "#b279a2")
PALE = ("#9aa5b1", "#72b7b2", "#eeca3b", "#f58518")  # what stands on them is dark


def measured(at: World, page: Page, files: Mapping[str, Any], repo: str) -> dict[str, float]:
    """Seconds from the cloud being asked to the end of each part."""
    at.repository(repo, dict(files))
    launching.fill(at, page, repo)
    known = len(at.machines())
    progress = launching.begin(page)
    number = progress.partition("/launches/")[2].partition("?")[0].strip("/")
    page.goto("about:blank")  # a page that draws takes what the machine could use
    until(lambda: len(at.machines()) > known, seconds=90, what="a machine was started")
    machine = at.machines()[-1]
    program = seen(machine, "starting the agent")
    marks = until(lambda: reached(at, page, number), seconds=READY_SECONDS, what=machine.console()[-2000:])
    launching.stop(page, progress)
    until(lambda: at.left() == [], seconds=180, what="nothing is left")
    began = next(each["at"] for each in marks if each["phase"] == "asked")
    zero = time_of(began)
    found = {each["phase"]: each["seconds"] for each in marks if each["phase"] in PARTS}
    found |= {"power": machine.began - zero, "told": machine.service.told_at - zero, "program": program - zero}
    return {name: round(found[name], 2) for name in PARTS if name in found}


def seen(machine: Machine, words: str) -> float:
    """When the console said so."""
    until(lambda: words in machine.console(), seconds=READY_SECONDS, what=machine.console()[-2000:])
    return time.time()


def reached(at: World, page: Page, number: str) -> list[dict[str, Any]] | None:
    marks: list[dict[str, Any]] = page.request.get(f"{at.url}/api/launches/{number}/phases").json()
    return marks if any(each["phase"] == "ready" for each in marks) else None


def time_of(instant: str) -> float:
    return dt.datetime.fromisoformat(instant).timestamp()


def lengths(ends: Mapping[str, float]) -> dict[str, float]:
    """How long each part took. What ended before the one before it took no time of its own."""
    took, before = {}, 0.0
    for name in PARTS:
        if name in ends:
            took[name] = max(0.0, ends[name] - before)
            before = max(before, ends[name])
    return took


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    titles = list(results)
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for name, about in PARTS.items():
        cells = [f"{lengths(results[title]).get(name, 0):.1f} s" if name in results[title] else "" for title in titles]
        lines.append(f"| {about} | {' | '.join(cells)} |")
    totals = [f"**{max(results[title].values()):.1f} s**" for title in titles]
    return "\n".join([*lines, f"| **in all** | {' | '.join(totals)} |"])


# --- the chart ------------------------------------------------------------------------------------------------------


WIDE, LEFT, ROW, BAR = 860, 20, 58, 26
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.soft { fill: #57606a }
.in { fill: #fff; font-size: 12px }
.on { fill: #1f2328; font-size: 12px }
line { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .soft { fill: #9da7b3 }
  .in { fill: #fff }
  .on { fill: #1f2328 }
  line { stroke: #3d444d }
}
"""


def chart(results: Mapping[str, Mapping[str, float]]) -> str:
    """A stacked bar for each variant, on one scale, with its legend; no background of its own."""
    longest = max(max(each.values()) for each in results.values())
    scale = (WIDE - 2 * LEFT - 60) / longest
    legend_at = 40 + ROW * len(results) + 30
    height = legend_at + 22 * ((len(PARTS) + 1) // 2) + 10
    parts = [*ticks(longest, scale, 30 + ROW * len(results))]
    for row, (title, ends) in enumerate(results.items()):
        parts += bar(40 + ROW * row, title, ends, scale)
    parts += legend(legend_at)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {height}" role="img" aria-labelledby="t">'
    told = "From the cloud being asked to a session that is ready, part by part"
    return "\n".join([head, f'<title id="t">{told}</title>', f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def ticks(longest: float, scale: float, bottom: int) -> Iterator[str]:
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100) if longest / each <= 10)
    for number in range(0, int(longest) + 1, step):
        x = LEFT + number * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{bottom}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number} s</text>'


def bar(top: int, title: str, ends: Mapping[str, float], scale: float) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{top}">{escape(title)}</text>'
    x = float(LEFT)
    for name, seconds in lengths(ends).items():
        wide = seconds * scale
        colour = COLOURS[list(PARTS).index(name)]
        said = f"{PARTS[name]}: {seconds:.1f} s"
        yield f'<rect x="{x:.1f}" y="{top + 6}" width="{wide:.1f}" height="{BAR}" fill="{colour}"><title>{said}</title></rect>'
        if wide > 34:
            kind = "on" if colour in PALE else "in"
            yield f'<text class="{kind}" x="{x + wide / 2:.1f}" y="{top + 24}" text-anchor="middle">{seconds:.1f}</text>'
        x += wide
    yield f'<text x="{x + 6:.1f}" y="{top + 24}">{max(ends.values()):.1f} s</text>'


def legend(top: int) -> Iterator[str]:
    for number, about in enumerate(PARTS.values()):
        x, y = LEFT + (number % 2) * WIDE // 2, top + 22 * (number // 2)
        yield f'<rect x="{x}" y="{y}" width="14" height="14" fill="{COLOURS[number]}"/>'
        yield f'<text x="{x + 22}" y="{y + 12}">{escape(about)}</text>'


# --- the command ----------------------------------------------------------------------------------------------------


@contextmanager
def standing() -> Iterator[tuple[World, Page]]:
    """A world, and somebody in it who has connected an account."""
    with (
        tempfile.TemporaryDirectory(prefix="abboot-") as folder,
        chromium.running() as browser,
        aws.running(browser, Path(folder)) as at,
        at.person() as page,
    ):
        yield at, page


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="draw the chart there")
    parser.add_argument("--json", type=Path, help="keep the figures there; where they are already, nothing is measured")
    told = parser.parse_args(arguments)
    if told.json and told.json.exists():
        results = json.loads(told.json.read_text())
    else:
        assert all(need.fetch() for need in (servers.CHROMIUM, image.NEED)), "Chromium, mmdebstrap and root are needed."
        with standing() as (at, page):
            names = {title: f"{number}.git" for number, title in enumerate(VARIANTS)} | {"the same once more": "0.git"}
            results = {title: measured(at, page, files, names[title]) for title, files in VARIANTS.items()}
        if told.json:
            told.json.write_text(json.dumps(results))
    print(table(results))
    if told.svg:
        told.svg.write_text(chart(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
