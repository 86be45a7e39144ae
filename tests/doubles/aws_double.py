"""AWS as far as it is asked, on a real port: STS, IAM, EC2 and SSM, for boto3 by `endpoint_url`.

    with AwsDouble(issuers={"https://hub.example": "http://127.0.0.1:8000"}) as aws:
        account = aws.account("123456789012")
        account.deploy(template)                 # the very file that the guide gives people, its defaults filled in
        AwsProvider({"region": aws.region, "endpoint_url": aws.url})

Behind the gate is moto. The gate decides what moto would let pass: who signed a request (SigV4) and with what credential
(that has ended by `clock`), identity tokens by their issuer's published keys, trust policies, the policies of roles and of
sessions with their conditions, dry runs. Issuers call themselves https; `issuers` says where on this computer they answer.

Not like AWS: a token that was seen is refused by its `jti` (AWS promises no such thing; `refuses_replays = False` ends it);
an unknown key's name never makes it read the keys again early; a signature's date is not compared with the clock.

On demand: `aws.fail("RunInstances", 503, "Unavailable")`, `aws.silent("…")`; `aws.held` keeps exchanges waiting in the gate.
One at a time in a process: moto's accounts are global.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import re
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.validate import ParamValidator
from moto.core.base_backend import BackendDict
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from tests.doubles import aws_policies, aws_stacks, aws_tokens
from tests.doubles.aws_policies import Question
from tests.doubles.aws_tokens import Refused

ACCOUNT = "123456789012"
REGION = "eu-central-1"
ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
MODELS = botocore.session.Session().get_service_model("sts")
EXPIRED = {"ec2": (400, "RequestExpired"), "ssm": (400, "ExpiredTokenException")}
UNKNOWN_KEY = {"ec2": (401, "AuthFailure"), "ssm": (400, "UnrecognizedClientException")}
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


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class AwsDouble:
    """All accounts of an AWS. Start it with `with`."""

    region = REGION

    def __init__(
        self,
        *,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        issuers: Mapping[str, str] | None = None,
        jwks_seconds: float = 3600,
    ) -> None:
        self.clock = clock
        self.issuers = aws_tokens.Issuers(lambda: self.clock(), issuers or {}, jwks_seconds)
        self.refuses_replays = True
        self.calls: list[tuple[str, str]] = []
        """Every call's action with the code of its refusal, empty where it went well."""
        self.broken: list[str] = []
        """What went wrong in the double itself; it is shown when it ends."""
        self.gate: threading.Event | None = None
        self.waiting = 0
        self._seen: set[str] = set()
        self._principals: dict[str, Principal] = {}
        self._faults: dict[str, list[Refused | None]] = {}
        self._lock = threading.Lock()
        self._moto_lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> AwsDouble:
        BackendDict.reset()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=QuietHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        BackendDict.reset()
        assert not self.broken, "\n".join(self.broken)

    # What tests ask of it.

    def account(self, number: str = ACCOUNT) -> Account:
        """An account, with somebody in it who may do anything there."""
        key = f"AKIAADMIN{number}"
        self._principals[key] = Principal(
            account=number,
            arn=f"arn:aws:iam::{number}:user/owner",
            user_id="AIDAOWNER",
            secret="the-owners-secret",
            policies=lambda: [ANYTHING],
        )
        return Account(self, number, key)

    def fail(self, action: str, status: int, code: str, message: str = "", *, times: int = 1) -> None:
        """The next calls of this action are answered with this."""
        self._faults.setdefault(action, []).extend([Refused(status, code, message)] * times)

    def silent(self, action: str) -> None:
        """The next call of this action is cut off without an answer, after it took effect or not at all."""
        self._faults.setdefault(action, []).append(None)

    def principals(self) -> list[Principal]:
        """Everybody who has keys that were made for a while."""
        return [each for each in self._principals.values() if each.ends]

    @contextlib.contextmanager
    def held(self) -> Iterator[AwsDouble]:
        """Exchanges wait in the gate, unread, until this ends; `waiting` says how many do."""
        self.gate = threading.Event()
        try:
            yield self
        finally:
            gate, self.gate = self.gate, None
            gate.set()

    # A request.

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        form = _form(environ, body)
        service = _scope(environ)[1]
        action = form.get("Action", "")
        try:
            self._meet_faults(action)
            answer = self._served(environ, body, form, service, action)
            self.calls.append((action, ""))
        except Refused as refusal:
            self.calls.append((action, refusal.code))
            answer = _refusal(service, refusal)
        except ConnectionAbortedError:
            self.calls.append((action, "silence"))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        except Exception:
            self.broken.append(traceback.format_exc())
            answer = _refusal(service, Refused(500, "InternalFailure", "the double itself is broken"))
        return answer(environ, start)

    def _meet_faults(self, action: str) -> None:
        if waiting := self._faults.get(action):
            fault = waiting.pop(0)
            raise fault if fault else ConnectionAbortedError

    def _served(
        self, environ: dict[str, Any], body: bytes, form: dict[str, str], service: str, action: str
    ) -> Response:
        if "HTTP_AUTHORIZATION" not in environ:
            if action != "AssumeRoleWithWebIdentity":
                raise Refused(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
            return self._exchange(form)
        me = self._authenticated(environ, body, service)
        if action == "GetCallerIdentity":  # nobody is refused this
            return _sts(action, form, {"UserId": me.user_id, "Account": me.account, "Arn": me.arn})
        self._authorized(me, environ, form, service, action)
        if form.get("DryRun") == "true":
            raise Refused(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        if service == "sts" and action == "GetSessionToken":
            return self._session_of_a_key(me, form)
        return self._by_moto(environ, body, me)

    def _authorized(
        self, me: Principal, environ: dict[str, Any], form: dict[str, str], service: str, action: str
    ) -> None:
        if me.of_a_key and service in ("iam", "sts"):
            raise Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid")
        if service == "sts" and action == "GetSessionToken" and not me.token:
            return
        asked = list(aws_policies.of_a_request(service, action, form, me.account, _scope(environ)[0]))
        if denied := aws_policies.first_denied(me.policies(), me.session_policy, asked):
            question, why = denied
            said = (
                f"User: {me.arn} is not authorized to perform: {question.action} on resource: {question.resource} {why}"
            )
            if service == "ec2":
                said = f"You are not authorized to perform this operation. {said}. Encoded authorization failure message: 0xAA"
            raise Refused(403, "UnauthorizedOperation" if service == "ec2" else _denial(service), said)

    def _authenticated(self, environ: dict[str, Any], body: bytes, service: str) -> Principal:
        head = environ["HTTP_AUTHORIZATION"]
        key = head.partition("Credential=")[2].partition("/")[0]
        me = self._principals.get(key) or self._user(key)
        if me is None or (environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or "") != me.token:
            status, code = UNKNOWN_KEY.get(service, (403, "InvalidClientTokenId"))
            raise Refused(status, code, "The security token included in the request is invalid.")
        if me.ends and me.ends <= self.clock():
            status, code = EXPIRED.get(service, (403, "ExpiredToken"))
            raise Refused(status, code, "The security token included in the request is expired")
        if head.rpartition("Signature=")[2] != _signature(environ, body, key, me):
            code = "AuthFailure" if service == "ec2" else "SignatureDoesNotMatch"
            raise Refused(401 if service == "ec2" else 403, code, "The request signature we calculated does not match.")
        return me

    def _user(self, key: str) -> Principal | None:
        """Somebody's access key, as moto's IAM knows it."""
        for number, partitions in list(iam_backends.items()):
            for user in partitions["aws"].users.values():
                for each in user.access_keys:
                    if each.access_key_id == key and each.status == "Active":
                        return _principal_of(user, number, each.secret_access_key)
        return None

    def _by_moto(self, environ: dict[str, Any], body: bytes, me: Principal) -> Response:
        inner = {**environ, "wsgi.input": io.BytesIO(body), "HTTP_X_MOTO_ACCOUNT_ID": me.account}
        with self._moto_lock:
            answer = Response.from_app(self._moto.get_application(inner), {**inner, "wsgi.input": io.BytesIO(body)})
            answer.get_data()
        if answer.status_code >= 400 and "<Code>" in (text := answer.get_data(as_text=True)):
            code = re.search("<Code>(.*?)</Code>", text)
            self.calls.append((f"moto:{_form(environ, body).get('Action')}", code[1] if code else ""))
        return answer

    # STS.

    def _exchange(self, form: dict[str, str]) -> Response:
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
            policies=lambda: _policies_of(role, account),
            session_policy=policy,
            tags=tags,
            seconds=duration,
        )
        me = self._principals[key]
        return _sts("AssumeRoleWithWebIdentity", form, {
            "Credentials": given,
            "SubjectFromWebIdentityToken": claims["sub"],
            "AssumedRoleUser": {"AssumedRoleId": me.user_id, "Arn": me.arn},
            "PackedPolicySize": len(policy or "") * 100 // 4096,
            "Provider": _provider_arn(account, claims["iss"]),
            "Audience": aws_tokens.audience(claims),
        })  # fmt: skip

    def _session_of_a_key(self, me: Principal, form: dict[str, str]) -> Response:
        seconds = int(form.get("DurationSeconds") or 43200)
        _key, given = self._made(account=me.account, arn=me.arn, user_id=me.user_id, policies=me.policies,
                                 seconds=seconds, of_a_key=True)  # fmt: skip
        return _sts("GetSessionToken", form, {"Credentials": given})

    def _made(self, *, seconds: int, **who: Any) -> tuple[str, dict[str, str]]:
        key = f"ASIA{secrets.token_hex(8).upper()}"
        ends = self.clock() + dt.timedelta(seconds=seconds)
        me = Principal(secret=secrets.token_urlsafe(30), token=secrets.token_urlsafe(60), ends=ends, **who)
        self._principals[key] = me
        expiration = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"AccessKeyId": key, "SecretAccessKey": me.secret, "SessionToken": me.token, "Expiration": expiration}
        return key, given


