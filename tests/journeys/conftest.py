"""Brokers as people run them: in processes of their own, driven by the command line and over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets.sync.client

from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.waiting import until

COMMAND = (sys.executable, "-m", "broker.cli")
BUILD_SECONDS = 240  # a cold JupyterLab, on a slow index


class Broker:
    """One broker with a state folder of its own, in either size."""

    def __init__(self, home: Path, extra: dict[str, str]) -> None:
        self.home = home
        self.environment = {**os.environ, "ANYBINDER_HOME": str(home), **extra}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One of its processes. Its words go to a file in the state folder."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen([*COMMAND, *arguments], env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def wait(self) -> None:
        """Until it answers."""
        until(lambda: (self.home / "broker.json").exists(), seconds=60, what=self.log())
        self.run("list")

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """One command of the command line, to its end."""
        ended = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == code, f"{arguments} exited {ended.returncode}: {ended.stderr}\n{self.log()}"
        return ended

    def launch(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """`anybinder launch … --json`; its last line."""
        ended = self.run("launch", *arguments, "--json", code=code)
        return json.loads(ended.stdout.splitlines()[-1])

    @property
    def address(self) -> dict[str, Any]:
        return json.loads((self.home / "broker.json").read_text())

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The JSON interface, with the key of the state folder."""
        at = self.address
        headers = {"Authorization": f"Bearer {at['key']}", **options.pop("headers", {})}
        return httpx.request(method, f"http://{at['host']}:{at['port']}{path}", headers=headers, timeout=30, **options)

    def log(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-6000:]}" for path in sorted(self.home.glob("*.log")))

    def left(self) -> list[str]:
        """What still runs or lies about of any session."""
        folders = [path.name for path in (self.home / "instances").glob("*") if path.is_dir()]
        return [name for name in folders if not name.startswith((".", "ended"))]

    def kill(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
        process.send_signal(how)
        process.wait(20)
        self.processes.remove(process)

    def close(self) -> None:
        """Stop what was launched, then the broker."""
        if (self.home / "broker.json").exists() and self.processes:
            for one in json.loads(f"[{','.join(self.run('list', '--json').stdout.splitlines())}]"):
                if one["state"] != "stopped":
                    self.run("stop", one["id"])
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(20)


Start = Callable[..., Broker]


@pytest.fixture
def start_broker(home: Path) -> Iterator[Callable[..., Broker]]:
    """Embedded brokers: `anybinder up` with a port of its own."""
    with ExitStack() as stack:

        def start(**extra: str) -> Broker:
            broker = Broker(home, extra)
            stack.callback(broker.close)
            broker.start("up", "--no-browser", "--port", "0")
            broker.wait()
            return broker

        yield start


@pytest.fixture(scope="session")
def built_before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a broker that finds what brokers with them built before: for tests of what comes after a build."""
    cache = {"cache": str(tmp_path_factory.mktemp("built"))}
    local = {"name": "local", "provider": "local", "title": "This computer", "configuration": cache}
    return {"ANYBINDER_BACKENDS": json.dumps([local])}


@pytest.fixture(params=["embedded", "production"])
def either_size(request: pytest.FixtureRequest, home: Path) -> Iterator[Broker]:
    """The same broker on SQLite and threads, and on PostgreSQL, Redis and Celery."""
    if request.param == "embedded":
        broker = Broker(home, {})
        broker.start("up", "--no-browser", "--port", "0")
    else:
        postgres, redis = request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url")
        broker = Broker(home, {"ANYBINDER_DATABASE_URL": postgres, "ANYBINDER_REDIS_URL": redis})
        port = str(free_port())
        broker.environment["ANYBINDER_PORT"] = port
        broker.run("migrate")
        broker.start("worker")
        broker.start("serve")
    broker.wait()
    yield broker
    broker.close()


def free_port() -> int:
    from broker import settings

    return settings.free_port()


@pytest.fixture
def repos(tmp_path: Path) -> Iterator[tuple[str, Callable[[str, dict[str, Any]], str]]]:
    """A git server's address, and how to put a repository there."""
    root = tmp_path / "repos"
    root.mkdir()
    with GitServer(root) as server:
        yield server.url, lambda name, files: git_repos.make_repo(root, name, files)


def compute(ready: dict[str, Any], code: str) -> str:
    """What this code prints, run in a kernel of the session over its WebSocket, as a script would."""
    url, headers = ready["url"].rstrip("/"), {"Authorization": f"token {ready['token']}"}
    kernel = httpx.post(f"{url}/api/kernels", headers=headers, json={"name": "python3"}, timeout=30).raise_for_status()
    return talk(url, headers, kernel.json()["id"], code)


def talk(url: str, headers: dict[str, str], kernel: str, code: str) -> str:
    at = urlsplit(url)
    address = f"ws://{at.netloc}{at.path}/api/kernels/{kernel}/channels"
    message = {
        "header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex,
                   "version": "5.3", "date": ""},
        "parent_header": {}, "metadata": {}, "channel": "shell",
        "content": {"code": code, "silent": False, "store_history": False, "user_expressions": {},
                    "allow_stdin": False, "stop_on_error": True},
    }  # fmt: skip
    printed = ""
    with websockets.sync.client.connect(address, additional_headers=headers, proxy=None, max_size=None) as socket:
        socket.send(json.dumps(message))
        while True:
            said = json.loads(socket.recv(timeout=60))
            if said["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if said["msg_type"] == "stream":
                printed += said["content"]["text"]
            if said["msg_type"] == "error":
                printed += "\n".join(said["content"]["traceback"])
            if said["msg_type"] == "status" and said["content"]["execution_state"] == "idle":
                return printed
