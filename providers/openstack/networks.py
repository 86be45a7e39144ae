"""The network a machine is put on: the one that is configured, else the only one of the project, else the cloud's own default."""

from __future__ import annotations

from typing import Any

from providers.errors import InvalidOrder
from providers.openstack.services import Services

AUTOMATIC = "auto_allocated_network"
"""What Neutron's `openstack network auto allocated topology create` calls the one it makes."""


def chosen(services: Services, name: str, own: str = "") -> str:
    """Its id. `name`: as configured, a name or an id; `own`: what the cloud calls the one that everybody is to use."""
    listed = _listed(services)
    if name:
        return _only([each for each in listed if name in (each["id"], each["name"])], f"called “{name}”", listed)
    found = [each for each in listed if not each.get("router:external")]
    for usual in filter(None, (own, AUTOMATIC)):
        if named := [each for each in found if each["name"] == usual]:
            return str(named[0]["id"])
    mine = [each for each in found if each.get("project_id", each.get("tenant_id")) == services.project]
    return _only(mine or found, "of its own", found)


def outside(services: Services, name: str) -> str:
    """The id of the network that floating addresses come from."""
    found = [each for each in _listed(services) if each.get("router:external")]
    return _only(
        [each for each in found if name in (each["id"], each["name"])], f"to the outside called “{name}”", found
    )


def _listed(services: Services) -> list[dict[str, Any]]:
    return services.every("network", "/networks", "networks")


def _only(fitting: list[dict[str, Any]], what: str, found: list[dict[str, Any]]) -> str:
    if len(fitting) == 1:
        return str(fitting[0]["id"])
    there = ", ".join(sorted(str(each["name"]) for each in found)) or "none"
    said = "no network" if not fitting else f"{len(fitting)} networks"
    raise InvalidOrder(
        f"Your project has {said} {what}. There are: {there}. "
        "Make one with a router to the outside, or tell the people who run this broker which is to be used (“network”)."
    )
