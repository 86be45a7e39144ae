"""`figshare`: articles of figshare, each version of which is fixed.

By figshare's published API: `/v2/articles/<id>/versions`, one of these, and its `/files`.
"""

from __future__ import annotations

import re
from typing import Any

from broker.repos import base, doi, errors, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

ENDING = re.compile(r"(?P<stem>.*[./])(?P<article>[0-9]{1,12})(\.v(?P<version>[0-9]{1,4}))?", re.IGNORECASE)
EXAMPLE = "10.6084/m9.figshare.9782777.v1"
PAGE = 500
INLINE = 10  # an article's own list ends there, by figshare's documentation


class Figshare(listing.DataHost):
    """Articles by DOI or by address; without a version, the newest."""

    prefix = "figshare"
    title = "FigShare DOI"
    host = "figshare"
    api = "https://api.figshare.com/v2"
    url = "https://figshare.com"
    repo_label = "FigShare DOI"
    repo_example = f"example: {EXAMPLE}"
    has_ref = False
    validate_regex = r"10\.\d+\/(.)+"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.slashed(urls.decoded(spec))
        if urls.has_scheme(plain) and (found := self.detect(urls.split(plain))):
            return found
        if re.fullmatch(r"[0-9]{4,12}(\.v[0-9]{1,4})?", plain):
            return self.named(f"10.6084/m9.figshare.{plain}")
        return self.named(doi.plain(plain, EXAMPLE))

    def named(self, found: str) -> base.RepoSpec:
        """Raises BadSpec for DOIs that do not end in the number of an article, as all of figshare's do."""
        if not ENDING.fullmatch(found):
            raise errors.BadSpec(
                say(
                    "“%(found)s” is not a DOI of figshare. They end in a number, such as %(example)s.",
                    found=found[:80],
                    example=EXAMPLE,
                )
            )
        return base.RepoSpec(provider=self.prefix, repo=found.lower())

    def spec(self, spec: base.RepoSpec) -> str:
        return base.quoted(spec.repo)

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if found := doi.in_address(url):
            return self.named(found) if "figshare" in found.lower() else None
        if url.host != "figshare.com" and not url.host.endswith(".figshare.com"):
            return None
        numbers = [part for part in url.segments if re.fullmatch("[0-9]{1,12}", part)]
        if "articles" not in url.segments or not numbers or len(numbers[0]) < 4:
            raise errors.BadSpec(
                say("This page of figshare is no article. Open the article, and paste its address or its DOI.")
            )
        version = f".v{int(numbers[1])}" if len(numbers) > 1 and len(numbers[1]) <= 4 else ""
        return self.named(f"10.6084/m9.figshare.{numbers[0]}{version}")

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        found = ENDING.fullmatch(spec.repo)
        assert found  # noqa: S101 -- `named` has seen to it
        article = found["article"]
        version = int(found["version"] or self.newest(article, spec, asking))
        what = f"article {spec.repo}"
        path = f"articles/{article}/versions/{version}"
        record = listing.ask(self, path, what, asking)
        with listing.sense(self.host):
            refuse_closed(record, spec)
            rows = record["files"]
            if len(rows) >= INLINE:
                rows = self.all_files(f"{path}/files", what, asking)
            files = [file(row) for row in rows if not row.get("is_link_only")]
            page = str(record.get("figshare_url") or record.get("url_public_html") or asking.url(self))
        number = f"{article}.v{version}"
        return listing.published(
            spec,
            commit=number,
            repo_url=f"https://doi.org/{found['stem']}{number}",
            web_url=page if page.startswith(("https://", "http://")) else asking.url(self),
            slug=naming.slug(f"figshare-{number}"),
            spec_string=base.quoted(f"{found['stem']}{number}"),
            content=listing.content(
                listing.unique(files), self.host, asking, unpack=listing.single_archive(files), version=number
            ),
        )

    def newest(self, article: str, spec: base.RepoSpec, asking: Asking) -> int:
        rows = listing.ask(self, f"articles/{article}/versions", f"article {spec.repo}", asking)
        with listing.sense(self.host):
            return max(int(row["version"]) for row in rows)

    def all_files(self, path: str, what: str, asking: Asking) -> list[Any]:
        rows: list[Any] = []
        for page in range(1, listing.PAGES):
            more = listing.ask(self, f"{path}?page={page}&page_size={PAGE}", what, asking)
            rows += more
            if len(more) < PAGE:
                break
        return rows


def refuse_closed(record: Any, spec: base.RepoSpec) -> None:
    """Raises NotFound where the article is public and its files are not."""
    if record.get("is_embargoed") and not record.get("files"):
        until = str(record.get("embargo_date") or "a later day")[:10]
        raise errors.NotFound(
            say(
                "The files of %(repo)s are under embargo until %(until)s. Come back then, or ask the owner.",
                repo=spec.repo,
                until=until,
            )
        )
    if record.get("is_confidential") and not record.get("files"):
        raise errors.NotFound(
            say("The files of %(repo)s are confidential. Ask the owner to open them.", repo=spec.repo)
        )


def file(row: Any) -> dict[str, Any]:
    """One of figshare's files as ours; the sum that figshare computed counts more than the one it was told."""
    return listing.entry(
        row["download_url"],
        row["name"].replace("/", "_"),
        row.get("size"),
        md5=row.get("computed_md5") or row.get("supplied_md5"),
    )
