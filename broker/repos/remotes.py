"""A git repository somewhere else: which references it has, and whether it holds a commit."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from broker.environments import unlocking
from broker.repos import credentials, errors, http, running, safety, urls
from providers.sentences import say

COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT = re.compile(r"[0-9a-f]{4,39}")
PROTOCOLS = ("http", "https", "git", "ssh")
PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
PINNING_GIT = (2, 37)  # the first to know http.curloptResolve
INFO_REFS = "/info/refs?service=git-upload-pack"
SHA_256 = (
    "This repository counts its commits in SHA-256, which is not supported here yet. Use one that counts in SHA-1."
)
EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
DEEPEST = 30
"""Segments of a web address that may be the name of a branch; nobody nests deeper."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to get at one repository: the address after redirects, and what makes git go to where `safety` looked."""

    url: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Remotes:
    """Asks by running git. Threads share it."""

    safety: safety.Safety
    http: http.Http
    seconds: float
    megabytes: int
    allow_file: bool = False
    trusted: frozenset[str] = frozenset()
    """Origins that the operator chose, which may be on a private network."""
    credential: credentials.Credential | None = None
    """Shown where its own host asks for it, and nowhere else."""

    def refs(self, url: str, wanted: Sequence[str]) -> dict[str, str]:
        """Of `HEAD` and these names, those that exist, by full name, tags peeled. Raises RepoError.

        A name is looked for as a branch, a tag, and a full name.
        """
        way = self.way(url)
        patterns = [full for name in wanted for full in candidates(name)]
        patterns += [f"{full}^{{}}" for full in patterns if full.startswith("refs/tags/")]
        done = self.git(way, ["ls-remote", "--", way.url, "HEAD", *patterns])
        if done.code:
            raise explained(done.complaint, way.url)
        return listed(done.out, {"HEAD", *patterns})

    def commit(self, url: str, sha: str) -> str:
        """This commit, if the repository holds it; the commit of an annotated tag. Raises RefNotFound, TooBig, …

        A server that hands out single commits is asked for just this one. Of others the whole history is fetched.
        """
        way = self.way(url)
        with throw_away_repository() as folder:
            done = self.fetch(way, folder, ["--depth=1", "--filter=tree:0", "--", way.url, sha])
            if not done.code:
                return held(folder, sha) or _no_commit(sha)
            if "not our ref" in done.complaint:
                return _no_commit(sha)
        if not refuses_single_commits(done.complaint):
            raise explained(done.complaint, way.url)
        plain_files = "dumb http" in done.complaint
        if plain_files and self.loose_commit(way.url, sha):
            return sha
        # Asked to leave out what plain files cannot leave out, git calls itself for each of them, without end.
        return self.commit_among_all(way, sha, () if plain_files else ("--filter=tree:0",))

    def commit_among_all(self, way: Way, sha: str, sparing: Sequence[str]) -> str:
        """This commit, looked for in all branches and tags, which are fetched for it."""
        with throw_away_repository() as folder:
            done = self.fetch(way, folder, [*sparing, "--", way.url, *EVERYTHING])
            if done.code:
                raise explained(done.complaint, way.url)
            return held(folder, sha) or _no_commit(sha)

    def loose_commit(self, url: str, sha: str) -> bool:
        """True if a server of plain files has this commit as a file of its own. It may still have it in a pack."""
        answer = self.http.ask(f"{url}/objects/{sha[:2]}/{sha[2:]}")
        if answer.status != 200:
            return False
        with contextlib.suppress(zlib.error):
            content = zlib.decompressobj().decompress(answer.body, http.LONGEST_BODY)
            return content.startswith(b"commit ") and hashlib.sha1(content, usedforsecurity=False).hexdigest() == sha
        return False

    def fetch(self, way: Way, folder: Path, arguments: Sequence[str]) -> running.Done:
        options = ("--quiet", "--no-tags", "--no-recurse-submodules")
        return self.git(way, ["--git-dir", str(folder), "fetch", *options, *arguments], folder)

    def git(self, way: Way, arguments: Sequence[str], folder: Path | None = None) -> running.Done:
        protocols = (*PROTOCOLS, "file") if self.allow_file else PROTOCOLS
        environment = {"GIT_ALLOW_PROTOCOL": ":".join(protocols), **way.environment}
        limits = running.Limits(seconds=self.seconds, folder=folder, megabytes=self.megabytes)
        try:
            with unlocking.offered(self.key_to(way.url), way.url) as offer:
                words = [*way.options, *offer.options, *arguments]
                return running.git(words, environment=environment, limits=limits, fds=offer.fds)
        except errors.HostTimeout:
            raise errors.HostTimeout(
                say("%(host)s takes too long to answer. Try again later.", host=http.host_of(way.url))
            ) from None

    def key_to(self, url: str) -> unlocking.Key | None:
        """What git may show at this address."""
        key = self.credential.key if self.credential else None
        return key if key and key.opens(url) else None

    def way(self, url: str) -> Way:
        """Raises NotAllowed where this broker may not go."""
        scheme = urlsplit(url).scheme
        if scheme == "file" and self.allow_file:
            return Way(url=url)
        if scheme not in PROTOCOLS:
            raise errors.NotAllowed(
                say("Repositories are not fetched by %(scheme)s://. Use the https address of this one.", scheme=scheme)
            )
        if not self.safety.served or http.origin_of(url) in self.trusted:
            return Way(url=url, environment={"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15"})
        if scheme in ("http", "https"):
            return self.pinned_web(url)
        return self.pinned_ssh(url) if scheme == "ssh" else self.pinned_git(url)

    def pinned_web(self, url: str) -> Way:
        """Redirects are followed here, each host looked at, as git would follow them to anywhere."""
        if running.version() < PINNING_GIT:
            raise errors.HostUnavailable(
                say("This broker's git is older than 2.37, too old to be held to an address. Update it.")
            )
        answer = self.http.ask(f"{url}{INFO_REFS}", longest=1)
        target = answer.url.removesuffix(INFO_REFS)
        if target == answer.url:
            raise errors.NotFound
        host, port = host_and_port(target)
        pin = f"{host}:{port}:{bracketed(self.safety.address(host, port))}"
        return Way(url=target, options=("-c", "http.followRedirects=false", "-c", f"http.curloptResolve={pin}"))

    def pinned_ssh(self, url: str) -> Way:
        """Without any key of this broker's own: it must not open for strangers what it opens for the broker."""
        host, port = host_and_port(url)
        options = {
            "HostName": self.safety.address(host, port),
            "HostKeyAlias": host,
            "BatchMode": "yes",
            "ConnectTimeout": "15",
            "ProxyCommand": "none",
            "IdentityAgent": "none",
            "IdentityFile": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": "/dev/null",
        }
        command = " ".join(
            ["ssh", "-F", "/dev/null", *(shlex.quote(f"-o{name}={value}") for name, value in options.items())]
        )
        return Way(url=url, environment={"GIT_SSH_COMMAND": command})

    def pinned_git(self, url: str) -> Way:
        host, port = host_and_port(url)
        parts = urlsplit(url)
        address = bracketed(self.safety.address(host, port))
        pinned = urlunsplit(parts._replace(netloc=f"{address}:{port}"))
        return Way(url=pinned, environment={"GIT_OVERRIDE_VIRTUAL_HOST": parts.netloc})


