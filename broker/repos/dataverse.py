"""`dataverse`: data sets of any Dataverse, found by their DOI.

By Dataverse's published native API on the host that the DOI leads to (or the operator's `hosts.dataverse.api`):
`/api/datasets/:persistentId/`, `/api/files/:persistentId`, and `/api/access/datafile/<id>` for the files. A version is written
behind the DOI: `10.7910/DVN/TJCLKP@1.0`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from broker.repos import base, doi, errors, http, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

VERSIONED = re.compile(r"(?P<doi>.+?)@(?P<version>[0-9]{1,4}\.[0-9]{1,4})")
PAGES = ("dataset.xhtml", "file.xhtml", "citation")
ELSEWHERE = re.compile(r"10\.[0-9.]+/zenodo\.|.*figshare|10\.4211/hs\.|10\.17605/osf\.io/", re.IGNORECASE)
"""DOIs that say themselves that another provider has them."""
EXAMPLE = "10.7910/DVN/TJCLKP"
LASTING = (
    "Dataverse names versions by a number, which its curators may give to other files; "
    "the link with @{version} asks for that number."
)


class Dataverse(listing.DataHost):
    """Data sets by DOI. Every DOI that no other provider knows is tried here: any host may run a Dataverse."""

    prefix = "dataverse"
    title = "Dataverse DOI"
    host = "Dataverse"
    repo_label = "Dataverse DOI"
    repo_example = f"example: {EXAMPLE}"
    has_ref = False
    validate_regex = r"10\.\d+\/(.)+"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.slashed(urls.decoded(spec))
        if urls.has_scheme(plain) and (found := self.detect(urls.split(plain))):
            return found
        return self.named(plain)

    def named(self, text: str, version: str = "HEAD") -> base.RepoSpec:
        """`text` may carry a version itself. Raises BadSpec."""
        if versioned := VERSIONED.fullmatch(text):
            text, version = versioned["doi"], versioned["version"]
        return base.RepoSpec(provider=self.prefix, repo=doi.plain(text, EXAMPLE), ref=version)

    def spec(self, spec: base.RepoSpec) -> str:
        return base.quoted(spec.repo + (f"@{spec.ref}" if spec.ref != "HEAD" else ""))

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if found := doi.in_address(url):
            return None if ELSEWHERE.match(found) else self.named(found)
        asked = dict(url.query)
        if not {"persistentId", "persistentid"} & set(asked) or not set(PAGES) & set(url.segments):
            return None
        version = asked.get("version", "")
        named = asked.get("persistentId") or asked.get("persistentid") or ""
        return self.named(named, version if re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version) else "HEAD")

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        versions = re.fullmatch(r"HEAD|[0-9]{1,4}\.[0-9]{1,4}", spec.ref)
        if not versions:
            raise errors.NotFound(
                say(
                    "Dataverse names versions such as 1.0, not “%(ref)s”. Leave it empty for the newest.",
                    ref=spec.ref[:40],
                )
            )
        origin = self.origin(spec, asking)
        data = self.dataset(spec, origin, asking)
        with listing.sense(self.host):
            at = data["latestVersion"]
            if spec.ref != "HEAD" and spec.ref != label(at):
                at = self.version(spec, data, origin, asking)
            refuse_withdrawn(at, spec)
            rows = at["files"]
            files = [file(row, origin) for row in rows if not row.get("restricted")]
            name = f"{data['authority']}/{data['identifier']}"
            if not doi.good(name):
                raise ValueError(name)
            version = label(at)
            return listing.published(
                spec,
                commit=f"{int(data['id'])}.v{version}",
                repo_url=f"https://doi.org/{quote(name, safe='/')}",
                web_url=f"{origin}/dataset.xhtml?persistentId=doi:{quote(name, safe='/')}&version={version}",
                slug=naming.slug(f"dataverse-{data['identifier']}"),
                spec_string=base.quoted(f"{name}@{version}"),
                note=left_out(len(rows) - len(files)),
                content=listing.content(
                    listing.unique(files), self.host, asking, version=f"{origin} {data['id']} {version}"
                ),
                lasting=LASTING.format(version=version),
            )

    def origin(self, spec: base.RepoSpec, asking: Asking) -> str:
        """Of the Dataverse that has it. The operator's own is asked without asking the DOI."""
        if own := asking.api(self):
            return own.removesuffix("/api")
        return doi.target(spec.repo, asking).origin

    def dataset(self, spec: base.RepoSpec, origin: str, asking: Asking) -> Any:
        """What the DOI names; for the DOI of a file, the data set that it belongs to."""
        try:
            return self.ask(
                f"{origin}/api/datasets/:persistentId/?persistentId=doi:{quote(spec.repo, safe='/')}", spec, asking
            )
        except errors.HostUnavailable:
            raise
        except errors.NotFound as missing:
            asked = f"{origin}/api/files/:persistentId/?persistentId=doi:{quote(spec.repo, safe='/')}&returnDatasetVersion=true"
            try:
                answer = self.ask(asked, spec, asking)
                with listing.sense(self.host):
                    owner = str(answer["datasetVersion"]["datasetPersistentId"])
            except errors.RepoError:
                raise missing from None
            return self.ask(
                f"{origin}/api/datasets/:persistentId/?persistentId={quote(owner, safe='/:')}", spec, asking
            )

    def version(self, spec: base.RepoSpec, data: Any, origin: str, asking: Asking) -> Any:
        return self.ask(f"{origin}/api/datasets/{int(data['id'])}/versions/{spec.ref}", spec, asking)

    def ask(self, url: str, spec: base.RepoSpec, asking: Asking) -> Any:
        own = asking.api(self)
        what = f"data set {spec.repo}" + (f" in version {spec.ref}" if spec.ref != "HEAD" else "")
        if own and http.origin_of(own) == http.origin_of(url):
            answer = asking.http.ask_api(url, accept="application/json", token=asking.token(self))
            told = listing.json_of(answer, self.host, what)
        else:
            told = listing.ask_anywhere(url, f"{http.host_of(url)}, where this DOI leads,", what, asking)
        with listing.sense(self.host):
            if told["status"] != "OK":
                raise errors.NotFound(
                    say(
                        "%(host)s has no %(what)s. Check the DOI, and that it is published.",
                        host=http.host_of(url),
                        what=what,
                    )
                )
            return told["data"]


