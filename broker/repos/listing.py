"""What hosts of data sets have in common: they answer in JSON, and what they hold is a list of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from broker.repos import base, errors, http
from broker.repos.asking import Asking
from providers.sentences import say

FILES = 5000
"""Files of one record. Above that, an archive is what its owner should have made."""
HOSTS = 20
"""Different hosts that the files of one record may lie on."""
PAGES = 50
"""Questions asked for one listing."""
DIGITS = {"md5": 32, "sha256": 64}


class DataHost(base.RepoProvider):
    """A provider of what is no git repository."""

    host: ClassVar[str]
    """What it is called in a sentence; `title` is BinderHub's word for what is written to name something there."""


def ask(provider: DataHost, path: str, what: str, asking: Asking) -> Any:
    """The JSON that the operator's host answers to this question. Raises RepoError; `what` is the thing in its sentences."""
    address = f"{asking.api(provider)}/{path.lstrip('/')}"
    return json_of(
        asking.http.ask_api(address, accept="application/json", token=asking.token(provider)), provider.host, what
    )


def ask_anywhere(url: str, title: str, what: str, asking: Asking) -> Any:
    """The same from a host that nobody but the person named, as far as `safety` allows."""
    return json_of(asking.http.ask(url), title, what)


def json_of(answer: http.Answer, title: str, what: str) -> Any:
    """What was answered. Raises RepoError for everything but success."""
    if answer.status in (401, 403):
        raise errors.NotFound(
            say(
                "%(title)s shows %(what)s to nobody without permission. Ask its owner to make it public.",
                title=title,
                what=what,
            )
        )
    if answer.status == 410:
        raise errors.NotFound(
            say(
                "%(title)s no longer has %(what)s: it was withdrawn. Ask its owner, or use another.",
                title=title,
                what=what,
            )
        )
    if answer.status in (400, 404, 405, 422):
        raise errors.NotFound(
            say("%(title)s has no %(what)s. Check it, and that it is published.", title=title, what=what)
        )
    if answer.status == 429:
        raise errors.RateLimited(say("%(title)s asks us to wait. Try again in some minutes.", title=title))
    if answer.status != 200:
        raise errors.HostUnavailable(
            say("%(title)s has trouble (status %(status)s). Try again in a moment.", title=title, status=answer.status)
        )
    with sense(title):
        return json.loads(answer.body)


@contextlib.contextmanager
def sense(title: str) -> Iterator[None]:
    """Around the reading of an answer: one of another form than the host's documentation says is HostUnavailable."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise errors.HostUnavailable(
            say("%(title)s's answer makes no sense. Try again in a moment.", title=title)
        ) from None


def entry(url: str, path: str, size: Any = None, **sums: Any) -> dict[str, Any]:
    """One file: where it is got, where it goes, what it must be. Sums of other forms than `md5` or `sha256` are left out.

    For use inside `sense`: raises ValueError or TypeError for what is no address or no name.
    """
    if not isinstance(url, str) or not isinstance(path, str):
        raise TypeError(url, path)
    urlsplit(url).port  # noqa: B018 -- it is looked at here so that nobody has to doubt it later
    row: dict[str, Any] = {
        "url": url,
        "path": path.strip("/"),
        "size": size if isinstance(size, int) and size >= 0 else None,
    }
    for kind, value in sums.items():
        if isinstance(value, str) and re.fullmatch(rf"[0-9a-fA-F]{{{DIGITS[kind]}}}", value):
            row[kind] = value.lower()
    return row


def content(
    files: Sequence[dict[str, Any]], title: str, asking: Asking, *, unpack: bool = False, version: str = ""
) -> dict[str, Any]:
    """These files as `Resolved.content`. Raises where there are none, too many, or such as must not be fetched.

    The key says which files they are: by their sums, and by the host's `version` where it gives none.
    """
    if not files:
        raise errors.NotFound(
            say("%(title)s has no files here that everybody may download. Ask the owner to publish them.", title=title)
        )
    megabytes = asking.settings.clone_megabytes
    if len(files) > FILES or sum(row["size"] or 0 for row in files) > megabytes * 1_000_000:
        raise errors.TooBig(
            say(
                "This has %(count)s files, or more than %(megabytes)s MB in all, which is more than this broker "
                "fetches. Use a smaller record, or ask whoever runs it.",
                count=len(files),
                megabytes=megabytes,
            )
        )
    check_paths(files, title)
    check_hosts(files, asking)
    known = [{name: row.get(name) for name in ("path", "size", *DIGITS)} for row in files]
    told = json.dumps([known, bool(unpack), version], sort_keys=True)
    return {
        "kind": "files",
        "files": list(files),
        "unpack": unpack,
        "key": hashlib.sha256(told.encode()).hexdigest(),
    }


def check_paths(files: Sequence[dict[str, Any]], title: str) -> None:
    """The instance checks again what it writes; here it costs nobody a machine."""
    for row in files:
        parts = row["path"].split("/")
        if not row["path"].isprintable() or {"", ".", ".."} & set(parts) or "\\" in row["path"]:
            raise errors.NotAllowed(
                say(
                    "%(title)s lists a file whose name leads out of its folder. Ask the owner to rename it.",
                    title=title,
                )
            )


def check_hosts(files: Sequence[dict[str, Any]], asking: Asking) -> None:
    """Where the instance is going to download from, while it is somebody else's word. Raises NotAllowed."""
    trusted = {http.origin_of(url) for url in operators(asking)}
    origins = {http.origin_of(row["url"]): row["url"] for row in files}
    if len(origins) > HOSTS:
        raise errors.TooBig(
            say(
                "These files lie on %(count)s different hosts. Use a record that holds its own files.",
                count=len(origins),
            )
        )
    for origin, url in origins.items():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.username or not parts.hostname:
            raise errors.NotAllowed(
                say("A file of this record is not on the web. Use a record that holds its own files.")
            )
        if origin not in trusted and asking.remotes.safety.served:
            asking.remotes.safety.address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


def operators(asking: Asking) -> list[str]:
    """The addresses of hosts that the operator chose, or that are built in."""
    chosen = [asking.api(provider) for provider in base.providers.values()]
    return [url for url in [*chosen, *(asking.url(provider) for provider in base.providers.values())] if url]


def unique(files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with names told apart where a host lets two files have one: `a.csv`, `a-2.csv`."""
    seen: dict[str, int] = {}
    told = []
    for row in files:
        count = seen[row["path"]] = seen.get(row["path"], 0) + 1
        stem, dot, end = row["path"].rpartition(".")
        numbered = f"{stem}-{count}{dot}{end}" if stem else f"{row['path']}-{count}"
        told.append(row if count == 1 else row | {"path": numbered})
    return told


def single_archive(files: Sequence[dict[str, Any]]) -> bool:
    """Whether these are one zip or tar, which repo2docker unpacks."""
    ends = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
    return len(files) == 1 and files[0]["path"].lower().endswith(ends)


def published(
    spec: base.RepoSpec, *, commit: str, web_url: str, slug: str, spec_string: str, content: dict[str, Any], **more: Any
) -> base.Resolved:
    """A record found by its host's interface, as Resolved."""
    return base.Resolved(
        spec=spec,
        commit=commit,
        repo_url=more.pop("repo_url", web_url),
        web_url=web_url,
        slug=slug,
        ref=spec.ref,
        path=spec.path,
        spec_string=f"{spec.provider}/{spec_string}",
        via=f"{cast(DataHost, base.providers[spec.provider]).host} API",
        content=content,
        **more,
    )