def lowered(ref: str) -> str:
    """A commit in small letters, as git prints it; other names as they are."""
    return ref.lower() if COMMIT.fullmatch(ref.lower()) else ref


def candidates(name: str) -> tuple[str, ...]:
    """The full names this may mean, first wins: a branch before a tag, as `git clone --branch` has it."""
    if name == "HEAD":
        return ("HEAD",)
    if name.startswith("refs/"):
        return (name,)
    return (f"refs/heads/{name}", f"refs/tags/{name}", f"refs/{name}")


def chosen(refs: Mapping[str, str], name: str) -> str | None:
    """The commit that this name means, if any."""
    return next((refs[full] for full in candidates(name) if full in refs), None)


def openings(text: str) -> list[str]:
    """`a/b/c` begins with a, a/b and a/b/c: each may be the name of the branch."""
    parts = text.split("/")[:DEEPEST]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def divided(refs: Mapping[str, str], text: str) -> tuple[str, str] | None:
    """Branch (or tag) and path in `branch/with/slash/path/in/repo`: the longest name that exists. None if none does."""
    known = [name for name in openings(text) if chosen(refs, name)]
    if known:
        return known[-1], text.removeprefix(known[-1]).lstrip("/")
    first, _, rest = text.partition("/")
    return (first.lower(), rest) if SHORT.fullmatch(first.lower()) or COMMIT.fullmatch(first.lower()) else None