def label(version: Any) -> str:
    """`1.0`."""
    return f"{int(version['versionNumber'])}.{int(version['versionMinorNumber'])}"


def refuse_withdrawn(version: Any, spec: base.RepoSpec) -> None:
    """Raises NotFound where the data set was taken back, of which only its description remains."""
    if version.get("versionState") == "DEACCESSIONED":
        raise errors.NotFound(
            say(
                "The data set %(repo)s was withdrawn. Ask its owner, or use another version or data set.",
                repo=spec.repo,
            )
        )


def left_out(count: int) -> str:
    """The sentence about files that nobody may have."""
    what = "One file is" if count == 1 else f"{count} files are"
    return f"{what} restricted and left out." if count else ""


def file(row: Any, origin: str) -> dict[str, Any]:
    """One file, as it was uploaded: what Dataverse turned into its own table format is asked for in the original.

    Of such a one, the sum and the size are not surely those of the original, so they are not demanded.
    """
    held = row["dataFile"]
    folder = str(row.get("directoryLabel") or "").strip("/")
    original = held.get("originalFileName")
    name = original or (row.get("label") or held["filename"])
    path = f"{folder}/{name}" if folder else name
    address = f"{origin}/api/access/datafile/{int(held['id'])}"
    if original or held.get("originalFileFormat"):
        return listing.entry(f"{address}?format=original", path)
    return listing.entry(address, path, held.get("filesize"), md5=held.get("md5"))
