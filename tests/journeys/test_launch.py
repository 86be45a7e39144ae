"""From a repository to a running session, and to nothing left."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.journeys.conftest import COMMAND, Broker, compute, talk
from tests.waiting import until

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]

NOTEBOOKS = {"requirements.txt": "six\n", "index.ipynb": "{}", "data.txt": "42"}
# An app that needs nothing installed beyond what every environment has.
PLAIN_APP = {
    "start": "#!/bin/sh\nexec python app.py\n",
    "app.py": (
        "import http.server, os, socketserver\n"
        "class App(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = b'hello from ' + self.path.encode()\n"
        "        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def address_string(self): return 'unix'\n"
        "class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass\n"
        "Server(os.environ['ANYBINDER_SOCKET'], App).serve_forever()\n"
    ),
}


def test_launch_compute_stop_nothing_left(either_size: Broker, repos: Repos) -> None:
    """The journey that both sizes pass."""
    url, make = repos
    commit = make("notebooks", NOTEBOOKS)
    ready = either_size.launch(f"{url}/notebooks", "--name", "first", "--path", "index.ipynb")
    assert ready["phase"] == "ready"
    assert compute(ready, "import six; print(open('data.txt').read(), six.__name__)") == "42 six\n"
    (listed,) = (json.loads(line) for line in either_size.run("list", "--json").stdout.splitlines())
    assert (listed["state"], listed["commit"], listed["name"]) == ("ready", commit, "first")
    assert "building" in either_size.run("logs", "first").stdout
    either_size.run("stop", "first")
    (listed,) = (json.loads(line) for line in either_size.run("list", "--json").stdout.splitlines())
    assert (listed["state"], listed["reason"]) == ("stopped", "asked")
    assert either_size.left() == []
    assert httpx.get(ready["url"], params={"token": ready["token"]}).status_code == 410


def test_one_command_runs_a_broker_for_as_long_as_the_launch_lives(home: Path, repos: Repos) -> None:
    url, make = repos
    make("app", PLAIN_APP)
    alone = Broker(home, {"ANYBINDER_PORT": "0"})
    ready = alone.launch(f"{url}/app")
    assert httpx.get(f"{ready['url']}x", params={"token": ready["token"]}).text == "hello from /x"
    broker = psutil.Process(alone.address["pid"])
    alone.run("stop", ready["launch"])
    until(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE, seconds=20, what=alone.log())
    assert alone.left() == []


def test_the_second_launch_of_a_commit_builds_nothing(start_broker: Callable[..., Broker], repos: Repos) -> None:
    broker, (url, make) = start_broker(), repos
    make("app", PLAIN_APP)
    broker.launch(f"{url}/app", "--name", "cold")
    broker.launch(f"{url}/app", "--name", "warm")
    cold, warm = broker.run("logs", "cold").stdout, broker.run("logs", "warm").stdout
    assert "Installing packages" in cold
    assert "Installing packages" not in warm
    assert "has been built before" in warm


def test_the_same_name_reconnects_or_says_what_changed(start_broker: Callable[..., Broker], repos: Repos) -> None:
    broker, (url, make) = start_broker(), repos
    make("app", PLAIN_APP)
    first = broker.launch(f"{url}/app", "--name", "mine")
    again = broker.launch(f"{url}/app", "--name", "mine")
    assert (again["launch"], again["url"]) == (first["launch"], first["url"])
    refused = broker.run("launch", f"{url}/app", "--name", "mine", "--path", "/other", "--json", code=1)
    assert "the path is unset there, /other here" in refused.stderr


def test_a_kernel_survives_the_brokers_death(start_broker: Callable[..., Broker], repos: Repos) -> None:
    broker, (url, make) = start_broker(), repos
    make("notebooks", NOTEBOOKS)
    ready = broker.launch(f"{url}/notebooks")
    assert compute(ready, "kept = 41; print('kept')") == "kept\n"
    headers = {"Authorization": f"token {ready['token']}"}
    (kernel,) = httpx.get(f"{ready['url']}api/kernels", headers=headers).json()
    port = broker.address["port"]
    broker.kill(broker.processes[0])
    broker.start("up", "--no-browser", "--port", str(port))
    until(lambda: reachable(ready["url"], headers), seconds=30, what=broker.log())
    assert talk(ready["url"].rstrip("/"), headers, kernel["id"], "print(kept + 1)") == "42\n"


def reachable(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(f"{url}api/status", headers=headers, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"environment.yml": "dependencies: [python]"}, "environment.yml"),
        ({"apt.txt": "gfortran"}, "apt.txt"),
        ({"Dockerfile": "FROM scratch"}, "Dockerfile"),
        ({"runtime.txt": "python-3.3"}, "3.3"),
        ({"requirements.txt": "no-such-package-anybinder-0\n"}, "no-such-package-anybinder-0"),
        ({"start": "#!/bin/sh\necho it broke >&2\nexit 3\n"}, "it broke"),
    ],
)
def test_what_cannot_run_fails_with_a_sentence_and_leaves_nothing(
    start_broker: Callable[..., Broker], repos: Repos, files: dict[str, Any], sentence: str
) -> None:
    broker, (url, make) = start_broker(), repos
    make("bad", files)
    failed = broker.launch(f"{url}/bad", "--name", "bad", code=1)
    assert failed["phase"] == "failed"
    assert sentence in failed["message"]
    until(lambda: "stopped" in broker.run("list").stdout, seconds=20, what=broker.log())
    assert broker.left() == []


@pytest.mark.parametrize(
    ("repo", "sentence"),
    [
        ("not a repo", "anybinder:"),
        ("ftp://example.org/x.git", "anybinder:"),
        ("http://127.0.0.1:9/none", "anybinder:"),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_starts(
    start_broker: Callable[..., Broker], repo: str, sentence: str
) -> None:
    broker = start_broker()
    refused = broker.run("launch", repo, "--json", code=1)
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert broker.run("list", "--json").stdout == ""


@pytest.mark.parametrize("which", ["guardian", "worker"])
def test_a_killed_agent_is_noticed_and_leaves_no_server(
    start_broker: Callable[..., Broker], repos: Repos, built_before: dict[str, str], which: str
) -> None:
    broker, (url, make) = start_broker(ANYBINDER_HEARTBEAT_SECONDS="0.5", **built_before), repos
    make("app", PLAIN_APP)
    ready = broker.launch(f"{url}/app", "--name", "app")
    agents = {one.pid: one for one in psutil.process_iter() if is_agent(one, broker.home)}
    (guardian,) = [one for one in agents.values() if one.ppid() not in agents]
    (worker,) = [one for one in agents.values() if one.ppid() in agents]
    family = [guardian, *guardian.children(recursive=True)]
    {"guardian": guardian, "worker": worker}[which].send_signal(signal.SIGKILL)
    until(lambda: "stopped" in broker.run("list").stdout, seconds=30, what=broker.log())
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert broker.left() == []
    assert httpx.get(ready["url"], params={"token": ready["token"]}).status_code == 410


def is_agent(process: psutil.Process, home: Path) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return any(word.endswith("agent.py") for word in line) and any(str(home) in word for word in line)


def test_a_command_that_talks_to_a_broker_starts_in_under_a_third_of_a_second(
    start_broker: Callable[..., Broker],
) -> None:
    """Counted in imports, not in seconds: what is slow to load is not loaded. (Typer itself looks for pydantic.)"""
    broker = start_broker()
    code = (
        "import sys; sys.argv = ['anybinder', 'list']\n"
        "from broker.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'fastapi', 'sqlalchemy', 'jinja2', 'httpx', 'boto3', 'libcloud', 'celery', 'asyncio', 'uvicorn'}\n"
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    subprocess.run([COMMAND[0], "-c", code], env=broker.environment, check=True, timeout=30)
