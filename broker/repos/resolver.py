"""From what somebody asked for to what it is right now, asking each host as little as possible."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

import httpx

from broker import settings
from broker.repos import asking, base, cache, credentials, errors, github, http, reading, remotes, safety
from providers.sentences import say

KEPT = 1024
READ = 256
"""Commits of which the files that were read are kept; they are small and never change."""
OLD_DEFAULTS = ("master", "main")
"""Links outlive the renaming of a default branch; BinderHub forgives these two."""


class Resolver:
    """One a process; threads share it."""

    def __init__(
        self,
        settings: settings.Settings,
        *,
        clock: Callable[[], float] = time.time,
        http: http.Client = httpx.Client,
        lookup: safety.Lookup | None = None,
        allowed: tuple[safety.Network, ...] = (),
        allow_file: bool = False,
    ) -> None:
        """`allowed`: private networks that a served broker may ask all the same. `allow_file`: file:// as well."""
        self._asking = gather(settings, clock, http, lookup, allowed, allow_file)
        self._homes = {prefix: host.url for prefix, host in settings.hosts.items() if host.url}
        self._recent: cache.Recent[base.Resolved] = cache.Recent(KEPT, settings.resolve_cache_seconds, clock)
        self._flights: cache.Flights[base.Resolved] = cache.Flights()
        self._read: cache.Recent[dict[str, bytes]] = cache.Recent(READ, math.inf, clock)
        self._readings: cache.Flights[dict[str, bytes]] = cache.Flights()

    def parse(self, text: str, ref: str | None = None) -> base.RepoSpec:
        """`RepoSpec.parse`, knowing which hosts the operator has: an address of theirs is `gl`, one of gitlab.com `git`."""
        return base.RepoSpec.parse(text, ref, self._homes)

    def resolve(self, spec: base.RepoSpec, opener: credentials.Opener | None = None) -> base.Resolved:
        """The commit this means. Blocks for up to `git_seconds` and some. Raises RepoError.

        `opener`: asked only where the repository is not there for everybody. Then it is looked up once more, for the one
        person who asks: nothing that is learned so is remembered, shared or told to anybody else. Blocks twice as long then.
        """
        try:
            return self._recent.get(spec) or self._flights.share(spec, lambda: self._fresh(spec))
        except errors.RefNotFound:
            raise
        except errors.NotFound as refusal:
            credential = opener(spec) if opener else None
            if credential is None:
                raise
            return self._for_one(spec, credential, refusal)

    def read(
        self, found: base.Resolved, paths: Sequence[str], opener: credentials.Opener | None = None
    ) -> dict[str, bytes]:
        """Of these paths in what was resolved the files that exist and have 64 KiB at most, by path.

        Nothing is checked out. Read again at once. Blocks for up to twice `git_seconds` and some. Raises RepoError.
        What was `opened_with` a connection is read with it, and not kept.
        """
        if found.opened_with:
            credential = opener(found.spec) if opener else None
            if credential is None or credential.connection_id != found.opened_with:
                raise errors.NotFound
            with self.asking_with(credential) as mine:
                return reading.read(found, paths, mine)
        key = (found.repo_url, found.commit, found.content.get("key", ""), tuple(paths))
        known = self._read.get(key)
        return dict(
            self._readings.share(key, lambda: self._freshly_read(key, found, paths)) if known is None else known
        )

    @contextlib.contextmanager
    def asking_with(self, credential: credentials.Credential) -> Iterator[asking.Asking]:
        """Asks for one person, with their own right. Shares nothing with those who ask for everybody."""
        shared = self._asking
        with shared.http.alone() as http:
            mine = replace(shared.remotes, http=http, credential=credential)
            yield replace(shared, http=http, remotes=mine, credential=credential)

    def _for_one(
        self, spec: base.RepoSpec, credential: credentials.Credential, refusal: errors.NotFound
    ) -> base.Resolved:
        with self.asking_with(credential) as mine:
            try:
                found = forgiving(spec, mine)
            except errors.RefNotFound:
                raise
            except errors.NotFound:
                raise errors.NotFound(
                    say("%(refusal)s Your own account does not see it either.", refusal=refusal)
                ) from None
        return replace(found, opened_with=credential.connection_id)

    def _freshly_read(self, key: Hashable, found: base.Resolved, paths: Sequence[str]) -> dict[str, bytes]:
        files = reading.read(found, paths, self._asking)
        self._read.put(key, files)
        return files

    @property
    def api_remaining(self) -> int | None:
        """How many look-ups GitHub leaves us in this hour, for the metric."""
        return self._asking.http.remaining(github.GitHub().api_url(self._asking))

    @property
    def inner(self) -> list[str] | None:
        """Hosts and ports where a builder may fetch although they are on a private network; None where it may anywhere."""
        chosen = self._asking.settings
        if not chosen.served:
            return None
        urls = [url for host in chosen.hosts.values() for url in (host.url, host.api) if url]
        return sorted({"{}:{}".format(*remotes.host_and_port(url)) for url in urls})

    def _fresh(self, spec: base.RepoSpec) -> base.Resolved:
        found = forgiving(spec, self._asking)
        self._recent.put(spec, found)
        return found


def forgiving(spec: base.RepoSpec, asked: asking.Asking) -> base.Resolved:
    """What it means, or the default branch where an old default is no more. Raises RepoError."""
    provider = base.providers[spec.provider]
    try:
        return provider.resolve(spec, asked)
    except errors.RefNotFound:
        if spec.ref not in OLD_DEFAULTS:
            raise
    found = provider.resolve(replace(spec, ref="HEAD", divided=True, located=True), asked)
    note = f"There is no branch “{spec.ref}” any more; this is the default branch."
    return replace(found, spec=replace(spec, divided=True, located=True), ref=spec.ref, note=note)


def gather(
    chosen: settings.Settings,
    clock: Callable[[], float],
    client: http.Client,
    lookup: safety.Lookup | None,
    allowed: tuple[safety.Network, ...],
    allow_file: bool,
) -> asking.Asking:
    """Everything a look-up works with, made once."""
    looked_up = {"lookup": lookup} if lookup else {}
    safe = safety.Safety(served=chosen.served, allowed=allowed, **looked_up)
    web = http.Http(safety=safe, client=client, clock=clock)
    asked = remotes.Remotes(
        safety=safe,
        http=web,
        seconds=chosen.git_seconds,
        megabytes=chosen.clone_megabytes,
        allow_file=allow_file,
        trusted=trusted_origins(chosen),
    )
    return asking.Asking(settings=chosen, http=web, remotes=asked)


def trusted_origins(chosen: settings.Settings) -> frozenset[str]:
    """Where the operator says that repositories are: git may ask there, in whatever network it lies."""
    urls = [chosen.repo_host(prefix).url or provider.url for prefix, provider in base.providers.items()]
    return frozenset(http.origin_of(url) for url in urls if url)
