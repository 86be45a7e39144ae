"""What people paste, made safe to look at: one line, no control characters, percent-encoding undone exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from broker.repos import errors
from providers.sentences import say

LONGEST = 2000
"""Characters. The launch link must fit into a browser's address bar, and an argument list into the system's."""

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
SCP = re.compile(r"([A-Za-z0-9_][\w.-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):(?!//)([^\s:][^\s]*)", re.ASCII)
BARE_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(:[0-9]+)?/.", re.ASCII)
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\]", re.ASCII)

SHORTHANDS = (
    (re.compile(r"(doi:\s*)?(?=10\.[0-9]{4,9}(\.[0-9]+)*/.)", re.IGNORECASE), "https://doi.org/"),
    (re.compile(r"(?=swh:1:)", re.IGNORECASE), "https://archive.softwareheritage.org/"),
    (re.compile(r"docker://"), "docker/"),
)
"""What people cite or type without an address, and what stands for it."""

REFUSED_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.")
"""What git itself refuses in the name of a reference (git-check-ref-format)."""


@dataclass(frozen=True, kw_only=True)
class Url:
    """A pasted address, taken apart. `segments` are percent-decoded, `raw` are as they came; neither has empty ones."""

    scheme: str
    user: str
    host: str
    port: int | None
    raw: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(decoded(part) for part in self.raw)

    @property
    def origin(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{self.host}{f':{self.port}' if self.port else ''}"

    def address(self, length: int | None = None) -> str:
        """The address of its first so many segments, without query and fragment, encoded one way only."""
        path = "/".join(quote(part, safe="~+@,;=!$&'()*:") for part in self.segments[:length])
        return f"{self.origin}/{path}"


def clean(text: str) -> str:
    """The text without blanks around it. Raises BadSpec for what no repository's address can hold."""
    if not isinstance(text, str):
        raise errors.BadSpec
    text = text.strip(" \t\r\n")
    if not text:
        raise errors.BadSpec(say("Name a repository: paste its address, or write owner/name for GitHub."))
    if len(text) > LONGEST:
        raise errors.BadSpec(
            say(
                "This is too long for the address of a repository (over %(longest)s characters). Shorten it.",
                longest=LONGEST,
            )
        )
    if not text.isprintable() or re.search(r"\s", text):
        raise errors.BadSpec(say("The address of a repository holds no blanks or control characters. Take them out."))
    if text.startswith("-"):
        raise errors.BadSpec(say("The address of a repository does not begin with “-”. Paste it again."))
    return text


def decoded(text: str) -> str:
    """Percent-encoding undone once. Raises BadSpec where that brings forth what `clean` refuses."""
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise errors.BadSpec(
            say("The percent-encoding in this address is not UTF-8. Paste the address again.")
        ) from None
    if not plain.isprintable():
        raise errors.BadSpec(say("This address hides control characters in its percent-encoding. Paste it again."))
    return plain


def ref(text: str) -> str:
    """This branch, tag or commit; `HEAD` where none is named. Raises BadSpec for what git would not take as one."""
    if not text:
        return "HEAD"
    if text.startswith(("-", "/")) or text.endswith(("/", ".")) or text == "@":
        raise errors.BadSpec(say("“%(text)s” is not the name of a branch, tag or commit. Check it.", text=text))
    if len(text) > LONGEST or not text.isprintable() or REFUSED_IN_REFS.search(text):
        raise errors.BadSpec(
            say("This is not the name of a branch, tag or commit. Check it; HEAD is the default branch.")
        )
    return text


def path(text: str) -> str:
    """A file or folder inside the repository, without slashes around it. Raises BadSpec where it leads out of it."""
    text = text.strip("/")
    if len(text) > LONGEST or not text.isprintable() or ".." in text.split("/"):
        raise errors.BadSpec(say("The path leads out of the repository, or is no path. Check it."))
    return text


def spelled_out(text: str) -> str:
    """`10.5281/zenodo.7`, `doi:10.…`, `swh:1:…` and `docker://…` as an address, or as BinderHub's string; else the same."""
    for shorthand, address in SHORTHANDS:
        if found := shorthand.match(text):
            return address + text[found.end() :]
    return text


def slashed(text: str) -> str:
    """An address whose two slashes somebody on the way made one, as proxies do, has them again; else the same."""
    return re.sub(r"^([a-z][a-z0-9+.-]*):/+", r"\1://", text, flags=re.IGNORECASE)


def has_scheme(text: str) -> bool:
    """True for `anything://…`."""
    return bool(SCHEME.match(text))


def split(text: str) -> Url:
    """Take apart an address with a scheme, `user@host:path`, or `host.tld/path`. Raises BadSpec or NotAllowed."""
    if found := SCP.fullmatch(text):
        text = f"ssh://{found[1]}@{found[2]}/{found[3].lstrip('/')}"
    elif BARE_HOST.match(text):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise errors.BadSpec(
            say("The host or port in this address cannot be read. Check them, and paste the address again.")
        ) from None
    refuse_credentials(parts)
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?", parts.username or "", re.ASCII):
        raise errors.BadSpec(say("The user name in this address is none that git would use. Paste the address again."))
    host = parts.netloc.rpartition("@")[2]
    host = re.sub(r":[0-9]*$", "", host).lower()
    if parts.scheme != "file" and not HOST.fullmatch(host):
        raise errors.BadSpec(
            say(
                "This address names no host, or one that browsers spell otherwise (xn--…). Paste the address "
                "from a browser."
            )
        )
    raw = tuple(part for part in parts.path.split("/") if part)
    if any(decoded(part) in (".", "..") for part in raw):
        raise errors.BadSpec(say("This address holds “.” or “..” as a folder. Paste the address without them."))
    if any(decoded(part).startswith("-") for part in raw[:1]) or host.startswith("-"):
        raise errors.BadSpec(say("No part that names a host or an owner begins with “-”. Paste the address again."))
    query = tuple(parse_qsl(parts.query, keep_blank_values=True, errors="replace"))
    return Url(scheme=parts.scheme, user=parts.username or "", host=host, port=port, raw=raw, query=query)


def refuse_credentials(parts: SplitResult) -> None:
    """They would end up in logs, in the table and in the session. `git@` in an ssh address is a name, not a secret."""
    if parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https", "git")):
        raise errors.NotAllowed(
            say(
                "The address holds a user name or password, which would end up in logs. Take out what stands "
                "before “@”."
            )
        )
