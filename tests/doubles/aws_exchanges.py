"""STS in the double: an identity token or a key is traded for a session, as AWS documents the exchange."""

from __future__ import annotations

import datetime as dt
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore.validate import ParamValidator
from moto.iam.models import iam_backends
from werkzeug.wrappers import Response

from tests.doubles import aws_policies, aws_tokens
from tests.doubles.aws_policies import Question
from tests.doubles.aws_tokens import Refused

MODELS = botocore.session.Session().get_service_model("sts")
TAGS_CLAIM = "https://aws.amazon.com/tags"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who a set of keys belongs to."""

    account: str
    arn: str
    user_id: str
    secret: str = field(repr=False)
    policies: Callable[[], list[Any]] = field(repr=False)
    session_policy: Any = None
    token: str = field(default="", repr=False)
    ends: dt.datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    of_a_key: bool = False
    """Made by GetSessionToken: neither IAM nor STS serve it."""


class Exchanges:
    """Who has keys, and how one comes by them."""

    def __init__(self, clock: Callable[[], dt.datetime], issuers: aws_tokens.Issuers) -> None:
        self.clock, self.issuers = clock, issuers
        self.refuses_replays = True
        self.principals: dict[str, Principal] = {}
        self.gate: threading.Event | None = None
        self.waiting = 0
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def by_web_identity(self, form: dict[str, str]) -> Response:
        gate = self.gate
        if gate:
            with self._lock:
                self.waiting += 1
            gate.wait(180)
            with self._lock:
                self.waiting -= 1
        token, arn = form.get("WebIdentityToken", ""), form.get("RoleArn", "")
        account = (re.match(r"arn:aws:iam::([0-9]{12}):role/", arn) or [None, ""])[1]
        providers = iam_backends[account]["aws"].open_id_providers if account else {}
        claims = aws_tokens.claims_of(token, self.issuers, lambda issuer: _provider_arn(account, issuer) in providers)
        aws_tokens.require_its_time(claims, self.clock())
        provider = providers[_provider_arn(account, claims["iss"])]
        if aws_tokens.audience(claims) not in provider.client_id_list:
            raise Refused(400, "InvalidIdentityToken", "Incorrect token audience")
        role = self._trusting_role(arn, account, provider.arn, claims)
        duration = int(form.get("DurationSeconds") or 3600)
        if not 900 <= duration <= min(role.max_session_duration, 43200):
            message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise Refused(400, "ValidationError", message)
        self._require_unseen(claims)
        return self._assumed(form, role, account, claims, duration)

    def _trusting_role(self, arn: str, account: str, provider: str, claims: Mapping[str, Any]) -> Any:
        role = next((each for each in iam_backends[account]["aws"].roles.values() if each.arn == arn), None)
        host = claims["iss"].partition("://")[2]
        context = {f"{host}:aud": aws_tokens.audience(claims), f"{host}:sub": str(claims["sub"])}
        wanted = ["sts:AssumeRoleWithWebIdentity"] + (["sts:TagSession"] if TAGS_CLAIM in claims else [])
        for action in wanted:
            asked = Question(action=action, resource=arn, context=context)
            if role is None or not aws_policies.trusts(role.assume_role_policy_document, provider, asked):
                raise Refused(403, "AccessDenied", f"Not authorized to perform {action}")
        return role

    def _require_unseen(self, claims: Mapping[str, Any]) -> None:
        with self._lock:
            if self.refuses_replays and claims.get("jti") in self._seen:
                raise Refused(403, "IDPRejectedClaim", "The token was used before")
            self._seen.add(claims.get("jti", ""))

    def _assumed(
        self, form: dict[str, str], role: Any, account: str, claims: Mapping[str, Any], duration: int
    ) -> Response:
        name, policy = form["RoleSessionName"], form.get("Policy")
        if policy:
            _require_policy(policy)
        tags = {key: values[0] for key, values in claims.get(TAGS_CLAIM, {}).get("principal_tags", {}).items()}
        key, given = self._made(
            account=account,
            arn=f"arn:aws:sts::{account}:assumed-role/{role.name}/{name}",
            user_id=f"{role.id}:{name}",
            policies=lambda: policies_of(role, account),
            session_policy=policy,
            tags=tags,
            seconds=duration,
        )
        me = self.principals[key]
        return answer("AssumeRoleWithWebIdentity", form, {
            "Credentials": given,
            "SubjectFromWebIdentityToken": claims["sub"],
            "AssumedRoleUser": {"AssumedRoleId": me.user_id, "Arn": me.arn},
            "PackedPolicySize": len(policy or "") * 100 // 4096,
            "Provider": _provider_arn(account, claims["iss"]),
            "Audience": aws_tokens.audience(claims),
        })  # fmt: skip

    def of_a_key(self, me: Principal, form: dict[str, str]) -> Response:
        seconds = int(form.get("DurationSeconds") or 43200)
        _key, given = self._made(account=me.account, arn=me.arn, user_id=me.user_id, policies=me.policies,
                                 seconds=seconds, of_a_key=True)  # fmt: skip
        return answer("GetSessionToken", form, {"Credentials": given})

    def _made(self, *, seconds: int, **who: Any) -> tuple[str, dict[str, str]]:
        key = f"ASIA{secrets.token_hex(8).upper()}"
        ends = self.clock() + dt.timedelta(seconds=seconds)
        me = Principal(secret=secrets.token_urlsafe(30), token=secrets.token_urlsafe(60), ends=ends, **who)
        self.principals[key] = me
        expiration = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"AccessKeyId": key, "SecretAccessKey": me.secret, "SessionToken": me.token, "Expiration": expiration}
        return key, given


def answer(operation: str, form: Mapping[str, str], result: Mapping[str, Any]) -> Response:
    """An answer of STS, written by the SDK's own description of it; what that does not know fails here."""
    model = MODELS.operation_model(operation)
    asked = {key: int(value) if key == "DurationSeconds" else value for key, value in form.items()
             if key not in ("Action", "Version")}  # fmt: skip
    report = ParamValidator().validate(asked, model.input_shape)
    unknown = set(asked) - set(model.input_shape.members)
    if report.has_errors() or unknown:
        raise Refused(400, "ValidationError", report.generate_report() or f"Unknown parameters: {unknown}")
    body = _xml(model.output_shape, result)
    text = f"<{operation}Response><{operation}Result>{body}</{operation}Result>{_request_id()}</{operation}Response>"
    return Response(text, content_type="text/xml")


