"""What a visitor sees when a session cannot be shown: one small page without scripts, or one sentence for programs."""

from __future__ import annotations

import base64
import hashlib
import html
import json

from broker import wire

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#545d68;--paper:#fff;--line:#d9dee4;--accent:#0b5fad;--on:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#aab3bd;--paper:#15181c;--line:#333a42;--accent:#7db8f0;--on:#10161c}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);
font:1.0625rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:34rem;width:100%;border-top:4px solid var(--accent);padding-top:1.75rem}
h1{font-size:1.625rem;line-height:1.25;margin:0 0 .75rem;font-weight:650;letter-spacing:-.01em}
p{margin:0 0 1.75rem;color:var(--soft)}
a{display:inline-block;padding:.6rem 1.1rem;border-radius:.375rem;background:var(--accent);color:var(--on);
font-weight:600;text-decoration:none}
a:hover{text-decoration:underline}
a:focus-visible{outline:3px solid var(--accent);outline-offset:3px}
footer{margin-top:2.5rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.875rem;color:var(--soft)}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Anybinder</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{sentence}</p>
<a href="{link}">{action}</a>
<footer>Anybinder</footer>
</main>
</body>
</html>
"""

STARTING = (503, "Your session is starting", "This page opens it by itself, usually within a minute.", "Try now")
LOST = (
    503,
    "Your session is out of reach",
    "Its computer does not answer right now. This page tries again by itself.",
    "Try now",
)
GONE = (
    410,
    "This session has ended",
    "Files that were not saved elsewhere went with it. You can launch the repository again.",
    "Launch it again",
)
FORBIDDEN = (
    403,
    "This session is not open to you",
    "Open it with the link of its launch. If it was yours, it may have ended.",
    "Go to Anybinder",
)
UNREACHABLE = (
    502,
    "The session did not answer",
    "Its server closed the connection or sent something that is no web page.",
    "Try again",
)


def answer(
    said: tuple[int, str, str, str],
    *,
    as_html: bool,
    home: str,
    sentence: str = "",
    without_body: bool = False,
    headers: bytes = b"",
) -> bytes:
    """A whole response that ends the connection. `sentence` replaces the page's own."""
    status, title, words, action = said
    again = action in ("Try now", "Try again")
    words = sentence or words
    if as_html:
        text = _PAGE.format(
            title=html.escape(title), style=_STYLE, sentence=html.escape(words), action=action,
            link="" if again else html.escape(home, quote=True),
        )  # fmt: skip
        kind, more = (
            "text/html; charset=utf-8",
            f"Content-Security-Policy: {_POLICY}\r\nX-Content-Type-Options: nosniff\r\n",
        )
        if status == 503:
            more += "Refresh: 2\r\n"
    else:
        text, kind, more = json.dumps({"detail": words}) + "\n", "application/json", ""
    if status == 503:
        more += "Retry-After: 2\r\n"
    body = text.encode()
    head = (
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        f"Referrer-Policy: no-referrer\r\nConnection: close\r\n{more}"
    ).encode()
    return wire.STATUS_LINE[status] + head + headers + b"\r\n" + (b"" if without_body else body)


def plain(status: int, sentence: str) -> bytes:
    """A refusal before it is known which session, if any, was meant."""
    body = json.dumps({"detail": sentence}).encode() + b"\n"
    head = (
        b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return wire.STATUS_LINE[status] + head % len(body) + body


def enter(location: bytes, cookie: bytes) -> bytes:
    """From an address that holds a token to the clean one, with the cookie."""
    return (
        wire.STATUS_LINE[303]
        + b"Location: %b\r\nSet-Cookie: %b\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
        % (location, cookie)
        + b"Content-Length: 0\r\n\r\n"
    )