def undivided(rest: Sequence[str]) -> dict[str, Any]:
    """Of a web address `/tree/a/b/c` what follows `tree`: where one segment is left, or a commit leads, all is known."""
    first = lowered(urls.ref(rest[0]))
    path = urls.path("/".join(rest[1:]))
    sure = not path or first == "HEAD" or COMMIT.fullmatch(first) is not None
    return {"ref": first, "path": path, "divided": sure}


def listed(out: str, wanted: set[str]) -> dict[str, str]:
    """What `git ls-remote` printed. Its patterns match at the end of names; only exact names count here."""
    rows = [line.split("\t", 1) for line in out.splitlines() if "\t" in line]
    refs = {name: sha for sha, name in rows if name in wanted and not name.endswith("^{}")}
    peeled = {name.removesuffix("^{}"): sha for sha, name in rows if name in wanted and name.endswith("^{}")}
    refs |= peeled
    if any(not COMMIT.fullmatch(sha) for sha in refs.values()):
        raise errors.HostUnavailable(SHA_256)
    return refs


@contextlib.contextmanager
def throw_away_repository() -> Iterator[Path]:
    """An empty bare repository that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="anybinder-", ignore_cleanup_errors=True) as folder:
        running.git(["init", "--quiet", "--bare", "--", folder], environment={}, limits=running.Limits(seconds=10))
        yield Path(folder)


def held(folder: Path, sha: str) -> str | None:
    """The commit, if this repository really has it. No protocol is allowed, so that git fetches nothing more."""
    arguments = ["--git-dir", str(folder), "rev-parse", "--quiet", "--verify", f"{sha}^{{commit}}"]
    done = running.git(arguments, environment={"GIT_ALLOW_PROTOCOL": "none"}, limits=running.Limits(seconds=10))
    return done.out.strip() if done.code == 0 and COMMIT.fullmatch(done.out.strip()) else None


def _no_commit(sha: str) -> str:
    raise errors.RefNotFound(say("The repository has no commit %(sha)s. Check it, or name a branch or tag.", sha=sha))


def refuses_single_commits(complaint: str) -> bool:
    """True for servers of before protocol 2, and for plain files."""
    words = ("unadvertised object", "dumb http", "no such remote ref", "shallow", "not valid")
    return any(word in complaint for word in words)


def explained(complaint: str, url: str) -> errors.RepoError:
    """What git said, as a sentence for the person. Most specific first, as one failure makes git say several things."""
    host = http.host_of(url)
    said = complaint.lower()
    for words, error in COMPLAINTS:
        if any(word in said for word in words):
            return error(str(error()).replace("The host of this repository", host))
    return errors.HostUnavailable(f"{host} does not answer as a git server does. Check the address of the repository.")


COMPLAINTS: tuple[tuple[tuple[str, ...], type[errors.RepoError]], ...] = (
    (("returned error: 429",), errors.RateLimited),
    (("returned error: 5",), errors.HostUnavailable),
    (("protocol '", "redirect"), errors.NotAllowed),
    (("timed out", "timeout was reached", "too slow"), errors.HostTimeout),
    (
        ("could not resolve", "name or service not known", "failed to connect", "couldn't connect"),
        errors.HostUnavailable,
    ),
    (
        ("connection refused", "connection reset", "empty reply", "unable to connect", "no route"),
        errors.HostUnavailable,
    ),
    (("ssl", "certificate", "gnutls", "host key verification"), errors.HostUnavailable),
    (("not found", "returned error: 4", "authentication", "could not read username"), errors.NotFound),
    (("permission denied", "terminal prompts", "does not appear to be", "access denied", "no such"), errors.NotFound),
)


def host_and_port(url: str) -> tuple[str, int]:
    """Of this address; the port that its protocol uses where it names none."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or PORTS[parts.scheme]


def bracketed(address: str) -> str:
    """As addresses of IPv6 are written beside a port."""
    return f"[{address}]" if ":" in address else address
