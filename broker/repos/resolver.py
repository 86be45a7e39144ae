"""From what somebody asked for to what it is right now, asking each host as little as possible."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import httpx

from broker import settings
from broker.repos import asking, base, cache, errors, github, http, reading, remotes, safety

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

    def resolve(self, spec: base.RepoSpec) -> base.Resolved:
        """The commit this means. Blocks for up to `git_seconds` and some. Raises RepoError."""
        if known := self._recent.get(spec):
            return known
        return self._flights.share(spec, lambda: self._fresh(spec))

    def read(self, found: base.Resolved, paths: Sequence[str]) -> dict[str, bytes]:
        """Of these paths in what was resolved the files that exist and have 64 KiB at most, by path.

        Nothing is checked out. Read again at once. Blocks for up to twice `git_seconds` and some. Raises RepoError.
        """
        key = (found.repo_url, found.commit, found.content.get("key", ""), tuple(paths))
        known = self._read.get(key)
        return dict(
            self._readings.share(key, lambda: self._freshly_read(key, found, paths)) if known is None else known
        )

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
        found = self._forgiving(spec)
        self._recent.put(spec, found)
        return found

    def _forgiving(self, spec: base.RepoSpec) -> base.Resolved:
        provider = base.providers[spec.provider]
        try:
            return provider.resolve(spec, self._asking)
        except errors.RefNotFound:
            if spec.ref not in OLD_DEFAULTS:
                raise
        found = provider.resolve(replace(spec, ref="HEAD", divided=True, located=True), self._asking)
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
