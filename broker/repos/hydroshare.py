"""`hydroshare`: resources of HydroShare, which have a day of change and no versions.

By HydroShare's published API (`hsapi`): `/resource/<id>/scimeta/elements/` for the change, `/resource/<id>/files/` for the files.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from broker.repos import base, doi, errors, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
HOSTS = ("hydroshare.org", "www.hydroshare.org")
LASTING = (
    "HydroShare keeps no earlier versions: when its owner changes this resource, the same link opens what it is then."
)


class HydroShare(listing.DataHost):
    """Resources by their 32 digits, alone or in an address."""

    prefix = "hydroshare"
    title = "Hydroshare resource"
    host = "HydroShare"
    api = "https://www.hydroshare.org/hsapi"
    url = "https://www.hydroshare.org"
    repo_label = "Hydroshare resource id"
    repo_example = "example: 8f7c2f0341ef4180b0dbe97f59130756"
    url_encode = True
    has_ref = False
    validate_regex = r"[^/]+"

    def parse(self, spec: str) -> base.RepoSpec:
        found = ID.search(urls.decoded(spec).lower())
        if not found:
            raise errors.BadSpec(
                say(
                    "“%(spec)s” holds no id of a HydroShare resource. Those have 32 digits, such as "
                    "8f7c2f0341ef4180b0dbe97f59130756.",
                    spec=spec[:80],
                )
            )
        return base.RepoSpec(provider=self.prefix, repo=found[0])

    def spec(self, spec: base.RepoSpec) -> str:
        return spec.repo

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        named = doi.in_address(url) or ""
        if named.lower().startswith("10.4211/hs."):  # HydroShare's own DOIs carry the id
            return self.parse(named.replace("/", " ").replace(".", " "))
        return self.parse("/".join(url.segments)) if url.host in HOSTS else None

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        what = f"resource {spec.repo}"
        told = listing.ask(self, f"resource/{spec.repo}/scimeta/elements/", what, asking)
        with listing.sense(self.host):
            changed = modified(told)
        version = f"{spec.repo}.v{changed}"
        rows = self.rows(spec, what, asking)
        with listing.sense(self.host):
            files = [file(row, spec, asking.url(self)) for row in rows]
            stamps = ",".join(str(row.get("modified_time") or row.get("checksum")) for row in rows)
        page = f"{asking.url(self)}/resource/{spec.repo}"
        return listing.published(
            spec,
            commit=version,
            web_url=f"{page}/",
            repo_url=page,
            slug=naming.slug(f"hydroshare-{spec.repo[:12]}"),
            spec_string=spec.repo,
            content=listing.content(files, self.host, asking, version=f"{version} {stamps}"),
            lasting=LASTING,
        )

    def rows(self, spec: base.RepoSpec, what: str, asking: Asking) -> list[Any]:
        rows: list[Any] = []
        for page in range(1, listing.PAGES):
            answer = listing.ask(self, f"resource/{spec.repo}/files/?page={page}", what, asking)
            with listing.sense(self.host):
                rows += answer["results"]
                if not answer.get("next"):
                    break
        return rows


def modified(told: Any) -> int:
    """When the resource was changed last, in seconds since 1970: BinderHub's own version of it."""
    (date,) = (row["start_date"] for row in told["dates"] if row["type"] == "modified")
    when = datetime.fromisoformat(date.split(".")[0].rstrip("Z")[:19])
    return int(when.replace(tzinfo=UTC).timestamp())


def file(row: Any, spec: base.RepoSpec, url: str) -> dict[str, Any]:
    """One file; what it is called is in its address, below `data/contents`."""
    _, found, path = urlsplit(row["url"]).path.partition("/data/contents/")
    if not found:
        raise ValueError(row["url"])
    path = unquote(path)
    address = f"{url}/resource/{spec.repo}/data/contents/{quote(path, safe='/')}"
    return listing.entry(address, path, row.get("size"), **sums(str(row.get("checksum") or "")))


def sums(checksum: str) -> dict[str, str]:
    """HydroShare tells an MD5 in digits, or iRODS's `sha2:` in base64."""
    if checksum.startswith("sha2:"):
        return {"sha256": base64.b64decode(checksum.removeprefix("sha2:")).hex()}
    return {"md5": checksum}
