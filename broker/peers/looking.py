"""Looking how peers are: all at once, beside the requests. A slow one keeps nobody waiting but this round."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from broker.peers import registry
from broker.service import Service
from federation import binderhub, health

THREADS = 16


def look(service: Service) -> int:
    """Ask every peer that is not rested how it is; how many were asked. Takes as long as the slowest."""
    now = service.now()
    asked = [each for each in registry.known(service) if each.condition(now) is not health.Condition.RESTING]
    if asked:
        with ThreadPoolExecutor(min(THREADS, len(asked)), thread_name_prefix="peers") as threads:
            list(threads.map(lambda each: look_at(service, each), asked))
    return len(asked)


def look_at(service: Service, each: registry.Known) -> binderhub.Hub:
    """Ask this one now, and keep what it said."""
    with binderhub.client() as at:
        found = binderhub.look(at, each.peer)
    registry.looked(service, each.name, found)
    return found