class Account:
    """One account, seen by the person whose it is."""

    def __init__(self, aws: AwsDouble, number: str, key: str) -> None:
        self.aws, self.number, self._key = aws, number, key
        self._stacks = aws_stacks.Stacks(self.client("iam"), number, REGION)

    def client(self, service: str, region: str = REGION) -> Any:
        """boto3 as somebody who may do anything in this account."""
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.aws.url,
            aws_access_key_id=self._key,
            aws_secret_access_key="the-owners-secret",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def deploy(self, template: str, stack: str = "anybinder", **parameters: str) -> None:
        """Make or update this stack, as pasting the script does. Raises IAM's own refusals."""
        self._stacks.deploy(stack, template, parameters)

    def delete(self, stack: str = "anybinder") -> None:
        """Delete this stack, as the guide says."""
        self._stacks.delete(stack)

    def access_key(self, policy: Any = ANYTHING, name: str = "anybinder") -> tuple[str, str]:
        """A user with this policy alone, and an access key."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        document = policy if isinstance(policy, str) else json.dumps(policy)
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=document)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def run(self, **tags: str) -> str:
        """A machine of the person's own, with these tags; its id."""
        ec2 = self.client("ec2")
        image = ec2.describe_images()["Images"][0]["ImageId"]
        named = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        marks = [{"ResourceType": "instance", "Tags": named}] if named else []
        made = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=marks)
        return made["Instances"][0]["InstanceId"]


