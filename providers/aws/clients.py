"""AWS's own SDK, handed everything it may know: no variable, file or metadata service of the broker's computer is asked.

A call is sent once. The SDK would repeat one that got no answer, and an identity token may be good for one exchange only;
whoever wants another try signs in again with a fresh token.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import CredentialResolver
from botocore.loaders import Loader
from botocore.session import Session

from providers.aws import refusals
from providers.base import CALL_SECONDS
from providers.errors import ProviderUnavailable

CONNECT_SECONDS, READ_SECONDS = 4, 12
ALTOGETHER_SECONDS = CALL_SECONDS - CONNECT_SECONDS - READ_SECONDS  # a call that begins in time ends in time
# The SDK's own descriptions of AWS, read once; a folder in somebody's home could change them.
LOADER = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
FILES = ("config_file", "credentials_file")
Keys = Mapping[str, str]
"""`access_key_id`, `secret_access_key` and, of what AWS itself made for a while, `session_token`."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where AWS is asked."""

    region: str
    partition: str = "aws"
    endpoint_url: str = ""
    """One address for every service, for private partitions and tests; empty: AWS's own, in this region."""
    read_seconds: float = READ_SECONDS
    """How long an answer is waited for."""


class Caller:
    """Asks AWS with one set of keys, or unsigned without; all its calls together take less than CALL_SECONDS."""

    def __init__(self, place: Place, keys: Keys | None = None) -> None:
        self._place, self._keys = place, keys
        self._ends = time.monotonic() + ALTOGETHER_SECONDS
        self._clients: dict[str, Any] = {}

    def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One answer. Raises what `refusals.meant` makes of a refusal, or of none at all."""
        with refusals.meant(f"{service}:{operation}"):
            return self.ask_plainly(service, operation, **parameters)

    def ask_plainly(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The same, and what AWS refuses is raised as the SDK's own ClientError."""
        with refusals.meant(f"{service}:{operation}", answers=False):
            return self._call(service, operation, parameters)

    def _call(self, service: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if time.monotonic() > self._ends:
            raise ProviderUnavailable("AWS answers too slowly at the moment. Try again later.")
        if service not in self._clients:
            self._clients[service] = _client(service, self._place, self._keys)
        client = self._clients[service]
        answer: dict[str, Any] = client._make_api_call(
            operation, dict(parameters)
        )  # the names of AWS's own documentation and policies
        return answer


def _client(service: str, place: Place, keys: Keys | None) -> Any:
    config = Config(
        signature_version=None if keys else UNSIGNED,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=place.read_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        ignore_configured_endpoint_urls=True,
        user_agent_extra="anybinder",
        proxies={},
    )
    named = {f"aws_{name}": value for name, value in (keys or {}).items()}
    return bare_session().create_client(
        service, region_name=place.region, endpoint_url=place.endpoint_url or None, verify=True, config=config, **named
    )


def bare_session() -> Session:
    """A session that knows the SDK's defaults and nothing of this computer."""
    session = Session(session_vars={name: (None, None, None if name in FILES else default, cast)
                                    for name, (_, _, default, cast) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()})  # fmt: skip
    session.register_component("data_loader", LOADER)
    session.register_component("credential_provider", CredentialResolver(providers=[]))
    return session


def profile_keys(name: str) -> Keys | None:
    """What a profile of this computer signs in with, as its files or its programs say; None where there is nothing.

    Raises the SDK's own exceptions. Neither variables nor metadata services are asked: only what the profile names.
    """
    session = Session(profile=name)
    session.register_component("data_loader", LOADER)
    resolver = session.get_component("credential_provider")
    for other in ("env", "iam-role", "container-role", "boto-config", "ec2-credentials-file"):
        resolver.remove(other)
    found = session.get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    keys = {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key}
    return keys | ({"session_token": frozen.token} if frozen.token else {})
