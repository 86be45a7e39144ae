"""`ckan`: data sets of any CKAN, by their address.

By CKAN's published action API beside the page: `/api/3/action/package_show`, or `activity_data_show` for an earlier state.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from broker.repos import base, errors, http, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

GIT_HOSTS = re.compile(r"(^|\.)(git|gitlab|gitea|forgejo|codeberg|bitbucket|github|huggingface)\b")
"""Where `/dataset/x` is a repository of somebody who is called dataset."""
NAME = re.compile(r"[\w.~-]{1,200}")
LASTING = "CKAN promises nothing about files: when the owner of this data set replaces them, the same link opens the new ones."


class CKAN(listing.DataHost):
    """Data sets by address: `https://host/dataset/<name>`, and `/history/<activity>` behind it for an earlier state."""

    prefix = "ckan"
    title = "CKAN dataset"
    host = "CKAN"
    repo_label = "CKAN dataset URL"
    repo_example = "https://demo.ckan.org/dataset/my-sample-dataset-001"
    url_encode = True
    has_ref = False
    validate_regex = r"[^/]+"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = urls.slashed(urls.decoded(spec))
        found = (
            self.read(urls.split(urls.clean(plain))) if urls.has_scheme(plain) or urls.BARE_HOST.match(plain) else None
        )
        if not found:
            raise errors.BadSpec(
                say(
                    "“%(spec)s” is not the address of a CKAN data set. Paste the one of its page, such as "
                    "https://demo.ckan.org/dataset/my-sample-dataset-001.",
                    spec=spec[:80],
                )
            )
        return found

    def spec(self, spec: base.RepoSpec) -> str:
        return quote(spec.repo, safe="")

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        git = GIT_HOSTS.search(url.host) or "".join(url.segments[-1:]).endswith(".git")
        return None if git else self.read(url)

    def read(self, url: urls.Url) -> base.RepoSpec | None:
        """The data set of this page, if it can be one."""
        if url.scheme not in ("http", "https") or "dataset" not in url.segments[:-1]:
            return None
        at = url.segments.index("dataset")
        name, *rest = url.segments[at + 1 :]
        if name in ("activity", "groups", "edit", "history") and rest:  # older pages: /dataset/activity/<name>
            name, rest = rest[0], []
        activity = dict(url.query).get("activity_id", "")
        if "history" in rest[:-1]:
            activity = rest[rest.index("history") + 1]
        if not NAME.fullmatch(name) or (activity and not NAME.fullmatch(activity)):
            return None
        behind = f"/history/{quote(activity)}" if activity else ""
        return base.RepoSpec(provider=self.prefix, repo=f"{url.address(at + 1)}/{quote(name)}{behind}")

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        site, _, rest = spec.repo.rpartition("/dataset/")
        name, _, activity = rest.partition("/history/")
        what = f"data set {unquote(name)}" + (f" of activity {activity}" if activity else "")
        question = {"id": unquote(activity), "object_type": "package"} if activity else {"id": unquote(name)}
        action = "activity_data_show" if activity else "package_show"
        told = self.ask(f"{site}/api/3/action/{action}?{urlencode(question)}", what, asking)
        with listing.sense(self.host):
            if not told["success"]:
                raise errors.NotFound(
                    say(
                        "%(host)s has no %(what)s. Check the address, and that it is public.",
                        host=http.host_of(site),
                        what=what,
                    )
                )
            package = told["result"]
            package = package.get("package", package)
            changed = seconds(package["metadata_modified"])
            rows = package["resources"]
            files = [row for row in map(file, rows) if row]
            stamp = json.dumps(
                [[row.get(key) for key in ("id", "url", "hash", "last_modified")] for row in rows], default=str
            )
        version = f"{re.sub('[^A-Za-z0-9._-]', '-', unquote(name))[:80]}.v{changed}"
        return listing.published(
            spec,
            commit=version,
            web_url=spec.repo,
            slug=naming.slug(f"ckan-{unquote(name)}"),
            spec_string=self.spec(spec),
            note=left_out(len(rows) - len(files)),
            content=listing.content(listing.unique(files), self.host, asking, version=f"{site} {version} {stamp}"),
            lasting=LASTING,
        )

    def ask(self, url: str, what: str, asking: Asking) -> Any:
        """The operator's own CKAN may lie on a private network; it alone gets the token."""
        own = {http.origin_of(each) for each in (asking.api(self), asking.url(self)) if each}
        if http.origin_of(url) in own:
            answer = asking.http.ask_api(url, accept="application/json", token=asking.token(self))
            return listing.json_of(answer, http.host_of(url), what)
        return listing.ask_anywhere(url, http.host_of(url), what, asking)


def seconds(date: str) -> int:
    """BinderHub's version: CKAN's time of change, which has no zone and is UTC, in seconds since 1970."""
    when = datetime.fromisoformat(date)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def file(row: Any) -> dict[str, Any] | None:
    """One resource. Neither its size nor its hash are demanded: people fill them in by hand, and leave them."""
    url = str(row.get("url") or "").strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]).replace("/", "_").replace("\\", "_")
    return listing.entry(url, name if name.isprintable() and name.strip(". ") else str(row["id"]))


def left_out(count: int) -> str:
    """The sentence about resources that are no files on the web."""
    what = "One resource is" if count == 1 else f"{count} resources are"
    return f"{what} not on the web and left out." if count else ""
