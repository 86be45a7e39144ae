"""Asking one cloud's services with one token: few requests, each with an end, and all of them together too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from keystoneauth1 import access

from providers import base
from providers.errors import PermissionMissing, ProviderUnavailable
from providers.openstack import keystone, needs, refusals
from providers.openstack.keystone import Cloudy, Query

USUAL_SECONDS = 9
LEAST_SECONDS = 0.5
ALTOGETHER_SECONDS = base.CALL_SECONDS - 3  # a request takes at most twice its seconds: to connect, and to answer
PAGE = 1000  # entries of a list in one answer; what most clouds give at most
PAGES_MOST = 50
OK = range(200, 300)


class Services:
    """One cloud's services, as one token opens them. For one verb of the contract, and for one thread."""

    def __init__(self, cloudy: Cloudy, known: access.AccessInfoV3) -> None:
        self.cloudy, self.known = cloudy, known
        self.rules = keystone.rules(known)
        self._until = time.monotonic() + ALTOGETHER_SECONDS

    @property
    def project(self) -> str:
        """Its id."""
        return str(self.known.project_id)

    def get(self, service: str, path: str, query: Query | None = None) -> dict[str, Any]:
        """The answer to a question. Raises ProviderError."""
        return self.ask(service, "GET", path, query=query)

    def ask(
        self,
        service: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        seconds: float = USUAL_SECONDS,
    ) -> dict[str, Any]:
        """What the cloud answers where it agrees. A refusal is raised as what it means; see `refusals`."""
        address = self._address(service)
        answer = self.cloudy.ask(
            method, address + path, str(self.known.auth_token), body=body, query=query, seconds=self._seconds(seconds)
        )
        if answer.status_code in OK:
            return refusals.read(answer)
        rule = {"service": service, "method": method, "path": urlsplit(address).path + path}
        raise refusals.meant(answer, rule, self.rules)

    def delete(self, service: str, path: str) -> bool:
        """Whether it is deleted, or was gone already; False where the cloud says that it is still in use."""
        try:
            self.ask(service, "DELETE", path)
        except refusals.Missing:
            return True
        except refusals.InUse:
            return False
        return True

    def every(self, service: str, path: str, name: str, query: Query | None = None) -> list[dict[str, Any]]:
        """All entries of a list, page by page. Raises ProviderUnavailable where it does not end."""
        found: list[dict[str, Any]] = []
        asked = {**(query or {}), "limit": str(PAGE)}
        for _ in range(PAGES_MOST):
            page = self.get(service, path, asked)
            entries = page.get(name)
            if not isinstance(entries, list):
                raise ProviderUnavailable(f"The cloud's list of {name} makes no sense. Try again later.")
            found += entries
            if not entries or not _goes_on(page, name):
                return found
            asked["marker"] = str(entries[-1]["id"])
        raise ProviderUnavailable(f"The cloud's list of {name} does not end. Try again later.")

    def allows(self, service: str, method: str, path: str) -> bool:
        """Whether the access rules of the token, where it has any, let this be asked."""
        address = endpoint(self.cloudy, self.known, service)
        if address is None or self.rules is None:
            return address is not None
        return needs.allows(self.rules, {"service": service, "method": method, "path": urlsplit(address).path + path})

    def _address(self, service: str) -> str:
        address = endpoint(self.cloudy, self.known, service)
        if address is None:
            raise PermissionMissing(
                f"The cloud shows your project no service “{service}”{where(self.cloudy)}. "
                "Ask its operators to open it to the project."
            )
        if self.cloudy.cloud.encrypted and not address.startswith("https://"):
            raise PermissionMissing(
                f"The cloud offers its service “{service}” without encryption, so nothing is sent to it. Tell its operators."
            )
        return address

    def _seconds(self, wanted: float) -> float:
        left = (self._until - time.monotonic()) / 2
        if left < LEAST_SECONDS:
            raise ProviderUnavailable("The cloud answers too slowly at the moment. Try again later.")
        return min(wanted, left)


def endpoint(cloudy: Cloudy, known: access.AccessInfoV3, service: str) -> str | None:
    """Where this service is in the cloud's own catalogue, with its version; None where there is none in the region."""
    if service == "identity":
        return cloudy.cloud.auth_url
    region = cloudy.cloud.region or None
    found = known.service_catalog.get_urls(service_type=service, interface="public", region_name=region)
    if not found:
        return None
    address = str(found[0]).rstrip("/")
    return address if needs.VERSIONED.search(urlsplit(address).path) else address + needs.USUAL[service]


def where(cloudy: Cloudy) -> str:
    """“ in the region IU”, where one is meant."""
    return f" in the region {cloudy.cloud.region}" if cloudy.cloud.region else ""


def _goes_on(page: Mapping[str, Any], name: str) -> bool:
    """Nova and Neutron link the next page beside the list, Glance has it in `next`."""
    links = page.get(f"{name}_links") or []
    return bool(page.get("next")) or any(link.get("rel") == "next" for link in links)
