"""This computer: sessions run as plain processes, as the person who runs the broker, or in containers.

The first is running a stranger's code as yourself: it can read your files and use your network. The driver keeps other
users out (folders 0700, unix sockets, no secret in a command line) and gives everything back at the end; whom to
offer it to is the broker's to enforce (`confined`). With an `engine`, builds and sessions run in containers of Docker or
Podman; the agent runs here all the same, as our own code, and what it starts is a container. A container outlives who
made it: it carries its order's labels, is listed as a part of the order, and is removed with it.

The instance is the agent process, which owns what it starts. All that is known about it is in files, so that any
worker, after any crash, finds what another has begun:

    <home>/<order>/tag.json      in place before anything starts: the folder appears with it, in one rename
    <home>/<order>/pid           made once, by the agent, as its first act: two starts make one agent
    <home>/<order>/agent.lock    held by the agent for life: how we know that it lives, as a number alone may be reused
    <home>/<order>/terminating   when the end was first asked for
    <home>/.ended/<order>        what was ended is never started again by a call that comes late
    <home>/.locks/<order>        one worker at a time
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from providers import processes
from providers.base import (
    NOBODY,
    Connection,
    Credential,
    Instance,
    InstanceState,
    Keeps,
    Offer,
    Order,
    Provider,
    Resources,
    Setting,
)
from providers.errors import BadCredential, InvalidOrder, NoCapacity, ProviderUnavailable
from providers.local import engine
from providers.local.containers import Container
from providers.local.place import Place
from providers.sentences import say

ARCHITECTURES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
OFFER = "this-computer"
SOCKET_BYTES = 107  # longest path of a unix socket on Linux (103 on macOS)
ORDER_ID = re.compile(r"[a-z0-9]{1,32}")


@contextlib.contextmanager
def _trouble_is_unavailable() -> Iterator[None]:
    """A full disk, a folder taken away, no process to be had: what happened is not known, so come back later."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as trouble:
        raise ProviderUnavailable(f"This computer is in trouble: {trouble}.") from trouble


