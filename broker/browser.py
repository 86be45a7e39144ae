"""Opening a page for the person, without its key ever standing in a process list."""

from __future__ import annotations

import html
import os
import webbrowser
from pathlib import Path


def open_page(home: Path, url: str) -> None:
    """Have the person's browser open this address. It goes through a file only they can read: a command line is public."""
    page = home / "open.html"
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        target = html.escape(url, quote=True)
        file.write(
            f'<!doctype html><meta charset="utf-8"><title>Anybinder</title>'
            f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">Continue to Anybinder</a>'
        )
    webbrowser.open(page.as_uri())