def _form(environ: Mapping[str, Any], body: bytes) -> dict[str, str]:
    """The parameters of the query protocols; of JSON ones the action, and lists as the query protocols write them."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if not target:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    lists = {
        f"{k}.{n}": v for k, each in json.loads(body).items() if isinstance(each, list) for n, v in enumerate(each)
    }
    return {"Action": target.rpartition(".")[2], **lists}


def _scope(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Region and service, as the signature names them; STS where there is none."""
    parts = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return (parts[2], parts[3]) if len(parts) == 5 else (REGION, "sts")


def _signature(environ: Mapping[str, Any], body: bytes, key: str, me: Principal) -> str:
    head = environ["HTTP_AUTHORIZATION"]
    signed = head.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: _header(environ, name) for name in signed}
    url = f"http://{environ['HTTP_HOST']}{environ.get('PATH_INFO') or '/'}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, data=body, headers=headers)
    request.context["timestamp"] = environ["HTTP_X_AMZ_DATE"]
    region, service = _scope(environ)
    auth = SigV4Auth(Credentials(key, me.secret, me.token or None), service, region)
    return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


def _header(environ: Mapping[str, Any], name: str) -> str:
    plain = name.upper().replace("-", "_")
    return environ.get(f"HTTP_{plain}") or environ.get(plain, "")


def _sts(operation: str, form: Mapping[str, str], result: Mapping[str, Any]) -> Response:
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


def _refusal(service: str, refusal: Refused) -> Response:
    said = refusal.message.replace("&", "&amp;").replace("<", "&lt;")
    error = f"<Code>{refusal.code}</Code><Message>{said}</Message>"
    if service == "ssm":
        text = json.dumps({"__type": refusal.code, "message": refusal.message})
        return Response(text, refusal.status, content_type="application/x-amz-json-1.1")
    if service == "ec2":
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
    else:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>0</RequestId></ErrorResponse>"
    return Response(text, refusal.status, content_type="text/xml")


def _denial(service: str) -> str:
    return "AccessDeniedException" if service == "ssm" else "AccessDenied"


def _provider_arn(account: str, issuer: str) -> str:
    url = urlsplit(issuer)
    return f"arn:aws:iam::{account}:oidc-provider/{url.netloc}{url.path}"


def _principal_of(user: Any, account: str, secret: str) -> Principal:
    return Principal(
        account=account, arn=user.arn, user_id=user.id, secret=secret, policies=lambda: _policies_of(user, account)
    )


def _policies_of(owner: Any, account: str) -> list[Any]:
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
