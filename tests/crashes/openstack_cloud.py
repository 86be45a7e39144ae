"""A real OpenStack for the schedules: one bed for all lanes, a gate for each of them, a project for each schedule.

To a world an `OpenStackCloud` looks like `FakeCloud`. A fault's call is one of `REQUESTS`, or `machine`, or `project`. Nova's
machines run nothing by themselves: for each that is ACTIVE the real agent is started, as the other clouds do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.bootstrap import AGENT
from providers import processes
from providers.fake.machine import Machine
from providers.openstack import dead_men, guides, labels, needs
from tests.doubles import openstack_machines
from tests.doubles.openstack_gate import Answer, Fault, OpenStackGate
from tests.doubles.openstack_machines import OpenStackMachines
from tests.servers.openstack import bed, configuration, seed
from tests.servers.openstack.bed import SERVICES, Cloud

TOLD = re.compile(r"^ *(\{.*\})$", re.MULTILINE)  # the one line of user data that the agent's boot configuration is
REQUESTS = {
    "sign_in": ("identity", "POST", r"/auth/tokens|/OS-FEDERATION/.*"),
    "sizes": ("compute", "GET", r"/flavors/detail"),
    "claim": ("image", "POST", r"/images"),
    "claims": ("image", "GET", r"/images"),
    "say": ("image", "PATCH", r"/images/[^/]+"),
    "give_back": ("image", "DELETE", r"/images/[^/]+"),
    "firewall": ("network", "POST", r"/security-groups"),
    "firewalls": ("network", "GET", r"/security-groups"),
    "no_firewall": ("network", "DELETE", r"/security-groups/[^/]+"),
    "card": ("network", "POST", r"/ports"),
    "address": ("network", "POST", r"/floatingips"),
    "no_card": ("network", "DELETE", r"/ports/[^/]+"),
    "no_address": ("network", "DELETE", r"/floatingips/[^/]+"),
    "buy": ("compute", "POST", r"/servers"),
    "machines": ("compute", "GET", r"/servers/detail"),
    "delete": ("compute", "DELETE", r"/servers/[^/]+"),
}
REFUSED = {
    "refused": (401, {"error": {"code": 401, "title": "Unauthorized",
                                "message": "The request you have made requires authentication."}}),
    "forbidden": (403, {"forbidden": {"code": 403, "message": "Policy doesn't allow this to be performed."}}),
}  # fmt: skip
"""What Keystone and the others answer, arranged at the gate: the bed's own policy is everybody's."""
LIMITS = {"instances": 30, "cores": 200_000, "ram": 999_999}
TOO_BIG = "m3.toobig"
SIGNED_IN_SECONDS = 1200  # the operator's token lives for an hour


class LaneGate(OpenStackGate):
    """One lane's way to a bed that others use too: what signs in here is told that all services are here."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        super().__init__()
        self.no_room = 0
        """How many purchases from now on are of a size that no host has."""
        self.hide_seconds = 0.0
        """New machines are not listed for so long."""
        self.too_big = ""
        self.delivered_twice: set[str] = set()
        """Orders whose creating call arrived twice: Nova then makes two machines, and whoever looks deletes the second."""
        self.on_their_way = 0
        self._count = threading.Lock()
        self.roots = {
            f"http://127.0.0.1:{ports[kind]}".encode(): root.encode() for kind, root in self.in_front_of(ports).items()
        }

    @property
    def url(self) -> str:
        return f"{next(iter(self.roots.values())).decode()}/v3"  # Keystone's is the first

    def forget(self) -> None:
        self.clear()
        self.calls, self.no_room, self.hide_seconds, self.delivered_twice = [], 0, 0.0, set()

    def answered(
        self, service: str, port: int, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer | None:
        buys = (service, method) == ("compute", "POST") and target.endswith("/servers")
        if buys and self.no_room > 0:
            self.no_room -= 1
            told = json.loads(body)
            body = json.dumps({"server": {**told["server"], "flavorRef": self.too_big}}).encode()
        with self._counted():
            answer = super().answered(service, port, method, target, headers, body)
        if buys and self.calls[-1].fault == "duplicate":
            self.delivered_twice.add(labels.order_of(json.loads(body)["server"]["name"]))
        if answer is None:
            return None
        if service == "identity":
            return replace(answer, body=self._all_here(answer.body))
        if self.hide_seconds and (service, method) == ("compute", "GET") and "/servers/detail" in target:
            return self._without_the_new(answer)
        return answer

    def _through(
        self, fault: Fault | None, forward: Callable[[dict[str, str]], Answer], headers: dict[str, str]
    ) -> Answer | None:
        if fault is None or fault.name not in REFUSED:
            return super()._through(fault, forward, headers)
        status, told = REFUSED[fault.name]
        return Answer(status=status, headers=(("Content-Type", "application/json"),), body=json.dumps(told).encode())

    def _all_here(self, body: bytes) -> bytes:
        """With our addresses in the catalogue, in place of the services' own."""
        for direct, ours in self.roots.items():
            body = body.replace(direct, ours)
        return body

    def _without_the_new(self, answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        told: dict[str, Any] = json.loads(answer.body)
        since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=self.hide_seconds)
        shown = [each for each in told["servers"] if dt.datetime.fromisoformat(each["created"]) < since]
        return replace(answer, body=json.dumps({**told, "servers": shown}).encode())

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count:
            self.on_their_way += 1
        try:
            yield
        finally:
            with self._count:
                self.on_their_way -= 1


class Campus:
    """The bed, and what is seen of its machines, for all lanes."""

    def __init__(self, cloud: Cloud) -> None:
        self.bed = cloud
        self.lock = threading.Lock()
        """For what the operators do that two must not do at once."""
        self.numbers = itertools.count(1)
        self.clouds: dict[str, OpenStackCloud] = {}
        """By their projects."""
        self.machines = OpenStackMachines(cloud, started=self._started, deleted=self._deleted)
        self._signed_in = time.monotonic()

    def __enter__(self) -> Campus:
        self.machines.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.machines.__exit__()

    def cloud(self) -> OpenStackCloud:
        """One lane's."""
        return OpenStackCloud(self)

    def stay_signed_in(self) -> None:
        with self.lock:
            if time.monotonic() - self._signed_in > SIGNED_IN_SECONDS:
                self.bed.begin()
                self._signed_in = time.monotonic()

    def _started(self, machine: openstack_machines.Machine) -> None:
        if cloud := self.clouds.get(machine.project):
            cloud.boot(machine)

    def _deleted(self, machine: openstack_machines.Machine) -> None:
        if cloud := self.clouds.get(machine.project):
            cloud.cut_power(machine.id)


@contextlib.contextmanager
def running() -> Iterator[Campus]:
    """Half a minute, once its state is saved."""
    with bed.running() as cloud, Campus(cloud) as campus:
        yield campus


class OpenStackCloud:
    """One lane's: safe to use from several threads, as `FakeCloud` is."""

    def __init__(self, campus: Campus) -> None:
        self.campus, self.bed = campus, campus.bed
        self.folder = Path(tempfile.mkdtemp(prefix="abo-", dir="/tmp"))
        self.gate = LaneGate({kind: self.bed.ports[kind] for kind in SERVICES.values()})
        sizes = self.bed.ask("GET", "/flavors", of="compute").json()["flavors"]
        self.gate.too_big = next(each["id"] for each in sizes if each["name"] == TOO_BIG)
        self.gate.revoked = self._revoked
        self.project, self.router = "", ""
        self._theirs: set[str] = set()
        """Ports that the project has without us."""
        self._machines: dict[str, Machine] = {}
        self._met: list[dict[str, Any]] = []

    # As `FakeCloud` has it.

    def reset(self) -> None:
        """A project in which nothing was ever bought, with a user and a network."""
        self._end()
        self.campus.stay_signed_in()
        self.gate.forget()
        self._met = []
        self.number = next(self.campus.numbers)
        with self.campus.lock:  # of two first requests at once Neutron refuses one: it is reading its policy
            self._open_a_project()
        self.campus.clouds[self.project] = self

    def _open_a_project(self) -> None:
        self.user, self.project = self.bed.new_user("ada"), self.bed.new_project("crashes")
        self.bed.grant(self.user, self.project, "member")
        self.bed.quota(self.project, **LIMITS)
        network = self._make("network", name="own")
        self.subnet = self._make("subnet", network_id=network, ip_version=4, cidr="192.168.0.0/24")

    def _make(self, what: str, **told: Any) -> str:
        """The id of something that the project has in Neutron from now on."""
        made = self.bed.ask("POST", f"/v2.0/{what}s", {what: {"project_id": self.project, **told}}, of="network")
        return str(made.json()[what]["id"])

    @property
    def configuration(self) -> dict[str, str]:
        known = {"auth_url": self.gate.url, "region": configuration.REGION, "identity_provider": self._known_as}
        return {**known, "floating_network": seed.EXTERNAL} if self.router else known

    def typed(self, at: Any, provider: Any, kind: str) -> dict[str, str]:
        """What a person types: the project that trusts this broker, or the ids and secrets of two narrow credentials."""
        if kind == "oidc":
            self._trust(at)
            return {"project": self.project}
        launch, reap = (self._credential(purpose) for purpose in ("launch", "reap"))
        return {"id": launch.id, "secret": f"{launch.secret} {reap.secret}", "reap_id": reap.id}

    def options(self, **options: Any) -> None:
        """Those that it has: new machines are not listed, and nothing dials out without an address of its own."""
        self.gate.hide_seconds = options.get("list_seconds", 0)
        if options.get("addresses"):
            outside = self.bed.ask("GET", f"/v2.0/networks?name={seed.EXTERNAL}", of="network").json()["networks"][0]
            self.router = self._make("router", external_gateway_info={"network_id": outside["id"]})
            self._join("add")
        listed = self.bed.ask("GET", f"/v2.0/ports?project_id={self.project}", of="network").json()["ports"]
        self._theirs = {each["id"] for each in listed}  # its router's

    def _join(self, verb: str) -> None:
        path = f"/v2.0/routers/{self.router}/{verb}_router_interface"
        self.bed.ask("PUT", path, {"subnet_id": self.subnet}, of="network")

    def fault(self, call: str, name: str, *, times: int = 1, **settings: Any) -> None:
        if call == "machine":
            self._met += [{"name": name, **settings}] * times
        elif call == "project":
            self._limit(name, **settings)
        elif name == "no_room":
            self.gate.no_room += times
        else:
            self.gate.fault(name, *REQUESTS[call], times=times, **settings)

    def advance(self, seconds: float) -> float:
        raise AssertionError("The clock of real services is this computer's.")

    def instances(self) -> list[dict[str, Any]]:
        """The machines that run an agent."""
        return [{"id": number, "pid": machine.pid} for number, machine in list(self._machines.items())]

    def everything(self) -> list[dict[str, Any]]:
        """All that the project has, tagged or not, as the services tell their operators."""
        self.campus.machines.look()
        return [{"id": name, "state": "there"} for name in self._left()]

    def calls(self) -> list[dict[str, Any]]:
        """Those that are on their way."""
        return [{"status": None}] * self.gate.on_their_way

    def bill(self) -> list[dict[str, Any]]:
        """Each machine that there ever was, by Nova's own word; and what it promised and never made, for it was deleted first."""
        there = self.bed.machines(project_id=self.project)
        gone = self.bed.machines(project_id=self.project, deleted="true")
        made = sorted(({each["id"]: each for each in (*there, *gone)}).values(), key=lambda each: each["created"])
        firsts: dict[str, str] = {}
        billed = [self._billed(each, firsts.setdefault(labels.order_of(each["name"]), each["id"])) for each in made]
        known = {each["id"] for each in made}
        return [*billed, *(each for each in self._promised() if each["id"] not in known)]

    def _promised(self) -> Iterator[dict[str, Any]]:
        for call in list(self.gate.calls):
            if (call.service, call.method, call.path, call.status) == ("compute", "POST", "/servers", 202):
                order = labels.order_of(json.loads(call.body)["server"]["name"])
                kind = "twin" if order in self.gate.delivered_twice else "machine"
                number = json.loads(call.answer)["server"]["id"]
                yield {"id": number, "kind": kind, "order": order, "came": 1.0, "went": 1.0}  # long ago

    def stop(self) -> None:
        self._end()
        self.gate.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> OpenStackCloud:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The account.

    @property
    def _known_as(self) -> str:
        return f"anybinder-{self.number}"

    def _credential(self, purpose: str) -> Any:
        """As the guide has it: by the access rules of this purpose. Keystone reads 72 bytes of a secret at most."""
        rules = needs.rules(purpose=needs.Purpose(purpose), addresses=bool(self.router))
        wanted = {"access_rules": rules, "roles": [{"name": "member"}]}
        ends = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%S")
        told = {**wanted, "expires_at": ends, "secret": secrets.token_urlsafe(32)}
        return self.bed.application_credential(self.user, self.project, **told)

    def _trust(self, at: Any) -> None:
        """What the operators do: each of the two subjects is somebody in the project."""
        from broker import identity, people

        told = identity.trust(at, identity.subject(at, people.LOCAL.id, "backend:cloud"))
        group = self.bed.new_group("people", self.project, "member")
        rules = [guides.rule(subject, group) for subject in (told.launch_subject, told.reap_subject)]
        with self.campus.lock:
            self.bed.trust(self._known_as, told.issuer, self.gate.url, rules)

    def _limit(self, name: str, **limits: int) -> None:
        if name == "quota":
            self.bed.quota(self.project, **{**LIMITS, **limits})
        else:
            self.bed.ask("PUT", f"/v2.0/quotas/{self.project}", {"quota": limits}, of="network")

    def _revoked(self) -> str:
        """A token of this project's that Keystone takes no more."""
        token = self.bed.token(self.user, project_id=self.project)
        self.bed.client.delete("/auth/tokens", headers={"X-Auth-Token": self.bed.admin, "X-Subject-Token": token})
        return token

    # What there is.

    def _left(self) -> list[str]:
        project = self.project
        found = [f"server {each['id']}" for each in self.bed.machines(project_id=project)]
        for kind in ("ports", "floatingips", "security-groups"):
            listed = self.bed.ask("GET", f"/v2.0/{kind}?project_id={project}", of="network").json()
            named = {each["id"]: each.get("name", "") for each in listed[kind.replace("-", "_")]}
            found += [
                f"{kind} {id} {name}" for id, name in named.items() if id not in self._theirs and name != "default"
            ]
        claims = self.bed.ask("GET", f"/v2/images?owner={project}&visibility=private", of="image").json()["images"]
        keys = self.bed.ask("GET", f"/os-keypairs?user_id={self.user.id}", of="compute").json()["keypairs"]
        return [*found, *(f"claim {each['id']}" for each in claims), *(f"key {each}" for each in keys), *self._loose()]

    def _loose(self) -> Iterator[str]:
        """What machines were given to delete themselves ends by itself, soon, and can do nothing else: all other is left."""
        made = {each.path for each in self.gate.calls if each.path.endswith("/application_credentials")}
        for path in made:
            for each in self.bed.ask("GET", path).json()["application_credentials"]:
                ends, rules = each["expires_at"], each.get("access_rules") or []
                narrow = len(rules) == 1 and rules[0]["method"] == "DELETE" and not each["unrestricted"]
                if not (narrow and ends and self._is_soon(ends)):
                    yield f"application credential {each['name']}"

    def _is_soon(self, ends: str) -> bool:
        """Between now and two hours after the longest that a schedule's launch may live, by a clock that may have jumped."""
        left = dt.datetime.fromisoformat(ends).replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
        return dt.timedelta(0) < left < dead_men.GRACE + dt.timedelta(hours=30)

    def _billed(self, told: Mapping[str, Any], first: str) -> dict[str, Any]:
        order = labels.order_of(told["name"])
        twin = told["id"] != first and order in self.gate.delivered_twice
        return {
            "id": told["id"],
            "kind": "twin" if twin else "machine",
            "order": order,
            "came": instant(told["created"]),
            "went": self._ended(told) if told["status"] == "DELETED" else None,
        }

    def _ended(self, told: Mapping[str, Any]) -> float:
        """What was deleted before it ran is listed no more from then on, whenever Nova's host hears of it."""
        ran = told["OS-SRV-USG:launched_at"] and told["OS-SRV-USG:terminated_at"]
        return instant(ran or told["created"])

    # Its machines.

    def boot(self, born: openstack_machines.Machine) -> None:
        """User data in place of cloud-init: what it tells the agent, told to the agent."""
        met = self._met.pop(0) if self._met else {"name": ""}
        if met["name"] == "never_dials":
            return
        told = json.loads(TOLD.search(born.user_data)[1])  # type: ignore[index]
        config = {name: told[name] for name in ("broker", "order", "token", "until", "silence_seconds")}
        failing = (f"--fail={met['message']}",) if met["name"] == "build_fails" else ()
        machine = self._machines[born.id] = Machine(born.id, self.folder)
        machine.boot({"agent": str(AGENT), "config": config, "builder": None}, failing, lambda _: self._off(born.id))
        if met["name"] in ("dies", "taken_away"):
            act = self._off if met["name"] == "dies" else self._take_away
            timer = threading.Timer(met["seconds"], act, [born.id])
            timer.daemon = True
            timer.start()

    def cut_power(self, number: str) -> None:
        if machine := self._machines.pop(number, None):
            machine.erase()

    def _off(self, number: str) -> None:
        """Its system goes off; Nova bills it on."""
        if machine := self._machines.get(number):
            machine.cut_power()
        with contextlib.suppress(AssertionError):  # it is being deleted
            self.bed.power_off(number)

    def _take_away(self, number: str) -> None:
        """Somebody deletes it on the dashboard."""
        with contextlib.suppress(AssertionError):
            self.bed.ask("DELETE", f"/servers/{number}", of="compute")

    def _end(self) -> None:
        """What a broken broker has left goes too: the bed's one host is everybody's."""
        if not self.project:
            return
        self.campus.clouds.pop(self.project, None)
        for number in list(self._machines):
            self.cut_power(number)
        for process, mark in processes.everyone_marked():
            if processes.was_told(process, str(self.folder)):
                processes.kill(mark, process)
        for each in self.bed.machines(project_id=self.project):
            self._take_away(each["id"])
        if self.router:
            with contextlib.suppress(AssertionError):  # an address is left
                self._join("remove")
                self.bed.ask("DELETE", f"/v2.0/routers/{self.router}", of="network")
        self.project, self.router = "", ""


def instant(told: str) -> float:
    """Seconds since 1970 of one of Nova's instants."""
    found = dt.datetime.fromisoformat(told)
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
