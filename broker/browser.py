"""Opening a page for the person, without its key ever standing in a process list."""

from __future__ import annotations

import html
import webbrowser
from pathlib import Path

from broker.home import write_private


def open_page(home: Path, url: str) -> None:
    """Have the person's browser open this address. It goes through a file only they can read: a command line is public."""
    page, target = home / "open.html", html.escape(url, quote=True)
    write_private(
        page,
        f'<!doctype html><meta charset="utf-8"><title>Anybinder</title>'
        f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">Continue to Anybinder</a>',
    )
    webbrowser.open(page.as_uri())
