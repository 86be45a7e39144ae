"""A few small files of a repository at a commit, without the rest of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from broker.repos import base, errors, remotes, running
from broker.repos.asking import Asking
from providers.sentences import say

LARGEST = 65_536
"""Bytes. Files that say what a session needs are a few hundred; what is larger is something else."""
DIGESTS = ("sha256", "md5")
"""Those that hosts of data give."""


def read(found: base.Resolved, paths: Sequence[str], asking: Asking) -> dict[str, bytes]:
    """Of these paths the files that exist and are small, whole. Links and folders are none. Raises RepoError.

    An image has no files that could be read, and neither has an archive that would have to be unpacked first.
    """
    kind = found.content.get("kind")
    if kind == "git":
        return from_git(found.repo_url, found.commit, paths, asking.remotes)
    if kind == "files" and not found.content.get("unpack"):
        return from_list(found, paths, asking)
    return {}


def from_git(url: str, commit: str, paths: Sequence[str], asked: remotes.Remotes) -> dict[str, bytes]:
    """As little as the server can give: the folders and those files alone; else the whole commit; else all there is."""
    way = asked.way(url)
    single = ("--depth=1", "--", way.url, commit)
    done = running.Done(code=1, out="", complaint="")
    for arguments in (("--filter=blob:none", *single), single, ("--", way.url, *remotes.EVERYTHING)):
        with remotes.throw_away_repository() as folder:
            done = asked.fetch(way, folder, arguments)
            blobs = {} if done.code else listed(folder, commit, paths)
            absent = sorted({blob for blob in blobs.values() if inside(folder, "cat-file", "-e", blob).code})
            if absent:
                done = asked.fetch(way, folder, ["--depth=1", "--filter=blob:none", "--", way.url, *absent])
            if not done.code:
                contents = {path: content(folder, blob) for path, blob in blobs.items()}
                return {path: body for path, body in contents.items() if body is not None}
        if not remotes.refuses_single_commits(done.complaint):
            break
    raise remotes.explained(done.complaint, way.url)


def listed(folder: Path, commit: str, paths: Sequence[str]) -> dict[str, str]:
    """Of these paths the plain files in this commit, each with the name that git has for its content."""
    done = inside(folder, "ls-tree", "-z", commit, "--", *paths)
    if done.code:
        raise errors.RefNotFound(
            say("The repository has no commit %(commit)s. Check it, or name a branch or tag.", commit=commit)
        )
    rows = [row.partition("\t") for row in done.out.split("\0") if row]
    found = {path: head.split() for head, _, path in rows}
    return {path: head[2] for path, head in found.items() if head[0].startswith("100") and path in paths}


def content(folder: Path, blob: str) -> bytes | None:
    """None where it is larger than is read here."""
    size = inside(folder, "cat-file", "-s", blob)
    if size.code or int(size.out) > LARGEST:
        return None
    done = inside(folder, "cat-file", "blob", blob)
    return None if done.code else done.raw


def inside(folder: Path, *arguments: str) -> running.Done:
    """Run git in what was fetched. No protocol is allowed, so that it fetches nothing by itself."""
    limits = running.Limits(seconds=10)
    return running.git(
        ["--git-dir", str(folder), *arguments], environment={"GIT_ALLOW_PROTOCOL": "none"}, limits=limits
    )


def from_list(found: base.Resolved, paths: Sequence[str], asking: Asking) -> dict[str, bytes]:
    """Those of these paths that the host of data lists; none else is asked for."""
    rows = [row for row in found.content.get("files", ()) if row.get("path") in paths]
    contents = {row["path"]: download(row, asking) for row in rows if (row.get("size") or 0) <= LARGEST}
    return {path: body for path, body in contents.items() if body is not None}


def download(row: dict[str, object], asking: Asking) -> bytes | None:
    """None where it is larger than is read here. Raises HostUnavailable where it is not the file that was listed."""
    answer = asking.http.ask(str(row["url"]), longest=LARGEST + 1)
    if answer.status != 200:
        raise errors.HostUnavailable(
            say(
                "The host no longer gives out %(file)s (status %(status)s). Try again in a moment.",
                file=row["path"],
                status=answer.status,
            )
        )
    if len(answer.body) > LARGEST:
        return None
    for name in DIGESTS:
        wanted = row.get(name)
        if wanted and hashlib.new(name, answer.body, usedforsecurity=False).hexdigest() != str(wanted).lower():
            raise errors.HostUnavailable(
                say("%(file)s is not the file that its host lists. Try again in a moment.", file=row["path"])
            )
    return answer.body
