"""`osf`: projects, components and registrations of the Open Science Framework.

By OSF's published API, version 2 (JSON:API): `/guids/<id>/`, and `/nodes/<id>/files/osfstorage/` folder by folder, page by page.
A registration is fixed; a project is what it is today.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from broker.repos import base, doi, errors, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

GUID = re.compile(r"[a-z0-9]{5,8}")
KINDS = ("nodes", "registrations")
HOSTS = ("osf.io", "www.osf.io")
WORDS = (
    "search",
    "login",
    "register",
    "support",
    "explore",
    "meetings",
    "profile",
    "dashboard",
    "settings",
    "preprints",
)
"""Pages of osf.io that look like the id of a project."""
LASTING = (
    "An OSF project has no versions: when its owner changes a file, the same link opens what it is then. "
    "A registration of it stays as it is."
)


class OSF(listing.DataHost):
    """By the five letters and digits behind `osf.io/`."""

    prefix = "osf"
    title = "OSF project"
    host = "OSF"
    api = "https://api.osf.io/v2"
    url = "https://osf.io"
    repo_label = "OSF project id or URL"
    repo_example = "example: ezcuj or https://osf.io/ezcuj"
    has_ref = False
    validate_regex = r"[^/]+"
    detect_regex = r"^(https?:\/\/osf.io\/)(?<repo>[a-z0-9]{5})\/?$"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.decoded(spec).lower()
        plain = re.sub(r"^(https?:/{1,2}(www\.)?osf\.io/|https?:/{1,2}doi\.org/|doi:)", "", plain).strip("/")
        plain = plain.removeprefix("10.17605/osf.io/")
        if not GUID.fullmatch(plain):
            raise errors.BadSpec(
                say(
                    "“%(spec)s” is not the id of an OSF project. It is the five letters and digits behind "
                    "osf.io/, such as ezcuj.",
                    spec=spec[:80],
                )
            )
        return base.RepoSpec(provider=self.prefix, repo=plain)

    def spec(self, spec: base.RepoSpec) -> str:
        return spec.repo

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        named = (doi.in_address(url) or "").lower()
        if named.startswith("10.17605/osf.io/"):
            return self.parse(named)
        if url.host not in HOSTS:
            return None
        parts = [part for part in url.segments if part not in ("project", "registries", "osf")]
        if not parts or parts[0] in WORDS:
            raise errors.BadSpec(say("This page of OSF is no project. Open the project, and paste its address."))
        return self.parse(parts[0])

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        what = f"project {spec.repo}"
        answer = listing.ask(self, f"guids/{spec.repo}/", what, asking)
        with listing.sense(self.host):
            kind, guid = answer["data"]["type"], answer["data"]["id"]
            if kind not in KINDS or not GUID.fullmatch(guid):
                raise errors.BadSpec(
                    say(
                        "%(repo)s is no project of OSF but one of its %(kind)s. Use its project.",
                        repo=spec.repo,
                        kind=str(kind)[:20],
                    )
                )
            if answer["data"]["attributes"].get("withdrawn"):
                raise errors.NotFound(
                    say("The registration %(repo)s was withdrawn. Use another, or the project itself.", repo=spec.repo)
                )
        files = self.files(f"{kind}/{guid}/files/osfstorage", what, asking)
        content = listing.content(listing.unique(files), self.host, asking, version=guid)
        version = f"{guid}.v{content['key'][:12]}"
        page = f"{asking.url(self)}/{guid}"
        return listing.published(
            spec,
            commit=version,
            web_url=f"{page}/",
            repo_url=page,
            slug=naming.slug(f"osf-{guid}"),
            spec_string=guid,
            content=content,
            lasting=LASTING if kind == "nodes" else "",
        )

    def files(self, root: str, what: str, asking: Asking) -> list[dict[str, Any]]:
        """All of them, in all folders. Bounded by the number of questions."""
        folders, files, asked = [f"{root}/"], [], 0
        while folders:
            folder, page = folders.pop(0), 1
            while page:
                asked += 1
                if asked > listing.PAGES:
                    raise errors.TooBig(
                        say(
                            "The %(what)s has too many folders to be listed. Put its files into one archive.", what=what
                        )
                    )
                answer = listing.ask(self, f"{folder}?page[size]=100&page={page}", what, asking)
                with listing.sense(self.host):
                    for row in answer["data"]:
                        if row["attributes"]["kind"] == "folder":
                            folders.append(f"{root}{folder_path(row)}")
                        else:
                            files.append(file(row))
                    page = page + 1 if answer.get("links", {}).get("next") else 0
        return files


def folder_path(row: Any) -> str:
    """`/5b1a…/`: OSF's own name of a folder, by which its files are asked for."""
    path = str(row["attributes"]["path"])
    if not re.fullmatch(r"/[A-Za-z0-9]+/", path):
        raise ValueError(path)
    return path


def file(row: Any) -> dict[str, Any]:
    """One file, in the version that it has now."""
    told = row["attributes"]
    hashes = told.get("extra", {}).get("hashes", {})
    parts = urlsplit(row["links"]["download"])
    version = told.get("current_version")
    query = parse_qsl(parts.query) + ([("version", str(version))] if isinstance(version, int) else [])
    url = parts._replace(path=quote(parts.path, safe="/%"), query=urlencode(query), fragment="").geturl()
    path = str(told.get("materialized_path") or told["name"])
    return listing.entry(url, path, told.get("size"), sha256=hashes.get("sha256"), md5=hashes.get("md5"))
