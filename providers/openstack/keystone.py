"""Signing in at a Keystone, and asking the cloud with the token that comes of it.

Sessions are built from what they are given: no `OS_…` variable, `clouds.yaml`, netrc or proxy of the broker's computer is
looked at, redirects are not followed, and every request has an end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import requests
from keystoneauth1 import access, exceptions
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from providers import base
from providers.errors import BadCredential, ProviderUnavailable
from providers.openstack.clouds import Cloud

REQUEST_SECONDS = 9  # to connect, and again to answer; two requests stay below base.CALL_SECONDS
JSON_PATCH = "application/openstack-images-v2.1-json-patch"  # Glance's own; nothing else is patched
Query = Mapping[str, str | list[str]]
DESCRIBED = re.compile(r'error_description="([^"]{1,200})"')

UNKNOWN = (
    "The cloud knows no application credential with this id: it was deleted there, or it belongs to another cloud. "
    "Make a new one, and type its id and secret here."
)
REFUSED = (
    "The cloud refused the application credential. It does not say which, but one of these it is: the secret is wrong, "
    "the credential has expired, you have no role in its project any more, or your account there was disabled. "
    "Look at it on the cloud's own page, or make a new one."
)
ENDED = "The application credential ended on {ended}, as you typed it here. Make a new one, and type its id and secret here."
NO_TOKEN = "The cloud did not take this broker's token: {reason}. Tell the people who run this broker."  # noqa: S105
NOBODY = (
    "The cloud trusts this broker, but knows nobody by the subject that you have here. "
    "Ask the people who run the cloud to map the two subjects of the connection's page."
)
NO_ROLE = (
    "The cloud knows you, but you have no role in the project {project}. "
    "Look at the project's id, or ask the people who run the project to give one to your subject."
)


class Cloudy:
    """One cloud, asked over connections of its own: `with Cloudy(cloud) as cloudy`, for a few requests."""

    def __init__(self, cloud: Cloud, ca_file: str = "") -> None:
        self.cloud = cloud
        self.plain = requests.Session()
        self.plain.trust_env = False
        self.session = Session(
            session=self.plain, verify=ca_file or True, redirect=False, timeout=REQUEST_SECONDS, app_name="anybinder"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.plain.close()

    def by_credential(self, credential_id: str, secret: str, ends: dt.datetime | None) -> access.AccessInfoV3:
        """With an application credential; `ends` is when the person said that it does. Raises BadCredential, with why."""
        plugin = v3.ApplicationCredential(
            auth_url=self.cloud.auth_url,
            application_credential_id=credential_id,
            application_credential_secret=secret,
            reauthenticate=False,
        )
        try:
            with self._answers():
                return plugin.get_auth_ref(self.session)
        except exceptions.NotFound as unknown:
            if "Application Credential" not in str(unknown):
                raise _no_keystone() from None
            raise BadCredential(UNKNOWN) from None
        except (exceptions.Unauthorized, exceptions.Forbidden):
            if ends and ends < dt.datetime.now(dt.UTC):
                raise BadCredential(ENDED.format(ended=f"{ends:%Y-%m-%d}")) from None
            raise BadCredential(REFUSED) from None

    def by_token(self, identity_provider: str, protocol: str, token: str, project: str) -> access.AccessInfoV3:
        """With this broker's word for the person, who then enters the project. Raises BadCredential, with why."""
        plugin = v3.OidcAccessToken(
            auth_url=self.cloud.auth_url,
            identity_provider=identity_provider,
            protocol=protocol,
            access_token=token,
            reauthenticate=False,
        )
        try:
            with self._answers():
                somebody = plugin.get_unscoped_auth_ref(self.session)
        except exceptions.NotFound:
            reason = f"it has no identity provider “{identity_provider}” with the protocol “{protocol}”"
            raise BadCredential(NO_TOKEN.format(reason=reason)) from None
        except (exceptions.Unauthorized, exceptions.Forbidden) as refusal:
            raise BadCredential(_why_no_token(refusal)) from None
        entering = v3.Token(
            auth_url=self.cloud.auth_url, token=somebody.auth_token or "", project_id=project, reauthenticate=False
        )
        try:
            with self._answers():
                return entering.get_auth_ref(self.session)
        except (exceptions.Unauthorized, exceptions.Forbidden, exceptions.NotFound):
            raise BadCredential(NO_ROLE.format(project=project)) from None

    def end_of(self, known: access.AccessInfoV3) -> tuple[bool, dt.datetime | None]:
        """Whether the cloud says when this application credential ends, and when: None where it does not end."""
        path = f"/users/{known.user_id}/application_credentials/{known.application_credential_id}"
        answer = self.get(f"{self.cloud.auth_url}{path}", str(known.auth_token))
        if answer.status_code != HTTPStatus.OK:
            return False, None  # its access rules do not let it ask
        with self._answers():
            told = answer.json()["application_credential"]["expires_at"]
            return True, when(told) if told else None

    def get(self, url: str, token: str, seconds: float = REQUEST_SECONDS) -> requests.Response:
        """The answer, whatever it is, but for what says that nobody is there. Raises ProviderUnavailable."""
        found = self.ask("GET", url, token, seconds=seconds)
        if found.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or found.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise _unavailable(f"it answers {found.status_code}")
        return found

    def ask(
        self,
        method: str,
        url: str,
        token: str,
        *,
        body: Any = None,
        query: Query | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> requests.Response:
        """Whatever is answered. Raises ProviderUnavailable where nobody answers. Nothing is logged: bodies carry secrets."""
        headers = {"X-Auth-Token": token, "Accept": "application/json"}
        told: dict[str, Any] = {}
        if body is not None:
            headers["Content-Type"] = JSON_PATCH if method == "PATCH" else "application/json"
            told = {"data": json.dumps(body)}
        with self._answers():
            return self.session.request(
                url,
                method,
                headers=headers,
                params=dict(query or {}),
                authenticated=False,
                raise_exc=False,
                timeout=seconds,
                log=False,
                **told,
            )

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Only a refusal comes through; all else means that nothing is known."""
        try:
            yield
        except (exceptions.Unauthorized, exceptions.Forbidden, exceptions.NotFound):
            raise
        except exceptions.SSLError:
            raise _unavailable("its certificate is not one that this computer trusts") from None
        except exceptions.HttpError as error:
            raise _unavailable(f"it answers {error.http_status}") from None
        except exceptions.ConnectTimeout:
            raise _unavailable("it does not answer in time") from None
        except exceptions.ConnectionError:
            raise _unavailable("it cannot be reached") from None
        except (exceptions.ClientException, ValueError, KeyError, TypeError):
            raise _no_keystone() from None


def who(known: access.AccessInfoV3) -> str:
    """User, project and roles, in the cloud's words."""
    return f"{known.username} in the project {known.project_name} ({', '.join(roles(known)) or 'no role'})"


def roles(known: access.AccessInfoV3) -> list[str]:
    """Names of the roles in the project."""
    return sorted(set(known.role_names or ()))


def kept(known: access.AccessInfoV3) -> dict[str, str]:
    """What a credential carries of it."""
    return {"token": str(known.auth_token), "told": json.dumps(known._data)}


def known(credential: base.Credential) -> access.AccessInfoV3:
    """The same again. Raises BadCredential for one that carries none."""
    try:
        return access.AccessInfoV3(json.loads(credential.secret["told"]), credential.secret["token"])
    except (KeyError, ValueError):
        raise BadCredential("This credential is none of an OpenStack cloud. Sign in again.") from None


def rules(known: access.AccessInfoV3) -> list[Mapping[str, str]] | None:
    """The access rules of the application credential; None: it has none, and may do all that its roles may."""
    found = known.application_credential_access_rules
    return [{name: str(value) for name, value in rule.items()} for rule in found] if found else None


def when(told: str) -> dt.datetime:
    """An instant as Keystone writes it, and as people type it: with or without seconds, a time, a `Z`. Raises ValueError."""
    found = dt.datetime.fromisoformat(told)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _why_no_token(refusal: exceptions.HttpError) -> str:
    """What stands before Keystone says why (RFC 6750); Keystone itself says nothing where its mapping finds nobody."""
    answer = refusal.response
    told = answer.headers.get("WWW-Authenticate", "") if answer is not None else ""
    if found := DESCRIBED.search(told):
        reason = "".join(letter for letter in found.group(1) if letter.isprintable()).rstrip(".")
        return NO_TOKEN.format(reason=f"“{reason}”")
    if told.startswith("Bearer"):
        return NO_TOKEN.format(reason="it does not say why")
    return NOBODY


def _unavailable(why: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"The cloud is not there at the moment: {why}. Try again later.")


def _no_keystone() -> ProviderUnavailable:
    return ProviderUnavailable(
        "What answers at the cloud's address is no Keystone: it may have moved. Tell the people who run this broker."
    )
