"""AWS as far as it is asked, on a real port: STS, IAM, EC2, SSM and EventBridge Scheduler, for boto3 by `endpoint_url`.

    with AwsDouble(issuers={"https://hub.example": "http://127.0.0.1:8000"}) as aws:
        account = aws.account("123456789012")
        account.deploy(template)                 # the very file that the guide gives people, its defaults filled in
        AwsProvider({"region": aws.region, "endpoint_url": aws.url})

Behind the gate is moto. The gate decides what moto would let pass: who signed a request (SigV4) and with what credential
(that has ended by `clock`), identity tokens by their issuer's published keys, trust policies, the policies of roles and of
sessions with their conditions, dry runs (`aws_exchanges`, `aws_policies`); client tokens, and the life of machines on that
clock (`aws_machines`); schedules that fire (`aws_schedules`). Every request and answer is read by the SDK's own
descriptions (`aws_models`): what they do not know is in `broken`, and fails the test. Issuers call themselves https;
`issuers` says where on this computer they answer.

Not like AWS: a token that was seen is refused by its `jti` (AWS promises no such thing; `refuses_replays = False` ends it);
an unknown key's name never makes it read the keys again early; a signature's date is not compared with the clock.

On demand, for the next calls of an action: `aws.fail("RunInstances", 503, "Unavailable")` refuses them, `aws.silent("…")`
cuts them off; `aws.fault("RunInstances", "lost")` lets them take effect and loses the answer, "duplicate" delivers them
twice, "half" makes disk and interface alone, "hold" never answers. `aws.held` keeps exchanges waiting in the gate.
`aws.machines` has the times of boots and ends, what is hidden, and whom to tell when a machine runs and ends: a double
that boots hangs there. Brokers in other processes ask by `aws.url`. One at a time in a process: moto's accounts are global.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from tests.doubles import aws_exchanges, aws_images, aws_models, aws_policies, aws_stacks, aws_tokens, price_list
from tests.doubles.aws_exchanges import Principal
from tests.doubles.aws_machines import Machines
from tests.doubles.aws_models import Asked
from tests.doubles.aws_schedules import Schedules
from tests.doubles.aws_tokens import Refused

os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

ACCOUNT = "123456789012"
REGION = "eu-central-1"
ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
SERVED = ("ec2", "iam", "scheduler", "ssm", "sts")
EXPIRED = {"ec2": (400, "RequestExpired"), "ssm": (400, "ExpiredTokenException")}
UNKNOWN_KEY = {"ec2": (401, "AuthFailure"), "ssm": (400, "UnrecognizedClientException")}
HELD_SECONDS = 60
PRICE_LIST = r"/offers/v1\.0/aws/AmazonEC2/current/(?P<region>[a-z0-9-]+)/index\.csv"
MOTO = DomainDispatcherApplication(create_backend_app)


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One request, without its secrets, and how it was answered."""

    account: str
    who: str
    service: str
    action: str
    parameters: Mapping[str, Any]
    code: str = ""
    """Of the refusal; empty where it went well."""


@dataclass(kw_only=True)
class Call:
    """One request on its way through the gate."""

    environ: dict[str, Any]
    body: bytes
    asked: Asked
    form: dict[str, str]
    region: str
    me: Principal | None = None

    @property
    def account(self) -> str:
        return self.me.account if self.me else ""


@dataclass(kw_only=True)
class Faults:
    """What the next calls of each action meet."""

    waiting: dict[str, list[Refused | str]] = field(default_factory=dict)

    def next(self, action: str) -> Refused | str | None:
        return self.waiting[action].pop(0) if self.waiting.get(action) else None