def _request_id() -> str:
    return "<ResponseMetadata><RequestId>00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata>"


def _xml(shape: Any, value: Any) -> str:
    if shape.type_name != "structure":
        return str(value).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"<{key}>{_xml(shape.members[key], each)}</{key}>" for key, each in value.items())


def _provider_arn(account: str, issuer: str) -> str:
    url = urlsplit(issuer)
    return f"arn:aws:iam::{account}:oidc-provider/{url.netloc}{url.path}"


def principal_of(user: Any, account: str, secret: str) -> Principal:
    return Principal(
        account=account, arn=user.arn, user_id=user.id, secret=secret, policies=lambda: policies_of(user, account)
    )


def policies_of(owner: Any, account: str) -> list[Any]:
    managed = [policy.document for policy in getattr(owner, "managed_policies", {}).values()]
    return [*owner.policies.values(), *managed]


def _require_policy(policy: str) -> None:
    if len(policy) > 2048:
        raise Refused(400, "PackedPolicyTooLarge", "Packed policy consumes more than 100% of allotted space.")
    try:
        statements = json.loads(policy)["Statement"]
        well = all(each["Effect"] in ("Allow", "Deny") and each["Action"] and each["Resource"] for each in statements)
    except (ValueError, KeyError, TypeError):
        well = False
    if not well:
        raise Refused(400, "MalformedPolicyDocument", "The policy is not in the valid JSON format.")
