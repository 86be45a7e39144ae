"""What a machine may hold to delete itself: an application credential for this one request, made with the launch's token.

OpenStack does not end a bill when a machine powers off, so the machine has to ask for its own deletion. Only a token that
came of no restricted application credential may make one: with Keystone's own words, such a one makes no others.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from providers import base
from providers.errors import ProviderError
from providers.openstack import keystone, labels, refusals, servers
from providers.openstack.services import Services, endpoint

GRACE = timedelta(hours=2)  # a machine whose clock is wrong, or that was asleep at `until`, still has time
WANTED_ROLE = "member"


def made(services: Services, instance: base.Instance) -> base.DeadMan | None:
    """Two requests: sign in, delete. None where the token may make none, or there is no machine."""
    if instance.tag is None or services.known.application_credential_id is not None:
        return None
    found = servers.of_order(services, instance.tag.order)
    address = endpoint(services.cloudy, services.known, "compute")
    if not found or address is None:
        return None
    _delete_expired(services)
    ends = instance.tag.until + GRACE
    rule = {"service": "compute", "method": "DELETE", "path": f"{urlsplit(address).path}/servers/{found[0].id}"}
    credential_id, secret = _make(services, instance.tag, ends, rule)
    return base.DeadMan(
        requests=(
            base.Request(
                method="POST",
                url=f"{services.cloudy.cloud.auth_url}/auth/tokens",
                headers={"Content-Type": "application/json"},
                body=_sign_in(credential_id, secret),
                keep={"X-Auth-Token": "X-Subject-Token"},
            ),
            base.Request(method="DELETE", url=f"{address}/servers/{found[0].id}"),
        ),
        ends_at=ends,
    )


def _make(services: Services, tag: base.Tag, ends: datetime, rule: dict[str, str]) -> tuple[str, str]:
    told = {
        "name": f"{labels.named(tag.order)}-{secrets.token_hex(4)}",
        "description": labels.text(tag),
        "roles": [{"name": role} for role in _roles(services)],
        "expires_at": ends.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "unrestricted": False,
        "access_rules": [rule],
    }
    made = services.ask("identity", "POST", _path(services), {"application_credential": told})
    try:
        found = made["application_credential"]
        return str(found["id"]), str(found["secret"])
    except (KeyError, TypeError):
        raise refusals.no_sense("identity") from None


def _roles(services: Services) -> list[str]:
    """One that may delete machines, where the person has it among others."""
    held = keystone.roles(services.known)
    return [WANTED_ROLE] if WANTED_ROLE in held else held


def _sign_in(credential_id: str, secret: str) -> str:
    method = "application_credential"
    return json.dumps({"auth": {"identity": {"methods": [method], method: {"id": credential_id, "secret": secret}}}})


def _delete_expired(services: Services) -> None:
    """Those of earlier machines, which end by themselves and yet stay in the person's list."""
    with contextlib.suppress(ProviderError):
        listed: list[dict[str, Any]] = services.get("identity", _path(services)).get("application_credentials") or []
        for each in listed:
            ends = each.get("expires_at")
            ours = str(each.get("name", "")).startswith(labels.NAME) and labels.of_text(str(each.get("description")))
            if ours and ends and keystone.when(ends) < datetime.now(UTC):
                services.delete("identity", f"{_path(services)}/{each['id']}")


def _path(services: Services) -> str:
    return f"/users/{services.known.user_id}/application_credentials"
