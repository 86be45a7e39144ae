"""Bringing the files of a record to this computer: each whole, as listed, and no further than the limits.

What is downloaded is somebody else's word twice over: the list is a host's, the address may lead on to another. Hence every name
is checked before it is written, every sum where there is one, and nothing leads from the internet into a private network.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from broker.environments import programs, unpacking
from broker.environments.programs import Failed, Sparse, tell

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt, twice as many before each further one
STALL = 60.0  # seconds of silence after which a server is asked again
LONGEST_WAIT = 60.0  # of what a server may ask for by `Retry-After`
POLL = 5.0  # seconds between questions whether an archive has been made; Software Heritage allows 120 questions an hour
PIECE = 1 << 18
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Again(Exception):
    """It did not work this time; `wait` seconds from now it may."""

    def __init__(self, why: str, wait: float = 0) -> None:
        super().__init__(why)
        self.wait = wait


def fetch(spec: dict[str, Any], tree: Path) -> None:
    """The listed files in `tree`, or what is in the one listed archive. Raises Failed."""
    content = spec["content"]
    files, limit = content["files"], int(spec["clone_megabytes"]) * 1_000_000
    tell("fetching", f"Fetching {spec['title']}: {plural(len(files), 'file')}")
    folder = tree.with_name("download") if content.get("unpack") else tree
    folder.mkdir()
    visit = Visit(folder, limit=limit, until=time.monotonic() + float(spec["build_seconds"]))
    for row in files:
        visit.bring(row)
    if content.get("unpack"):
        tell("fetching", f"Unpacking {files[0]['path']}")
        unpacking.unpack(folder / files[0]["path"], tree, limit=limit)
        shutil.rmtree(folder)


class Visit:
    """One record's files, which share one limit on size and one on time."""

    def __init__(self, folder: Path, *, limit: int, until: float) -> None:
        self.folder, self.limit, self.left, self.until = folder, limit, limit, until
        self.tags: dict[Path, str] = {}
        self.shown = Sparse("fetching")

    def bring(self, row: dict[str, Any]) -> None:
        """One file, whole and as listed. A connection that breaks is taken up where it broke."""
        target = unpacking.inside(self.folder, row["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise Failed(f"The list of files names {row['path']} twice.")
        if row.get("cook"):
            self.cook(row["cook"])
        self.insist(lambda: self.take(row, target), row["path"])
        self.left -= target.stat().st_size

    def insist(self, act: Callable[[], None], name: str) -> None:
        """Try a few times, with growing pauses."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return act()
            except Again as fault:
                seconds = max(fault.wait, PAUSE * 2 ** (attempt - 1))
                if attempt == ATTEMPTS or time.monotonic() + seconds > self.until:
                    raise Failed(f"{name} could not be downloaded: {fault} Try again later.") from None
                tell("fetching", f"{name}: {fault} Trying again")
                programs.pause(seconds)
        return None

    def take(self, row: dict[str, Any], target: Path) -> None:
        """One attempt, going on where the last one broke off. Raises Again, Failed."""
        part = target.with_name(target.name[:200] + ".part")
        have = part.stat().st_size if part in self.tags else 0
        with opened(row["url"], {"Range": f"bytes={have}-", "If-Range": self.tags[part]} if have else {}) as answer:
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            self.tags.pop(part, None)
            if (tag := answer.headers.get("ETag", "")).startswith('"'):  # a weak one does not promise the same bytes
                self.tags[part] = tag
            self.save(answer, part, have if goes_on else 0, row)
        self.tags.pop(part, None)
        try:
            check(row, part)
        except Again:
            part.unlink()
            raise
        part.rename(target)

    def save(self, answer: Any, part: Path, have: int, row: dict[str, Any]) -> None:
        with part.open("ab" if have else "wb") as file:
            for piece in pieces(answer):
                have += len(piece)
                if have > self.left:
                    raise Failed(f"These files have more than {self.limit // 1_000_000} MB in all.")
                if time.monotonic() > self.until:
                    raise Failed(f"{row['path']} takes too long to download.")
                file.write(piece)
                of = f" of {megabytes(row['size'])}" if row.get("size") else ""
                if have > PIECE:
                    self.shown(f"{row['path']}: {megabytes(have)}{of}")

    def cook(self, url: str) -> None:
        """Have the archive made, and wait until it is. Software Heritage's vault: POST asks for it, GET says how far it is."""
        method, said = "POST", ""
        while True:
            answer: dict[str, Any] = {}
            self.insist(lambda: answer.update(asked(url, method)), "The archive")  # noqa: B023 -- it is called here and now
            status = str(answer.get("status"))
            if status == "done":
                return
            if status == "failed":
                raise Failed(
                    f"The archive cannot be made: {str(answer.get('progress_message') or 'no reason given')[:300]}"
                )
            if time.monotonic() + POLL > self.until:
                raise Failed("The archive is still being made. Launch this again in some minutes.")
            words = f"The archive is being made: {str(answer.get('progress_message') or status)[:200]}"
            if words != said:
                tell("fetching", words)
            method, said = "GET", words
            programs.pause(POLL)


def asked(url: str, method: str) -> dict[str, Any]:
    """The JSON object that is answered."""
    with opened(url, {"Accept": "application/json"}, method) as answer:
        try:
            told = json.loads(b"".join(pieces(answer))[:1_000_000])
        except ValueError:
            raise Again("the answer makes no sense.") from None
    return told if isinstance(told, dict) else {}


def pieces(answer: Any) -> Iterable[bytes]:
    """The body. Raises Again where it breaks off."""
    try:
        while piece := answer.read1(PIECE):
            yield piece
    except (OSError, HTTPException):
        raise Again("the connection broke.") from None
    if getattr(answer, "length", None):  # read1 does not say by itself that bytes are missing
        raise Again("the connection broke.")


def opened(url: str, headers: dict[str, str], method: str = "GET") -> Any:
    """The answer, a context manager, after redirects. Raises Again, or Failed where asking again is of no use."""
    url = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # hosts list blanks and other letters as they are
    refuse(urlsplit(url))
    request = urllib.request.Request(  # noqa: S310 -- `refuse` has seen to the scheme
        url,
        headers={"User-Agent": "anybinder", "Accept-Encoding": "identity", **headers},
        method=method,
        data=b"" if method == "POST" else None,
    )
    host = urlsplit(url).hostname
    try:
        return opener().open(request, timeout=STALL)
    except urllib.error.HTTPError as refusal:
        with refusal:
            later = refusal.headers.get("Retry-After", "")
        if refusal.code in (429, 500, 502, 503, 504):
            raise Again(f"{host} has trouble (status {refusal.code}).", seconds(later)) from None
        raise Failed(explained(refusal.code, host)) from None
    except (OSError, HTTPException) as fault:
        reason = getattr(fault, "reason", fault)
        if isinstance(reason, Failed):
            raise reason from None
        raise Again(f"{host} cannot be reached.") from None


def explained(status: int, host: str | None) -> str:
    """What this status means for the person."""
    if 300 <= status < 400:
        return f"{host} leads on to what is not of the web, or round in circles. Tell the owner of this record."
    if status in (401, 403):
        return f"{host} does not give a file of this record to everybody. Ask its owner to make it public."
    if status in (404, 410):
        return f"{host} no longer has a file of this record. Launch it again, for the list as it is now."
    return f"{host} answers with status {status}. Try again later."


def seconds(later: str) -> float:
    return min(float(later), LONGEST_WAIT) if later.isdigit() else 0.0


def opener() -> urllib.request.OpenerDirector:
    """The web and nothing else: no file://, no ftp://. Proxies and certificates are the environment's."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Way(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Outward(),
    ):
        made.add_handler(handler)
    return made


class Way(urllib.request.BaseHandler):
    """To the one way there is, if there is one (`outward`), whatever the environment says of others."""

    handler_order = 50  # before the environment's, and nothing is asked of two

    def http_open(self, request: Any) -> None:
        scheme = request.type
        if address := programs.proxies.get(f"{scheme}_proxy"):
            request.set_proxy(urlsplit(address).netloc, "http")

    https_open = http_open


class Outward(urllib.request.HTTPRedirectHandler):
    """Follows where the web leads, but not from the internet into a private network."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            refuse(urlsplit(newurl))
            if private(urlsplit(newurl).hostname) and not private(urlsplit(req.full_url).hostname):
                raise Failed(
                    f"{urlsplit(req.full_url).hostname} leads on into a private network, from which nothing is fetched."
                )
        except Failed:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def refuse(parts: Any) -> None:
    """Raises Failed for what is not of the web, and for the addresses where clouds keep their keys."""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failed("The address of a file is not of the web.")
    if any(address.is_link_local or str(address) == "168.63.129.16" for address in addresses(parts.hostname)):
        raise Failed(f"Nothing is fetched from {parts.hostname}.")


def private(host: str | None, lookup: Callable[[str], list[Any]] | None = None) -> bool:
    """Whether any address of this host is not on the public internet. False where names are the proxy's to look up."""
    return any(not address.is_global for address in (lookup or addresses)(host or ""))


def addresses(host: str) -> list[Any]:
    """All addresses of this host; none where there is no such."""
    try:
        found = [
            ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in socket.getaddrinfo(host.strip("[]"), None)
        ]
    except (OSError, UnicodeError, ValueError):
        return []
    return [plain(address) for address in found]


def plain(address: Any) -> Any:
    """The IPv4 address that travels inside this IPv6 one, else the same."""
    if address.version == 4:
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def check(row: dict[str, Any], file: Path) -> None:
    """Raises Again where this is not what was listed: bytes get lost on the way, and files change."""
    size = file.stat().st_size
    if row.get("size") is not None and size != row["size"]:
        raise Again(f"{size} bytes came where {row['size']} are listed.")
    for kind in ("sha256", "md5"):
        if wanted := row.get(kind):
            with file.open("rb") as content:
                got = hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()  # noqa: B023
            if got != wanted.lower():
                raise Again("its checksum is not the one that is listed.")


def megabytes(size: int) -> str:
    """`12.3 MB`."""
    return f"{size / 1e6:.1f} MB"


def plural(count: int, what: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
