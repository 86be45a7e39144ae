"""`zenodo`: records of Zenodo, and of any other InvenioRDM that a DOI leads to.

By InvenioRDM's REST API as Zenodo publishes it: `/api/records/<id>` and `/api/records/<id>/files`. A published record never
changes its files; a DOI that stands for all versions leads to the newest.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from broker.repos import base, doi, errors, http, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

OWN = re.compile(r"10\.[0-9]{4,9}/zenodo\.([0-9]+)", re.IGNORECASE)
RECORD = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
HOSTS = ("zenodo.org", "www.zenodo.org")
EXAMPLE = "10.5281/zenodo.3242074"


class Zenodo(listing.DataHost):
    """Records by DOI, by address, or by number."""

    prefix = "zenodo"
    title = "Zenodo DOI"
    host = "Zenodo"
    api = "https://zenodo.org/api"
    url = "https://zenodo.org"
    repo_label = "Zenodo DOI"
    repo_example = f"example: {EXAMPLE}"
    has_ref = False
    validate_regex = r"10\.\d+\/(.)+"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.slashed(urls.decoded(spec))
        if urls.has_scheme(plain) and (found := self.detect(urls.split(plain))):
            return found
        number = re.fullmatch(r"(zenodo\.)?([0-9]{1,12})", plain, re.IGNORECASE)
        return self.named(f"10.5281/zenodo.{number[2]}" if number else doi.plain(plain, EXAMPLE))

    def named(self, found: str) -> base.RepoSpec:
        """DOIs mean the same in capitals and small letters."""
        return base.RepoSpec(provider=self.prefix, repo=found.lower())

    def spec(self, spec: base.RepoSpec) -> str:
        return base.quoted(spec.repo)

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if found := doi.in_address(url):
            return self.named(found) if OWN.fullmatch(found) else None
        if url.host not in HOSTS:
            return None
        match url.segments:
            case ("record" | "records" | "deposit" | "doi", number, *_) if number.isdecimal():
                return self.named(f"10.5281/zenodo.{number}")
            case ("doi", *rest) if OWN.fullmatch("/".join(rest)):
                return self.named("/".join(rest))
            case ("badge", "DOI", *rest) if OWN.fullmatch("/".join(rest).removesuffix(".svg")):
                return self.named("/".join(rest).removesuffix(".svg"))
        raise errors.BadSpec(
            say("This page of Zenodo is no record. Open the record, and paste its address or its DOI.")
        )

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        number, api = self.place(spec.repo, asking)
        record = self.ask(f"{api}/records/{number}", spec, asking)
        with listing.sense(self.host):
            number = str(record["id"])
            if not RECORD.fullmatch(number):
                raise ValueError(number)
            found = str(record.get("doi") or record.get("pids", {}).get("doi", {}).get("identifier") or spec.repo)
        files = self.files(record, f"{api}/records/{number}", spec, asking)
        if OWN.fullmatch(spec.repo):
            found = f"{spec.repo.rpartition('.')[0]}.{number}"
        return listing.published(
            spec,
            commit=number,
            repo_url=f"https://doi.org/{quote(found, safe='/')}",
            web_url=f"{api.removesuffix('/api')}/records/{number}",
            slug=naming.slug(f"zenodo-{number}"),
            spec_string=base.quoted(found.lower()),
            content=listing.content(
                files, self.host, asking, unpack=listing.single_archive(files), version=f"{api} {number}"
            ),
        )

    def place(self, name: str, asking: Asking) -> tuple[str, str]:
        """The number of the record, and where to ask for it. Zenodo's own DOIs say it themselves."""
        if own := OWN.fullmatch(name):
            return own[1], asking.api(self)
        address = doi.target(name, asking)
        match address.segments:
            case (*_, "record" | "records", number) if RECORD.fullmatch(number):
                return number, self.interface(address, asking)
            case (*_, "doi", _, last) if own := OWN.fullmatch(f"10.5281/{last}"):
                return own[1], self.interface(address, asking)
        raise errors.BadSpec(
            say(
                "The DOI %(name)s leads to %(host)s, and to no record as Zenodo has them. Paste the address "
                "of its page.",
                name=name,
                host=address.host,
            )
        )

    def interface(self, address: urls.Url, asking: Asking) -> str:
        own = http.origin_of(asking.url(self)) == address.origin or address.host in HOSTS
        return asking.api(self) if own else f"{address.origin}/api"

    def ask(self, url: str, spec: base.RepoSpec, asking: Asking) -> Any:
        what = f"record {spec.repo}"
        if url.startswith(f"{asking.api(self)}/"):
            return listing.ask(self, url.removeprefix(asking.api(self)), what, asking)
        return listing.ask_anywhere(url, "The host of this DOI", what, asking)

    def files(self, record: Any, own: str, spec: base.RepoSpec, asking: Asking) -> list[dict[str, Any]]:
        """Zenodo tells them with the record; InvenioRDM elsewhere, and for very many, beside it."""
        with listing.sense(self.host):
            rows = record.get("files")
            refuse_closed(record, spec)
            if not isinstance(rows, list):
                rows = self.ask(f"{own}/files", spec, asking)["entries"]
            return [file(row, own) for row in rows]


def refuse_closed(record: Any, spec: base.RepoSpec) -> None:
    """Raises NotFound where the record is public and its files are not."""
    metadata = record.get("metadata", {})
    right = metadata.get("access_right", "open")
    closed = record.get("access", {}).get("files") == "restricted"
    if right == "embargoed" and not record.get("files"):
        until = str(metadata.get("embargo_date") or "a later day")[:40]
        raise errors.NotFound(
            say(
                "The files of %(repo)s are under embargo until %(until)s. Come back then, or ask the owner.",
                repo=spec.repo,
                until=until,
            )
        )
    if (right in ("restricted", "closed") or closed) and not record.get("files"):
        raise errors.NotFound(say("The files of %(repo)s are restricted. Ask the owner to open them.", repo=spec.repo))


def file(row: Any, own: str) -> dict[str, Any]:
    """`own` is the record's address in the API, below which each file has its own."""
    kind, _, value = str(row.get("checksum") or "").partition(":")
    sums = {kind: value} if kind in listing.DIGITS else {}
    links = row.get("links", {})
    url = links.get("content") or links.get("self") or ""
    if not url.endswith("/content"):
        url = f"{own}/files/{quote(row['key'], safe='')}/content"
    return listing.entry(url, row["key"], row.get("size"), **sums)
