"""A site of somebody else's, on an origin of its own and under a strict policy, whose articles have something of ours in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STYLE = (
    "body { font: 1.0625rem/1.6 Georgia, serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem } "
    "anybinder-launch { margin: 1.5rem 0 }"
)
ARTICLE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>An article</title><link rel="stylesheet" href="/article.css">
<main><h1>Tides of the Wadden Sea</h1><p>All figures of this article can be made anew, from its data and its code.</p>
{snippet}
<p>The gauges were read every minute from 1998 on.</p></main></html>"""


class Journal:
    """A site of somebody else's, which allows the hub and nothing more."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.policy = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805  the journal is `self`
                css = handler.path == "/article.css"
                body = (STYLE if css else self.pages.get(handler.path, "")).encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "text/css" if css else "text/html; charset=utf-8")
                handler.send_header("Content-Length", str(len(body)))
                handler.send_header("Content-Security-Policy", self.policy)
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def allow(self, hub: str) -> None:
        """The policy that docs/links.md tells journals."""
        self.policy = (
            f"default-src 'none'; style-src 'self'; script-src {hub}; connect-src {hub}; img-src {hub}; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )

    def publish(self, path: str, snippet: str, lang: str = "en") -> str:
        """The address of an article with this in it."""
        self.pages[path] = ARTICLE.format(snippet=snippet, lang=lang)
        return self.url + path


@contextmanager
def publishing() -> Iterator[Journal]:
    """A journal that is served as long as one is in here."""
    made = Journal()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()
