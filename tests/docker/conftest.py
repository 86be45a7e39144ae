"""A real Docker engine for the whole run, and sessions on it: the real agent, with a builder that has the image already."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker import agent
from providers import processes
from providers.base import Boot, Connection, Instance, InstanceState, Order, Resources, Tag
from providers.contract import TOKEN, new_id
from providers.local import LocalProvider
from tests.conftest import wanted
from tests.docker import images
from tests.providers.little_broker import LittleBroker
from tests.servers import docker
from tests.waiting import until

BUILDER = Path(__file__).with_name("tiny_builder.py")
SCREENSHOTS = os.environ.get("ANYBINDER_SCREENSHOTS") == "1"  # read before such settings are cleared
ENGINE_SECONDS = 60  # the engine shares two cores with the tests


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.Engine]:
    """The engine; its `base_image` is made on the first run of a clone."""
    wanted(docker.NEED)
    with docker.running() as started:
        yield started


@pytest.fixture(scope="session")
def jupyter(engine: docker.Engine) -> str:
    return images.jupyter(engine)


@pytest.fixture(scope="session")
def app(engine: docker.Engine) -> str:
    return images.app(engine)


@pytest.fixture
def configuration(engine: docker.Engine) -> Iterator[dict[str, str]]:
    """Of a backend in containers, with folders of its own."""
    folder = Path(tempfile.mkdtemp(prefix="abd-", dir="/tmp"))  # short: a socket's path may have at most 107 bytes
    places = {name: str(folder / name) for name in ("home", "runtime", "cache")}
    yield {
        **places,
        "engine": "docker",
        "engine_url": engine.url,
        "engine_config": str(engine.config),
        "memory_mb": "400",
    }
    shutil.rmtree(folder)


class Broker(LittleBroker):
    """One that says what the session shall be told."""

    def enrol(self, asked: dict[str, Any], bearer: str) -> dict[str, Any]:
        answer = super().enrol(asked, bearer)
        answer["spec"] |= {"env": {"BINDER_REQUEST": "v2/gh/o/r/main", "JUPYTER_TOKEN": "not this one"}}
        return answer


class Session:
    """A launch on the engine, from its order to its end."""

    def __init__(self, engine: docker.Engine, provider: LocalProvider, broker: Broker, image: str, asked: Resources):
        self.engine, self.provider, self.broker = engine, provider, broker
        self.credential = provider.sign_in(Connection(kind="none"), None)
        order_id = new_id()
        offer = provider.offers(self.credential, asked)[0]
        tag = Tag(
            broker="b1",
            launch="l1",
            order=order_id,
            until=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1),
        )
        builder = (sys.executable, str(BUILDER), image)
        boot = Boot(user_data="", config=broker.config(order_id, TOKEN), agent=agent.__file__, builder=builder)
        self.order = Order(id=order_id, offer=offer, tag=tag, boot=boot)
        provider.provision(self.credential, self.order)

    @property
    def container(self) -> str:
        return f"anybinder-{self.order.id}"

    @property
    def runtime(self) -> Path:
        return Path(self.provider.configuration["runtime"]) / self.order.id

    @property
    def server(self) -> str:
        return self.broker.status.get("server", "")

    def up(self) -> Session:
        """Waits until its server answers the agent."""
        until(lambda: self.server == "up" or self.failure, seconds=ENGINE_SECONDS, what=f"it is up: {self.said}")
        assert not self.failure, self.failure
        return self

    @property
    def said(self) -> str:
        return "\n".join(event["message"] for event in self.broker.events)

    @property
    def failure(self) -> str:
        return next((event["message"] for event in self.broker.events if event["phase"] == "failed"), "")

    def look(self) -> Instance:
        return self.provider.describe(self.credential, self.order.id)

    def facts(self) -> dict[str, Any]:
        return json.loads(self.engine.docker("inspect", self.container))[0]

    def inside(self, command: str, *, check: bool = False) -> str:
        """What a shell in the container says to this."""
        return self.engine.docker("exec", self.container, "sh", "-c", command, check=check)

    def get(self, path: str, *words: str) -> str:
        """What its server answers, asked from where the agent asks, by a program of its own."""
        target = json.loads((self.runtime / "target").read_text())
        host = "{}:{}".format(*target["tcp"]) if "tcp" in target else "session"
        way = ["--unix-socket", target["unix"]] if Path(target["unix"]).exists() else []
        asked = ["curl", "--silent", "--show-error", "--max-time", "10", *way, *words, f"http://{host}{path}"]
        ended = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return ended.stdout

    def processes(self) -> dict[str, psutil.Process]:
        """Its guardian, its worker and its runner."""
        marked = processes.marked(self.order.id)
        guardian = psutil.Process(int((Path(self.provider.configuration["home"]) / self.order.id / "pid").read_text()))
        runner = next(each for each in marked if "--serve" in each.cmdline())
        return {"guardian": guardian, "worker": guardian.children()[0], "runner": runner}

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once."""
        found = self.processes()
        for name in names:
            os.kill(found[name].pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """Containers and processes of its order."""
        listed = self.engine.docker(
            "ps", "--all", "--quiet", "--filter", f"label=anybinder-order={self.order.id}"
        ).split()  # fmt: skip
        return listed + [str(each.pid) for each in processes.marked(self.order.id)]

    def end(self) -> None:
        self.provider.terminate(self.credential, self.order.id, self.order.id)
        until(lambda: self.look().state is InstanceState.GONE, seconds=ENGINE_SECONDS, what="it is gone")
        assert self.left() == []


@pytest.fixture
def session(engine: docker.Engine, configuration: dict[str, str]) -> Iterator[Callable[..., Session]]:
    """Begins sessions: `session(image, network="open", memory_mb=300)`. All are ended with the test."""
    begun: list[Session] = []
    brokers: list[Broker] = []

    def begin(image: str, *, cpu: float | None = None, memory_mb: int | None = None, **settings: str) -> Session:
        broker = Broker().__enter__()
        brokers.append(broker)
        provider = LocalProvider(configuration | settings)
        begun.append(Session(engine, provider, broker, image, Resources(cpu=cpu, memory_mb=memory_mb)))
        return begun[-1]

    yield begin
    for each in begun:
        each.end()
    for broker in brokers:
        broker.__exit__()
