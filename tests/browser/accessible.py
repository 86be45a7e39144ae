"""What WCAG 2.2 AA asks of a page, as far as a program can look: axe, and what axe does not look at.

Each takes a page as it stands and says what is wrong with it; empty where nothing is.
"""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

DESK, PHONE = {"width": 1100, "height": 820}, {"width": 390, "height": 844}
LOOKS = [(scheme, size) for scheme in ("light", "dark") for size in (DESK, PHONE)]
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
OF_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
"""In the dark the colours are others, and nothing else is."""
AXE = """rules => axe.run(document, {runOnly: rules, resultTypes: ["violations"]}).then(found => found.violations.flatMap(
    each => each.nodes.map(node => `${each.id}: ${node.target.flat().join(" ")}: ${node.failureSummary}`)))"""
OPENED = "document.querySelectorAll('details').forEach(one => { one.open = true })"

NARROW, ZOOMED, WIDE = 320, 640, 1280  # 1280 px at 400 % and at 200 %, and as it is
CUT = """() => {
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const cut = [...document.querySelectorAll("main *, header *, footer *")].filter(one => {
        const style = getComputedStyle(one);
        if (!one.offsetParent || one.closest(".vh, svg, pre, input, textarea, thead, .who, .why")) return false;
        const hidden = value => value === "hidden" || value === "clip";
        return hidden(style.overflowX) && one.scrollWidth > one.clientWidth + 1 ||
            hidden(style.overflowY) && one.scrollHeight > one.clientHeight + 1;
    });
    return [...(wide > 0 ? [`${wide} px to the side`] : []), ...cut.map(one => `cut: ${one.outerHTML.slice(0, 200)}`)];
}"""
SPACED = """() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }
        p { margin-bottom: 2em !important }`);
    document.adoptedStyleSheets = [sheet];
}"""
UNSPACED = "() => { document.adoptedStyleSheets = [] }"

# A ring may be around the line that a radio button stands for, and not around the button.
UNSEEN = """() => {
    const all = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
    const look = one => [one, one.closest(".place, .size")].filter(Boolean).map(each => {
        const style = getComputedStyle(each);
        return [style.outlineStyle, style.outlineWidth, style.outlineColor];
    });
    const shows = ([style, width]) => style !== "none" && parseFloat(width) >= 2;
    return [...document.querySelectorAll(all)].filter(one => one.checkVisibility() && !one.disabled).filter(one => {
        one.focus({ focusVisible: true, preventScroll: true });
        return document.activeElement !== one || !look(one).some(shows);
    }).map(one => one.outerHTML.slice(0, 200));
}"""
MOVING = """() => document.getAnimations().filter(one => one.playState === "running").map(
    one => `${one.animationName || one.transitionProperty} on ${one.effect.target.outerHTML.slice(0, 100)}`)"""


def violations(page: Page) -> list[str]:
    """What axe finds, light and dark, at a desk and on a phone, with everything unfolded."""
    page.evaluate(OPENED)
    page.evaluate(AXE_SCRIPT)
    found: list[str] = []
    for scheme, size in LOOKS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        rules = RULES if scheme == "light" else OF_COLOURS
        found += [f"{scheme}, {size['width']} px: {one}" for one in page.evaluate(AXE, rules)]
    return found


def cut(page: Page) -> list[str]:
    """What sticks out or is cut off where one zooms in, or sets text more widely (WCAG 1.4.4, 1.4.10, 1.4.12)."""
    page.evaluate(OPENED)
    found = _at_widths(page, "")
    page.evaluate(SPACED)
    found += _at_widths(page, " and widely set text")
    page.evaluate(UNSPACED)
    return found


def _at_widths(page: Page, how: str) -> list[str]:
    found = []
    for width in (NARROW, ZOOMED, WIDE):
        page.set_viewport_size({"width": width, "height": 800})
        found += [f"{width} px{how}: {one}" for one in page.evaluate(CUT)]
    return found


def unseen_focus(page: Page) -> list[str]:
    """What shows no ring once the keyboard is there, in the colours of the page and in forced ones (WCAG 2.4.7)."""
    page.evaluate(OPENED)
    found = []
    for forced in ("none", "active"):
        page.emulate_media(forced_colors=forced)  # type: ignore[arg-type]
        page.keyboard.press("Shift")  # from now on the browser shows where the focus is
        found += [f"forced colours {forced}: {one}" for one in page.evaluate(UNSEEN)]
    page.emulate_media(forced_colors="none")
    return found


def moving(page: Page) -> list[str]:
    """What moves for somebody who wants nothing to."""
    page.emulate_media(reduced_motion="reduce")
    found: list[Any] = page.evaluate(MOVING)
    return found
