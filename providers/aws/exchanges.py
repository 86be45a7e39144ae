"""One exchange for each kind of connection: what it is traded for is a credential of minutes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError

from providers.aws import guides, narrowing
from providers.aws.clients import Caller, Keys, Place, profile_keys
from providers.base import Connection, Credential
from providers.errors import BadCredential

SESSION_SECONDS = 900  # the shortest that AWS makes


def by_web_identity(place: Place, connection: Connection, identity_token: str | None) -> Credential:
    """The token is sent once. With a tag, AWS limits the credential to that launch."""
    account = connection.settings.get("account", "")
    if not re.fullmatch(r"[0-9]{12}", account):
        raise BadCredential("The number of the AWS account is missing. Connect the account again.")
    if not identity_token:
        raise BadCredential("This broker brought no token of its own, and nothing else opens the account.")
    role = guides.role_name(connection.purpose, connection.subject)
    asked = {
        "RoleArn": f"arn:{place.partition}:iam::{account}:role/{role}",
        "RoleSessionName": f"anybinder-{connection.tag.launch if connection.tag else connection.purpose.value}",
        "WebIdentityToken": identity_token,
        "DurationSeconds": SESSION_SECONDS,
    }
    if connection.tag:
        asked["Policy"] = narrowing.policy(connection.tag, connection.purpose)
    answer = Caller(place).ask("sts", "AssumeRoleWithWebIdentity", **asked)
    return _credential(answer["AssumedRoleUser"]["Arn"], answer["Credentials"])


def by_access_key(place: Place, connection: Connection) -> Credential:
    """The long key signs this one call; what works with the account, and lies in memory, ends in minutes."""
    keys = {
        "access_key_id": connection.settings.get("access_key_id", ""),
        "secret_access_key": connection.secret or "",
    }
    if not all(keys.values()):
        raise BadCredential("The access key is missing. Connect the account again.")
    return _of_a_key(place, keys)


def by_profile(place: Place, connection: Connection) -> Credential:
    """What the AWS command line of this computer uses under this name."""
    name = connection.settings.get("profile", "")
    try:
        keys = profile_keys(name)
    except BotoCoreError as error:
        raise BadCredential(
            f"The profile “{name}” does not sign in ({type(error).__name__}). Try `aws sts get-caller-identity`."
        ) from None
    if keys is None:
        raise BadCredential(f"The profile “{name}” has nothing to sign in with. Run `aws configure` for it.")
    if "session_token" not in keys:
        return _of_a_key(place, keys)
    ends = datetime.now(UTC) + timedelta(seconds=SESSION_SECONDS)  # not told how long it is good for, we ask again
    return Credential(who=_who(place, keys), expires_at=ends, secret=keys)


def _of_a_key(place: Place, keys: Keys) -> Credential:
    answer = Caller(place, keys).ask("sts", "GetSessionToken", DurationSeconds=SESSION_SECONDS)
    found = _credential("", answer["Credentials"])
    return Credential(who=_who(place, found.secret), expires_at=found.expires_at, secret=found.secret)


def _who(place: Place, keys: Keys) -> str:
    return str(Caller(place, keys).ask("sts", "GetCallerIdentity")["Arn"])


def _credential(who: str, given: Mapping[str, object]) -> Credential:
    ends = given["Expiration"]
    return Credential(
        who=who,
        expires_at=ends.astimezone(UTC) if isinstance(ends, datetime) else None,
        secret={
            "access_key_id": str(given["AccessKeyId"]),
            "secret_access_key": str(given["SecretAccessKey"]),
            "session_token": str(given["SessionToken"]),
        },
    )
