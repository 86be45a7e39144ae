"""`swh`: whatever Software Heritage has archived, by its SWHID or by the address it was archived from.

By the archive's published API: `/api/1/revision/`, `/release/`, `/snapshot/`, `/origin/…/visit/latest/` lead to a directory,
whose id is computed from its files; `/api/1/vault/flat/<swhid>/` makes an archive of them on demand (POST, then GET until it is
done), which the instance asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from broker.repos import base, errors, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

CORE = re.compile(r"swh:1:(cnt|dir|rev|rel|snp):([0-9a-f]{40})", re.IGNORECASE)
HOSTS = ("archive.softwareheritage.org",)
KINDS = {"directory": "dir", "revision": "rev", "release": "rel", "snapshot": "snp"}
BRANCHES = ("HEAD", "refs/heads/main", "refs/heads/master")
STEPS = 8
"""From a release of a release to a directory; nobody nests deeper."""
EXAMPLE = "swh:1:rev:94dca98c006b80309704c717b5d83dff3c1af3a0"


@dataclass(frozen=True, kw_only=True)
class Way:
    """From what was asked for: the directory, and the revision that it is of, where it is of one."""

    directory: str
    revision: str = ""


class SoftwareHeritage(listing.DataHost):
    """Directories, revisions, releases and snapshots by id; `origin/<address>` is the last visit to that repository."""

    prefix = "swh"
    title = "Software Heritage id"
    host = "Software Heritage"
    api = "https://archive.softwareheritage.org/api/1"
    url = "https://archive.softwareheritage.org"
    repo_label = "Software Heritage id (SWHID)"
    repo_example = f"example: {EXAMPLE}"
    has_ref = False
    validate_regex = r"(swh:1:(dir|rev|rel|snp|cnt):[0-9a-f]{40}.*|origin\/.+)"
    detect_regex = r"^(https?:\/\/archive.softwareheritage.org\/)(?<repo>swh:1:(dir|rev|rel|snp):[0-9a-f]{40})\/?$"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.decoded(spec)
        kind, _, address = plain.partition("/")
        if kind.lower() == "origin" and address:
            return self.origin(address)
        found = CORE.match(plain)
        if not found or (plain[found.end() :] and plain[found.end()] not in ";/"):
            raise errors.BadSpec(
                say(
                    "“%(spec)s” is not an id of Software Heritage. They look like %(example)s.",
                    spec=spec[:80],
                    example=EXAMPLE,
                )
            )
        return self.named(found, plain[found.end() :])

    def named(self, found: re.Match[str], qualifiers: str) -> base.RepoSpec:
        """Qualifiers say where a thing lies: of a file, `anchor` is what can be opened, and `path` the file in it."""
        told = dict(part.partition("=")[::2] for part in qualifiers.strip("/").split(";") if "=" in part)
        anchor = CORE.fullmatch(told.get("anchor", ""))
        path = urls.path(urls.decoded(told.get("path", "")))
        whole = anchor if anchor and path and anchor[1].lower() != "cnt" else found
        if whole[1].lower() == "cnt":
            raise errors.BadSpec(say("This is the id of a single file. Paste the id of its directory or revision."))
        opened = path if whole is anchor or not path else ""
        return base.RepoSpec(provider=self.prefix, repo=whole[0].lower(), path=opened)

    def origin(self, address: str) -> base.RepoSpec:
        address = urls.slashed(address)
        if (
            not re.match(r"[a-z][a-z0-9+.-]*://.", address, re.IGNORECASE)
            or not address.isprintable()
            or " " in address
        ):
            raise errors.BadSpec(
                say("Behind origin/ stands the address that was archived, such as https://github.com/o/r.")
            )
        urls.split(address)
        return base.RepoSpec(provider=self.prefix, repo=f"origin/{address}")

    def spec(self, spec: base.RepoSpec) -> str:
        if spec.repo.startswith("origin/"):
            return f"origin/{quote(spec.repo.removeprefix('origin/'), safe='')}"
        return spec.repo

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if url.host not in HOSTS:
            return None
        asked = dict(url.query)
        match url.segments:
            case (core, *rest) if CORE.match(core):
                return self.parse("/".join((core, *map(quote, rest))))
            case ("browse", kind, number, *_) if kind in KINDS and re.fullmatch("[0-9a-f]{40}", number):
                return self.parse(f"swh:1:{KINDS[kind]}:{number}")
            case ("browse", "origin", *_) if "origin_url" in asked:
                return self.origin(asked["origin_url"])
            case ("browse", "origin", *rest) if "http:" in rest or "https:" in rest:
                at = next(at for at, part in enumerate(rest) if part in ("http:", "https:"))
                ends = [
                    end
                    for end, part in enumerate(rest)
                    if part in ("directory", "visits", "log", "branches") and end > at
                ]
                return self.origin("/".join(rest[at : min(ends, default=len(rest))]))
        raise errors.BadSpec(
            say("This page of Software Heritage has no id. Copy the SWHID from the “Permalinks” at its side.")
        )

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        if spec.repo.startswith("origin/"):
            address = spec.repo.removeprefix("origin/")
            visit = self.ask(f"origin/{address}/visit/latest/?require_snapshot=true", f"visit to {address}", asking)
            with listing.sense(self.host):
                way = self.walk("snapshot", identifier(visit["snapshot"]), asking)
        else:
            _, _, kind, number = spec.repo.split(":")
            way = self.walk(next(name for name, short in KINDS.items() if short == kind), number, asking)
        directory = f"swh:1:dir:{way.directory}"
        lasting = f"swh:1:rev:{way.revision}" if way.revision else directory
        bundle = f"{asking.api(self)}/vault/flat/{directory}/"
        files = [listing.entry(f"{bundle}raw/", "bundle.tar.gz") | {"cook": bundle}]
        found = listing.published(
            spec,
            commit=directory,
            repo_url=f"{asking.url(self)}/{lasting}",
            web_url=f"{asking.url(self)}/{lasting}/",
            slug=naming.slug(name_of(spec.repo, way)),
            spec_string=lasting,
            content=listing.content(files, self.host, asking, unpack=True, version=directory),
        )
        return replace(found, spec=spec)

    def walk(self, kind: str, number: str, asking: Asking) -> Way:
        """Follow it down to a directory, one question a step."""
        revision = ""
        for _ in range(STEPS):
            what = f"{kind} {number}"
            if kind not in KINDS:
                raise errors.BadSpec(
                    say(
                        "This leads to a %(kind)s, not to a directory. Paste the id of a directory or revision.",
                        kind=kind[:20],
                    )
                )
            if kind == "directory":
                self.ask(f"directory/{number}/", what, asking)
                return Way(directory=number, revision=revision)
            told = self.ask(f"{kind}/{number}/", what, asking)
            with listing.sense(self.host):
                if kind == "revision":
                    return Way(directory=identifier(told["directory"]), revision=number)
                if kind == "release":
                    kind, number = told["target_type"], identifier(told["target"])
                else:
                    kind, number = self.branch(number, told["branches"], asking)
        raise errors.HostUnavailable(say("This id leads on and on to others. Paste the id of a directory or revision."))

    def branch(self, snapshot: str, branches: dict[str, Any], asking: Asking) -> tuple[str, str]:
        """What the default branch of a snapshot is: kind and id. A long list comes in pages, so names are asked for."""
        for name in BRANCHES:
            for _ in range(STEPS):
                at = branches.get(name) or self.one_branch(snapshot, name, asking)
                if not at:
                    break
                if at["target_type"] != "alias":
                    return at["target_type"], identifier(at["target"])
                name = at["target"]
        raise errors.NotFound(say("This snapshot has no default branch. Paste the id of one of its revisions."))

    def one_branch(self, snapshot: str, name: str, asking: Asking) -> Any:
        asked = f"snapshot/{snapshot}/?branches_from={quote(name, safe='')}&branches_count=1"
        return self.ask(asked, f"snapshot {snapshot}", asking)["branches"].get(name)

    def ask(self, path: str, what: str, asking: Asking) -> Any:
        if path.startswith("directory/"):  # a long answer, of which its being there is all that counts
            answer = asking.http.ask_api(
                f"{asking.api(self)}/{path}", accept="application/json", token=asking.token(self)
            )
            return None if answer.status == 200 else listing.json_of(answer, self.host, what)
        return listing.ask(self, path, what, asking)


def identifier(text: Any) -> str:
    """Raises ValueError for what is no id."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{40}", text):
        raise ValueError(text)
    return text


def name_of(repo: str, way: Way) -> str:
    """Of the address it was archived from where that is known, else of the first digits."""
    if repo.startswith("origin/"):
        return "swh-" + "-".join(unquote(repo).rstrip("/").removesuffix(".git").split("/")[-2:])
    return f"swh-{way.directory[:12]}"
