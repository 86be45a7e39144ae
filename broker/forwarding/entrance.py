"""This broker as the entrance of a federation: what it says of itself where peers run what visitors launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker import errors, peers, people
from broker.forwarding import choosing
from broker.service import Service
from federation import binderhub, health


def is_one(service: Service) -> bool:
    """Whether peers, and no backend, run what links and visitors launch here."""
    return bool(service.settings.binder_peers) and not service.settings.binder_backend


def behind(service: Service, chosen: str = "") -> list[dict[str, Any]]:
    """The peers that run what visitors launch here, or the one they chose, as `choosing.shown`; none where we run it."""
    if not chosen and not is_one(service):
        return []
    opened = [each.name for each in choosing.options(service, people.ANONYMOUS) if each.closed is None]
    opened = [name for name in opened if chosen in ("", name)]
    return [found for name in opened if (found := choosing.shown(service, name))]


def towards(service: Service, prefix: str, spec: str) -> str:
    """Where `/build/<prefix>/<spec>` is answered: at the peer that is asked first. Nothing is looked up for it.

    Raises NoBackend where none has room.
    """
    found = [
        each
        for each in choosing.options(service, people.ANONYMOUS)
        if each.closed is None and prefix in (each.known.providers or choosing.STANDARD)
    ]
    key = f"{prefix}/{spec.rpartition('/')[0] or spec}".lower()  # all refs of a repository share what was built
    ranked = choosing.ranked(service, key, found)
    if not ranked:
        raise errors.NoBackend(choosing.NO_ROOM)
    return binderhub.address(ranked[0].known.peer, f"{prefix}/{spec}", service.now().timestamp())


def usable(service: Service) -> list[peers.Known]:
    """The peers that can be sent something now."""
    now = service.now()
    return [each for each in peers.known(service) if each.condition(now) in health.USABLE]


def quota(service: Service) -> dict[str, Any]:
    """BinderHub's count for all peers together. Without a quota where one of those that can be used does not say."""
    found = usable(service)
    total = sum(each.standing.total or 0 for each in found)
    quotas = [each.standing.quota for each in found]
    known = [each for each in quotas if each is not None]
    return {
        "total_pods": total,
        "build_pods": 0,
        "user_pods": total,
        "quota": sum(known) if len(known) == len(quotas) else None,
        "ok": bool(found),
    }


def check(service: Service) -> dict[str, Any]:
    """Whether anything can be launched here at all, as an item of `/health`."""
    return {
        "service": "Peers",
        "ok": bool(found := usable(service)),
        "usable": len(found),
        "of": len(peers.known(service)),
    }


def versions(service: Service) -> Mapping[str, Any] | None:
    """What all peers that can be used say of their versions; None where they do not agree."""
    told = [each.versions for each in usable(service) if each.versions]
    return told[0] if told and all(each == told[0] for each in told) else None