class AwsDouble:
    """All accounts of an AWS. Start it with `with`."""

    region = REGION

    def __init__(
        self,
        *,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        issuers: Mapping[str, str] | None = None,
        jwks_seconds: float = 3600,
        ticks: bool = False,
    ) -> None:
        """With `ticks` its machines live on by themselves, else whenever anything is asked."""
        self.clock = clock
        self.issuers = aws_tokens.Issuers(lambda: self.clock(), issuers or {}, jwks_seconds)
        self.exchanges = aws_exchanges.Exchanges(lambda: self.clock(), self.issuers)
        self.machines = Machines(clock=lambda: self.clock())
        self.schedules = Schedules(self.machines)
        self.calls: list[tuple[str, str]] = []
        """Every call's action with the code of its refusal, empty where it went well."""
        self.requests: list[Recorded] = []
        self.broken: list[str] = []
        """What was asked or answered that AWS does not know, and what went wrong in the double itself; shown when it ends."""
        self.withdrawn: set[str] = set()
        """Public parameters of images that are there no more."""
        self._faults = Faults()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticks = ticks

    def __enter__(self) -> AwsDouble:
        BackendDict.reset()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=QuietHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)]
        self._threads += [threading.Thread(target=self._live_on, daemon=True)] if self._ticks else []
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(10)
        BackendDict.reset()
        assert not self.broken, "\n".join(self.broken)

    # What tests ask of it.

    def account(self, number: str = ACCOUNT) -> Account:
        """An account, with somebody in it who may do anything there."""
        key = f"AKIAADMIN{number}"
        self.exchanges.principals[key] = Principal(
            account=number,
            arn=f"arn:aws:iam::{number}:user/owner",
            user_id="AIDAOWNER",
            secret="the-owners-secret",
            policies=lambda: [ANYTHING],
        )
        return Account(self, number, key)

    def fail(self, action: str, status: int, code: str, message: str = "", *, times: int = 1) -> None:
        """The next calls of this action are answered with this."""
        self._faults.waiting.setdefault(action, []).extend([Refused(status, code, message)] * times)

    def silent(self, action: str) -> None:
        """The next call of this action is cut off without an answer, and took no effect."""
        self.fault(action, "silent")

    def fault(self, action: str, kind: str, *, times: int = 1) -> None:
        """The next calls of this action meet this: silent, hold, lost, duplicate or half."""
        assert kind in ("silent", "hold", "lost", "duplicate", "half"), kind
        self._faults.waiting.setdefault(action, []).extend([kind] * times)

    def clear(self) -> None:
        """No more faults, and nothing hidden."""
        self._faults.waiting.clear()
        self.machines.hide_seconds = 0
        self.machines.hidden.clear()

    def tick(self) -> None:
        """Let happen what is due by the clock."""
        with self._lock:
            self.machines.settle()
            self.schedules.settle()
            told, self.machines.told = self.machines.told, []
        for tell in told:
            tell()

    def power_off(self, instance_id: str) -> None:
        """This machine switches itself off."""
        self._done_to(self.machines.power_off, instance_id)

    def take_away(self, instance_id: str) -> None:
        """AWS takes this spot machine back."""
        self._done_to(self.machines.taken_away, instance_id)

    def _done_to(self, what: Callable[[str], None], instance_id: str) -> None:
        with self._lock:
            what(instance_id)
        self.tick()

    def write(self, instance_id: str, text: str) -> None:
        """This machine has written that on its console."""
        self.machines.lives[instance_id].wrote += text

    def principals(self) -> list[Principal]:
        """Everybody who has keys that were made for a while."""
        return [each for each in list(self.exchanges.principals.values()) if each.ends]

    @property
    def refuses_replays(self) -> bool:
        return self.exchanges.refuses_replays

    @refuses_replays.setter
    def refuses_replays(self, value: bool) -> None:
        self.exchanges.refuses_replays = value

    @property
    def gate(self) -> threading.Event | None:
        return self.exchanges.gate

    @property
    def waiting(self) -> int:
        return self.exchanges.waiting

    @contextlib.contextmanager
    def held(self) -> Iterator[AwsDouble]:
        """Exchanges wait in the gate, unread, until this ends; `waiting` says how many do."""
        self.exchanges.gate = threading.Event()
        try:
            yield self
        finally:
            gate, self.exchanges.gate = self.exchanges.gate, None
            gate.set()

    def _live_on(self) -> None:
        while not self._over.wait(0.1):
            try:
                self.tick()
            except Exception:
                self.broken.append(traceback.format_exc())

    # A request.

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if found := re.fullmatch(PRICE_LIST, environ["PATH_INFO"]):
            return Response(_price_list(found["region"]), content_type="text/csv")(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        region, service = _scope(environ)
        form = _form(environ, body)
        call = Call(environ=environ, body=body, form=form, region=region,
                    asked=Asked(service=service, action=form.get("Action", "")))  # fmt: skip
        try:
            answer, code = self._met(call), ""
        except Refused as refusal:
            answer, code = _refusal(service, refusal), refusal.code
        except ConnectionAbortedError:
            self._note(call, "silence")
            with contextlib.suppress(OSError):  # whoever asked may have gone
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        except Exception:
            self.broken.append(traceback.format_exc())
            answer, code = _refusal(service, Refused(500, "InternalFailure", "the double itself is broken")), "broken"
        self._note(call, code)
        return answer(environ, start)

    def _note(self, call: Call, code: str) -> None:
        asked = call.asked
        self.calls.append((asked.action, code))
        self.requests.append(Recorded(account=call.account, who=call.me.arn if call.me else "", service=asked.service,
                                      action=asked.action, parameters=asked.shown(), code=code))  # fmt: skip

    def _met(self, call: Call) -> Response:
        """Served, or whatever was arranged for it."""
        if "HTTP_AUTHORIZATION" not in call.environ and call.asked.action != "AssumeRoleWithWebIdentity":
            raise Refused(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        if call.asked.service in SERVED:
            call.asked = self._read(call)
        fault = self._faults.next(call.asked.action)
        if isinstance(fault, Refused):
            raise fault
        if fault in ("silent", "hold"):
            self._over.wait(HELD_SECONDS if fault == "hold" else 0)
            raise ConnectionAbortedError
        answer = self._served(call, half=fault == "half")
        if fault == "duplicate":
            self._served(call)
        if fault == "lost":
            raise ConnectionAbortedError
        return answer

    def _read(self, call: Call) -> Asked:
        try:
            return aws_models.read(call.asked.service, call.environ, call.body)
        except aws_models.NotInTheModel as odd:
            self.broken.append(str(odd))
            raise Refused(400, "ValidationError", str(odd)) from None

    def _served(self, call: Call, *, half: bool = False) -> Response:
        action = call.asked.action
        if "HTTP_AUTHORIZATION" not in call.environ:
            return self.exchanges.by_web_identity(call.form)
        call.me = me = self._authenticated(call)
        if action == "GetCallerIdentity":  # nobody is refused this
            return aws_exchanges.answer(action, call.form, {"UserId": me.user_id, "Account": me.account, "Arn": me.arn})
        self._authorized(me, call)
        if call.form.get("DryRun") == "true":
            raise Refused(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        if call.asked.service == "sts" and action == "GetSessionToken":
            return self.exchanges.of_a_key(me, call.form)
        self.tick()
        with self._lock:
            answer = self._done(call, half=half)
        self.tick()
        self._require_known(call, answer)
        return answer

    def _require_known(self, call: Call, answer: Response) -> None:
        try:
            aws_models.require_known(call.asked, answer)
        except aws_models.NotInTheModel as odd:
            self.broken.append(str(odd))

    def _done(self, call: Call, *, half: bool) -> Response:
        """What the gate does itself, and what moto does."""
        asked, account, region = call.asked, call.account, call.region
        own: dict[str, Callable[[], Response]] = {
            "RunInstances": lambda: self._run(call, half=half),
            "DeleteSecurityGroup": lambda: self._delete_group(call),
            "CreateSecurityGroup": lambda: self._create_group(call),
            "GetConsoleOutput": lambda: self._console(call),
            "CreateSchedule": lambda: self.schedules.create(asked, account, region, lambda: self._by_moto(call)),
            "DescribeInstanceTypes": lambda: Response(aws_images.types(asked, region), content_type="text/xml"),
            "DescribeInstanceTypeOfferings": lambda: Response(
                aws_images.offerings(asked, region), content_type="text/xml"
            ),
            "GetParameters": lambda: aws_models.written(asked, aws_images.parameters(asked, region, self.withdrawn)),
            "DescribeImages": lambda: (aws_images.publish(account, region), self._by_moto(call))[1],
        }
        if asked.action in own:
            return own[asked.action]()
        if asked.service == "ec2":
            self.machines.require_shown(asked)
        answer = self._by_moto(call)
        if self.machines.hidden and asked.action.startswith("Describe"):
            answer.set_data(self.machines.without_hidden(answer.get_data(as_text=True)))
        return answer

    def _run(self, call: Call, *, half: bool) -> Response:
        if half:
            self.machines.half_made(call.asked, call.account, call.region)
            raise Refused(500, "InternalError", "An internal error has occurred")
        refused: list[Response] = []

        def start() -> None:
            answer = self._by_moto(call)
            if answer.status_code >= 400:
                refused.append(answer)

        number = self.machines.run(call.asked, call.account, call.region, start)
        return refused[0] if refused else self._reservation(call, number)

    def _reservation(self, call: Call, number: str) -> Response:
        """What RunInstances answers, as it is now: the entry that DescribeInstances has of it."""
        form = {"Action": "DescribeInstances", "Version": call.form["Version"], "InstanceId.1": number}
        text = self._by_moto(call, form).get_data(as_text=True)
        found = re.search(r"<reservationSet>\s*<item>(.*)</item>\s*</reservationSet>", text, re.DOTALL)
        assert found, text
        answer = f"<RunInstancesResponse>{found[1]}<requestId>0</requestId></RunInstancesResponse>"
        return Response(answer, content_type="text/xml")

    def _create_group(self, call: Call) -> Response:
        answer = self._by_moto(call)
        if made := re.search(r"<groupId>(sg-[0-9a-f]+)</groupId>", answer.get_data(as_text=True)):
            self.machines.hide(made[1])
        return answer

    def _delete_group(self, call: Call) -> Response:
        self.machines.require_unused(call.form.get("GroupId", ""), call.account, call.region)
        return self._by_moto(call)

    def _console(self, call: Call) -> Response:
        self.machines.require_shown(call.asked)
        number = call.asked.parameters["InstanceId"]
        life = self.machines.lives.get(number)
        if life is None or life.account != call.account:
            raise Refused(400, "InvalidInstanceID.NotFound", f"The instance ID '{number}' does not exist")
        return aws_models.written(call.asked, self.machines.console(life))

    def _authorized(self, me: Principal, call: Call) -> None:
        service, action = call.asked.service, call.asked.action
        if me.of_a_key and service in ("iam", "sts"):
            raise Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid")
        if service == "sts" and action == "GetSessionToken" and not me.token:
            return
        asked = list(aws_policies.of_a_request(call.asked, call.form, me.account, call.region))
        if denied := aws_policies.first_denied(me.policies(), me.session_policy, asked):
            question, why = denied
            said = (
                f"User: {me.arn} is not authorized to perform: {question.action} on resource: {question.resource} {why}"
            )
            if service == "ec2":
                said = f"You are not authorized to perform this operation. {said}. Encoded authorization failure message: 0xAA"
            raise Refused(403, "UnauthorizedOperation" if service == "ec2" else _denial(service), said)

    def _authenticated(self, call: Call) -> Principal:
        environ, service = call.environ, call.asked.service
        head = environ["HTTP_AUTHORIZATION"]
        key = head.partition("Credential=")[2].partition("/")[0]
        me = self.exchanges.principals.get(key) or self._user(key)
        if me is None or (environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or "") != me.token:
            status, code = UNKNOWN_KEY.get(service, (403, "InvalidClientTokenId"))
            raise Refused(status, code, "The security token included in the request is invalid.")
        if me.ends and me.ends <= self.clock():
            status, code = EXPIRED.get(service, (403, "ExpiredToken"))
            raise Refused(status, code, "The security token included in the request is expired")
        if head.rpartition("Signature=")[2] != _signature(environ, call.body, key, me):
            code = "AuthFailure" if service == "ec2" else "SignatureDoesNotMatch"
            raise Refused(401 if service == "ec2" else 403, code, "The request signature we calculated does not match.")
        return me

    def _user(self, key: str) -> Principal | None:
        """Somebody's access key, as moto's IAM knows it."""
        for number, partitions in list(iam_backends.items()):
            for user in partitions["aws"].users.values():
                for each in user.access_keys:
                    if each.access_key_id == key and each.status == "Active":
                        return aws_exchanges.principal_of(user, number, each.secret_access_key)
        return None

    def _by_moto(self, call: Call, form: Mapping[str, str] | None = None) -> Response:
        body = urlencode(form).encode() if form else call.body
        inner = {**call.environ, "CONTENT_LENGTH": str(len(body)), "HTTP_X_MOTO_ACCOUNT_ID": call.account}
        application = MOTO.get_application({**inner, "wsgi.input": io.BytesIO(body)})
        answer = Response.from_app(application, {**inner, "wsgi.input": io.BytesIO(body)})
        answer.get_data()
        if answer.status_code >= 400 and "<Code>" in (text := answer.get_data(as_text=True)):
            code = re.search("<Code>(.*?)</Code>", text)
            self.calls.append((f"moto:{call.asked.action}", code[1] if code else ""))
        return answer


class Account:
    """One account, seen by the person whose it is."""

    def __init__(self, aws: AwsDouble, number: str, key: str) -> None:
        self.aws, self.number, self._key = aws, number, key
        self._stacks = aws_stacks.Stacks(self.client("iam"), self.client("scheduler"), number, REGION)

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
        image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
        named = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        marks = [{"ResourceType": "instance", "Tags": named}] if named else []
        made = ec2.run_instances(
            ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro", TagSpecifications=marks
        )
        return made["Instances"][0]["InstanceId"]

    def marked(self, name: str = "anybinder-broker", value: str | None = None) -> list[str]:
        """All that is there with this tag: machines that have not ended, disks, interfaces, groups; and schedules."""
        there = [each.id for each in self._things() if _marked(each, name, value)]
        return there + self.aws.schedules.of(self.number, name, value)

    def labels(self, order: str) -> dict[str, dict[str, str]]:
        """The tags of each thing of this order, by its id; a schedule's stand in its description."""
        marked = [each for each in self._things() if _marked(each, "anybinder-order", order)]
        return {each.id: _tags(each) for each in marked} | self.aws.schedules.labels(self.number, order)

    def unmarked(self) -> list[str]:
        """What is there without a tag of ours, and was not there from the beginning."""
        return [each.id for each in self._things() if not _marked(each, "anybinder-order")]

    def _things(self) -> list[Any]:
        backend, lives = ec2_backends[self.number][REGION], self.aws.machines.lives.values()
        alive = [life.machine for life in lives if life.account == self.number and not life.gone_at]
        groups = [group for of_vpc in backend.groups.values() for group in of_vpc.values() if group.name != "default"]
        return [*alive, *backend.volumes.values(), *backend.enis.values(), *groups]


def _tags(thing: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in thing.get_tags()}


def _marked(thing: Any, name: str, value: str | None = None) -> bool:
    return name in (tags := _tags(thing)) and value in (None, tags[name])


def _price_list(region: str) -> bytes:
    """Anybody may read it."""
    rows = {"t3.medium": "0.0480000000", "t4g.medium": "0.0384000000"}
    return price_list.listed(*(price_list.row(name, cost, Region_Code=region) for name, cost in rows.items()))


def _form(environ: Mapping[str, Any], body: bytes) -> dict[str, str]:
    """The parameters of the query protocols; of JSON ones the action, and lists as the query protocols write them."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if not target and "x-www-form-urlencoded" not in environ.get("CONTENT_TYPE", ""):
        return {}
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
    query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
    url = f"http://{environ['HTTP_HOST']}{environ.get('PATH_INFO') or '/'}{query}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, data=body, headers=headers)
    request.context["timestamp"] = environ["HTTP_X_AMZ_DATE"]
    region, service = _scope(environ)
    auth = SigV4Auth(Credentials(key, me.secret, me.token or None), service, region)
    return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


def _header(environ: Mapping[str, Any], name: str) -> str:
    plain = name.upper().replace("-", "_")
    return environ.get(f"HTTP_{plain}") or environ.get(plain, "")


def _refusal(service: str, refusal: Refused) -> Response:
    said = refusal.message.replace("&", "&amp;").replace("<", "&lt;")
    error = f"<Code>{refusal.code}</Code><Message>{said}</Message>"
    if service == "scheduler":
        text, kind = json.dumps({"Message": refusal.message}), {"x-amzn-ErrorType": refusal.code}
        return Response(text, refusal.status, kind, content_type="application/json")
    if service == "ssm":
        text = json.dumps({"__type": refusal.code, "message": refusal.message})
        return Response(text, refusal.status, content_type="application/x-amz-json-1.1")
    if service == "ec2":
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
    else:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>0</RequestId></ErrorResponse>"
    return Response(text, refusal.status, content_type="text/xml")


def _denial(service: str) -> str:
    return "AccessDeniedException" if service in ("ssm", "scheduler") else "AccessDenied"
