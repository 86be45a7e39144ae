"""What a machine has printed on its serial console: for one that never dials out."""

from __future__ import annotations

from providers.openstack import refusals, servers
from providers.openstack.services import Services

LINES = 200
NONE_HERE = (refusals.Missing, refusals.InUse, refusals.NotSupported)


def end_of(services: Services, order_id: str) -> str:
    """Its last lines; empty where there is no machine, none of its words yet, or no right to ask."""
    found = servers.of_order(services, order_id)
    if not found:
        return ""
    path = f"/servers/{found[0].id}/action"
    if not services.allows("compute", "POST", path):
        return ""
    try:
        told = services.ask("compute", "POST", path, {"os-getConsoleOutput": {"length": LINES}})
    except NONE_HERE:
        return ""
    return str(told.get("output") or "")
