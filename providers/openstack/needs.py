"""What a launch and its end ask of an OpenStack cloud: one list, from which access rules are made and permissions checked.

An access rule names a service, a method and a path exactly as the cloud is asked; what no rule names is refused. So this
list is also all that a narrow application credential may do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from providers.base import Purpose
from providers.sentences import say

WORDS = re.compile(r"{[^}]*}|\*\*|\*|[^{}*]+")
BOTH = (Purpose.LAUNCH, Purpose.REAP)
LAUNCH = (Purpose.LAUNCH,)

VERSIONED = re.compile(r"/v\d")
USUAL = {"compute": "/v2.1", "image": "/v2", "network": "/v2.0", "identity": "/v3"}
"""What the paths of a service begin with in most clouds. Some put more before it; `check` shows where."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that is asked of the cloud."""

    service: str
    method: str
    path: str
    """Behind the service's own version; `{…}` is one word."""
    why: str
    purposes: tuple[Purpose, ...]
    query: str = ""
    """Keeps the answer short where it is only tried."""
    optional: bool = False
    """A launch goes well without."""

    def rule(self, prefix: str) -> dict[str, str]:
        """The access rule that allows it, where the service's paths begin with this."""
        return {"service": self.service, "method": self.method, "path": prefix + self.path}

    def name(self, prefix: str) -> str:
        """As people read it: `compute GET /v2.1/servers`."""
        return f"{self.service} {self.method} {prefix}{self.path}"


OWN_END = Need(
    service="identity",
    method="GET",
    path="/users/{user_id}/application_credentials/{application_credential_id}",
    why=say("to see when it ends"),
    purposes=BOTH,
)
NEEDS = (
    Need(service="compute", method="GET", path="/servers/detail", why=say("to find what was started here"), purposes=BOTH,
         query="?limit=1"),
    Need(service="compute", method="GET", path="/flavors/detail", why=say("to know the sizes of machines"), purposes=LAUNCH,
         query="?limit=1"),
    Need(service="compute", method="GET", path="/limits", why=say("to know what is left of the quota"), purposes=LAUNCH),
    Need(service="image", method="GET", path="/images", why=say("to choose what a machine starts from, and to find claims"),
         purposes=BOTH, query="?limit=1"),
    Need(service="image", method="GET", path="/images/{image_id}", why=say("to see whose claim it is"), purposes=LAUNCH),
    Need(service="network", method="GET", path="/networks", why=say("to choose the network it is on"), purposes=LAUNCH,
         query="?limit=1"),
    Need(service="network", method="GET", path="/security-groups", why=say("to find the firewalls that were made here"),
         purposes=BOTH, query="?limit=1"),
    Need(service="network", method="GET", path="/ports", why=say("to find a machine's network card"), purposes=BOTH,
         query="?limit=1"),
    Need(service="image", method="POST", path="/images", why=say("to claim an order, so that none is bought twice"),
         purposes=LAUNCH),
    Need(service="image", method="PATCH", path="/images/{image_id}", why=say("to say that nothing came of a claim"),
         purposes=LAUNCH),
    Need(service="network", method="POST", path="/security-groups", why=say("to make a firewall that lets nothing in"),
         purposes=LAUNCH),
    Need(service="compute", method="POST", path="/servers", why=say("to start a machine"), purposes=LAUNCH),
    Need(service="compute", method="POST", path="/servers/{server_id}/action",
         why=say("to read the console of a machine that does not report"), purposes=BOTH, optional=True),
    Need(service="compute", method="DELETE", path="/servers/{server_id}", why=say("to delete a machine"), purposes=BOTH),
    Need(service="network", method="PUT", path="/ports/{port_id}", why=say("to take the firewall off before it is deleted"),
         purposes=BOTH),
    Need(service="network", method="DELETE", path="/security-groups/{security_group_id}", why=say("to delete the firewall"),
         purposes=BOTH),
    Need(service="image", method="DELETE", path="/images/{image_id}", why=say("to give a claim back"), purposes=BOTH),
)  # fmt: skip
ADDRESSES = (
    Need(service="network", method="GET", path="/floatingips", why=say("to find the addresses that were taken here"),
         purposes=BOTH, query="?limit=1"),
    Need(service="network", method="POST", path="/ports", why=say("to make the card that has the address"), purposes=LAUNCH),
    Need(service="network", method="POST", path="/floatingips", why=say("to take an address"), purposes=LAUNCH),
    Need(service="network", method="DELETE", path="/floatingips/{floatingip_id}", why=say("to give an address back"),
         purposes=BOTH),
    Need(service="network", method="DELETE", path="/ports/{port_id}", why=say("to delete the card"), purposes=BOTH),
)  # fmt: skip
"""Besides, where nothing dials out without an address of its own."""


def wanted(*, addresses: bool) -> tuple[Need, ...]:
    """All that is asked for here."""
    return (*NEEDS, *ADDRESSES) if addresses else NEEDS


def rules(
    prefixes: Mapping[str, str] = USUAL, purpose: Purpose | None = None, *, addresses: bool = False
) -> list[dict[str, str]]:
    """The narrowest access rules that work: for one purpose, or for both."""
    needed = [need for need in wanted(addresses=addresses) if purpose is None or purpose in need.purposes]
    return [need.rule(prefixes[need.service]) for need in (*needed, OWN_END)]


def as_json(listed: Iterable[Mapping[str, str]]) -> str:
    """One rule a line, as `openstack application credential create --access-rules` and Horizon's form take it."""
    return "[\n" + ",\n".join(f"  {json.dumps(dict(rule))}" for rule in listed) + "\n]"


def allows(listed: Iterable[Mapping[str, str]], wanted: Mapping[str, str]) -> bool:
    """Whether one of a credential's access rules covers this one, by the words that Keystone has for paths."""
    return any(
        rule.get("service") == wanted["service"]
        and rule.get("method") == wanted["method"]
        and _covers(str(rule.get("path", "")), wanted["path"])
        for rule in listed
    )


def _covers(pattern: str, path: str) -> bool:
    """`*` and `{name}` are one word each, `**` is anything."""
    expression = "".join(_meaning(word) for word in WORDS.findall(pattern))
    return re.fullmatch(expression, path) is not None


def _meaning(word: str) -> str:
    if word == "**":
        return ".*"
    return "[^/]+" if word == "*" or word.startswith("{") else re.escape(word)