class LocalProvider(Provider):
    """Runs sessions here, as processes or in containers. Safe to use from many threads and processes at once."""

    title = say("This computer")
    kinds = (NOBODY,)
    on_this_computer = True
    settings = (
        Setting(name="home", help="Folder that instances live in. Made with mode 0700.", required=True),
        Setting(name="runtime", help="Short folder for unix sockets. Empty: inside the home folder."),
        Setting(name="cache", help="Folder of built environments. Empty: inside the home folder."),
        Setting(
            name="memory_mb",
            help="Memory of a session: a process's limit where control groups allow one (empty: none), a container's where "
            "its launch asks for none (empty: 2048).",
        ),
        Setting(name="memory_floor_mb", help="No session is started with less memory than this free.", default="256"),
        Setting(name="local_tcp_servers", help="Let a repository serve on a TCP port.", default="false"),
        Setting(name="python_downloads", help="Let uv download a Python that this computer lacks.", default="false"),
        *engine.SETTINGS,
    )

    def __init__(self, configuration: Mapping[str, str]) -> None:
        super().__init__(configuration)
        if not self.configuration.get("home"):
            raise InvalidOrder("The backend needs a home folder that instances can live in.")
        self._home = Path(self.configuration["home"]).absolute()
        self._runtime = Path(self.configuration.get("runtime") or self._home / ".run").absolute()
        self._cache = Path(self.configuration.get("cache") or self._home / ".cache").absolute()
        self._memory_mb = self._number("memory_mb")
        self._floor_mb = self._number("memory_floor_mb") or 0
        self._engine = engine.configured(self.configuration)
        if len(os.fsencode(self._runtime / ("o" * 32) / "s.sock")) > SOCKET_BYTES:
            raise InvalidOrder(f"{self._runtime} is too long a path for unix sockets. Choose a shorter runtime folder.")

    def _number(self, name: str) -> int | None:
        default = next(setting.default for setting in self.settings if setting.name == name)
        text = self.configuration.get(name) or default
        if text is None:
            return None
        if not text.isdigit():
            raise InvalidOrder(f"{name} must be a whole number, not {text!r}.")
        return int(text)

    def _is_on(self, name: str) -> bool:
        return self.configuration.get(name, "false").lower() in ("true", "yes", "1", "on")

    @property
    def confined(self) -> bool:
        """True in containers, unless they or their builds may use this computer's network."""
        return self._engine is not None and self._engine.confined

    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:  # noqa: ARG002
        """Nothing to trade: whoever runs this process may use this computer."""
        if connection.kind != NOBODY.name:
            raise BadCredential(f"This computer takes no connection of the kind {connection.kind!r}.")
        return Credential(who=f"uid {os.getuid()} on this computer")

    def offers(self, credential: Credential, resources: Resources) -> list[Offer]:  # noqa: ARG002
        """This computer, where it is large enough: all of it to a process, a container of just the size asked."""
        if self._engine:
            self._engine.containers.check()
        has = self._engine.size(resources) if self._engine else self._whole(resources)
        if has is None or resources.gpu or (resources.disk_gb or 0) > self._free_disk_gb():
            return []
        seconds = 3 if self._engine else 1
        return [
            Offer(
                id=OFFER,
                title=self.title,
                resources=has,
                price_per_hour=Decimal(0),
                price_source="it is here already: nothing is bought",
                usual_seconds=seconds,
                architecture=ARCHITECTURES.get(platform.machine(), ""),
            )
        ]

    def _whole(self, asked: Resources) -> Resources | None:
        cpu = float(psutil.cpu_count() or 1)
        memory_mb = self._memory_mb or psutil.virtual_memory().total // 2**20
        too_large = (asked.cpu or 0) > cpu or (asked.memory_mb or 0) > memory_mb
        return None if too_large else Resources(cpu=cpu, memory_mb=memory_mb)

    def _free_disk_gb(self) -> int:
        folder = next(place for place in (self._home, *self._home.parents) if place.is_dir())
        return shutil.disk_usage(folder).free // 2**30

    @_trouble_is_unavailable()
    def provision(self, credential: Credential, order: Order) -> Instance:  # noqa: ARG002
        """Start the agent. Returns before it has run its first line."""
        place = self._place(order.id)
        if order.offer.id != OFFER:
            raise InvalidOrder(f"This computer has no offer {order.offer.id!r}.")
        if self._engine:
            self._engine.refuse_without_fence()
            self._engine.containers.check()
        with place.locked():
            if place.has_ended() or place.was_started():
                return self._with_containers(place.instance(order.tag))
            if not place.folder.exists():
                self._refuse_when_full()
                place.make(order.tag)
            place.start(order, self._boot(order, place))
            return place.instance()

    def _refuse_when_full(self) -> None:
        free_mb = psutil.virtual_memory().available // 2**20
        if free_mb < self._floor_mb:
            raise NoCapacity(f"This computer has {free_mb} MB of memory free; a session needs {self._floor_mb} MB.")

    def _boot(self, order: Order, place: Place) -> dict[str, Any]:
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        cgroups = place.make_cgroups(None if self._engine else self._memory_mb)
        return {
            **order.boot.config,
            "home": str(place.folder),
            "runtime": str(place.runtime),
            "cache": str(self._cache),
            "builder": list(order.boot.builder),
            "tcp_servers": self._is_on("local_tcp_servers"),
            "python_downloads": self._is_on("python_downloads"),
            "cgroup": cgroups,
            "rlimits": self._rlimits(bool(cgroups)),
            "engine": self._engine.told(order) if self._engine else None,
        }

    def _rlimits(self, grouped: bool) -> dict[str, int]:
        """For each process. A core dump would lay secrets into the folder; memory is better limited by groups."""
        limits = {"RLIMIT_CORE": 0}
        if self._memory_mb and not grouped and not self._engine:
            limits["RLIMIT_DATA"] = self._memory_mb * 2**20
        return limits

    @_trouble_is_unavailable()
    def describe(self, credential: Credential, instance_id: str) -> Instance:  # noqa: ARG002
        """How it is now; an instance that is being ended is helped on its way."""
        if not ORDER_ID.fullmatch(instance_id):
            return Instance(id=instance_id, tag=None, state=InstanceState.GONE)
        return self._look(self._place(instance_id))

    def _look(self, place: Place, containers: list[Container] | None = None) -> Instance:
        """How it is now, after a hand with its end. `containers`: all of this order, where they are known already."""
        place.help_ending()
        if self._engine and place.may_be_cleared() and (containers is None or containers):
            self._engine.containers.remove(place.order_id)
            containers = None
        return self._with_containers(place.instance(), containers)

    def _with_containers(self, instance: Instance, containers: list[Container] | None = None) -> Instance:
        """The same with what the engine has of this order: while that is there, it is not gone."""
        if not self._engine:
            return instance
        found = self._engine.containers.of(instance.id) if containers is None else containers
        if not found:
            return instance
        whole = replace(instance, parts=(*instance.parts, *(f"container {each.name}" for each in found)))
        if instance.state is not InstanceState.GONE:
            return whole
        tag = instance.tag or found[0].tag
        return replace(whole, tag=tag, state=InstanceState.STOPPING, detail="Its container is still there.")

    @_trouble_is_unavailable()
    def terminate(self, credential: Credential, instance_id: str | None, order_id: str) -> None:  # noqa: ARG002
        """Ask the agent to end; `describe` and `instances` kill what is left after a grace."""
        if not ORDER_ID.fullmatch(order_id):
            return
        place = self._place(order_id)
        with place.locked():
            place.ask_to_end()
            place.end()
        # The engine is asked in any case: an end that it cannot take part in is one to come back for.
        if self._engine and self._engine.containers.of(order_id) and place.may_be_cleared():
            self._engine.containers.remove(order_id)

    @_trouble_is_unavailable()
    def instances(self, credential: Credential, broker: str) -> list[Instance]:  # noqa: ARG002
        """Every folder, every marked process and every labelled container whose folder is gone."""
        containers = self._engine.containers.everything() if self._engine else []
        theirs = {each.order for each in containers if ORDER_ID.fullmatch(each.order)}
        found = []
        for order_id in sorted(_names(self._home) | self._orders_running() | theirs):
            ours = [each for each in containers if each.order == order_id]
            found.append(self._look(self._place(order_id), ours))
        self._forget_the_old()
        return [i for i in found if i.state is not InstanceState.GONE and i.tag and i.tag.broker == broker]

    def _orders_running(self) -> set[str]:
        return {mark for _, mark in processes.everyone_marked() if ORDER_ID.fullmatch(mark)}

    def _forget_the_old(self) -> None:
        for order_id in _names(self._home / ".ended"):
            self._place(order_id).forget_when_old()
        for order_id in _names(self._home / ".new"):
            self._place(order_id).forget_unfinished()

    def keeps(self) -> Keeps:
        """The cache, and the engine's images. Asks nobody."""
        engine = {"kind": self._engine.kind, "url": self._engine.url} if self._engine else None
        return Keeps(cache=self._cache, engine=engine)

    def logs(self, credential: Credential, instance_id: str) -> str:  # noqa: ARG002
        """The last 64 KiB of what the agent has written."""
        if not ORDER_ID.fullmatch(instance_id):
            return ""
        return self._place(instance_id).log()

    def _place(self, order_id: str) -> Place:
        if not ORDER_ID.fullmatch(order_id):
            raise InvalidOrder("An order's id has 1 to 32 lower-case letters and digits.")
        return Place(order_id=order_id, home=self._home, runtime=self._runtime / order_id)


def _names(folder: Path) -> set[str]:
    """What is in this folder and named like an order."""
    try:
        return {entry.name for entry in folder.iterdir() if ORDER_ID.fullmatch(entry.name)}
    except FileNotFoundError:
        return set()
