"""Who else is on this computer, and what of a session they can reach: nothing."""

from __future__ import annotations

import os
import pwd
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from broker import settings
from tests.journeys.conftest import Broker, Start, compute
from tests.journeys.test_launch import NOTEBOOKS, PLAIN_APP

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]
CANARY = "canary-of-the-session"


def of_session(broker: Broker) -> list[psutil.Process]:
    """Every process of every session of this broker."""
    mine = str(broker.home)
    agents = [one for one in psutil.process_iter() if mine in " ".join(safe(one.cmdline)) and is_agent(one)]
    return list({child.pid: child for one in agents for child in [one, *one.children(recursive=True)]}.values())


def is_agent(process: psutil.Process) -> bool:
    return any(word.endswith("agent.py") for word in safe(process.cmdline))


def safe(call: Callable[[], list[str]]) -> list[str]:
    try:
        return call()
    except psutil.Error:
        return []


def as_nobody(code: str) -> str:
    """What this Python code prints when another user of this computer runs it."""
    nobody = pwd.getpwnam("nobody")

    def become() -> None:
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    python = getattr(sys, "_base_executable", sys.executable)
    interpreter = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else python
    ended = subprocess.run(
        [interpreter, "-I", "-c", code],
        preexec_fn=become,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_no_port_of_a_session_says_anything(start_broker: Start, repos: Repos, built_before: dict[str, str]) -> None:
    """Server and kernels are on unix sockets. ipykernel keeps one port for what forked children print: it only takes
    (a ZeroMQ PULL socket that drops whatever lacks its random key), so whoever connects gets a greeting and no more."""
    broker, (url, make) = start_broker(**built_before), repos
    make("notebooks", NOTEBOOKS)
    ready = broker.launch(f"{url}/notebooks")
    assert compute(ready, f"print({CANARY!r})") == f"{CANARY}\n"
    found = of_session(broker)
    kernels = [one for one in found if "ipykernel" in " ".join(safe(one.cmdline))]
    assert kernels
    ports = {each.laddr.port: one for one in found for each in one.net_connections(kind="inet") if is_open(each)}
    assert set(ports.values()) <= set(kernels)
    assert len(ports) <= len(kernels)
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            assert len(stranger.recv(4096)) <= 64  # the greeting of ZMTP 3


def is_open(connection: Any) -> bool:
    return connection.status == psutil.CONN_LISTEN


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_of_this_computer_reaches_nothing(
    start_broker: Start, repos: Repos, built_before: dict[str, str]
) -> None:
    broker, (url, make) = start_broker(**built_before), repos
    make("app", {**PLAIN_APP, "canary.txt": CANARY})
    ready = broker.launch(f"{url}/app")
    port = broker.address["port"]
    sockets = [str(path) for path in Path(settings.Settings(home=broker.home).runtime).rglob("*") if path.is_socket()]
    assert sockets
    code = f"""
import os, pathlib, socket, urllib.request, urllib.error
def attempt(what, call):
    try: print(what, 'OP' + 'EN', call())
    except (OSError, urllib.error.URLError) as error: print(what, 'sh' + 'ut', type(error).__name__)
attempt('home', lambda: os.listdir({str(broker.home)!r}))
attempt('key', lambda: open({str(broker.home / "broker.json")!r}).read())
for path in {sockets!r}:
    attempt('socket', lambda: socket.socket(socket.AF_UNIX).connect(path))
base = 'http://127.0.0.1:{port}'
for path in ('/api/launches', '/s/{ready["launch"]}/canary.txt', '/sessions', '/launches/{ready["launch"]}', '/agent/report'):
    attempt(path, lambda: urllib.request.urlopen(base + path).read())
for process in pathlib.Path('/proc').glob('[0-9]*'):
    try: print((process / 'cmdline').read_bytes())
    except OSError: pass
    try: print((process / 'environ').read_bytes())
    except OSError: pass
"""
    seen = as_nobody(code)
    # Other programs of this computer may have such words in their lines.
    tried = re.findall(r"(?m)^\S+ (OPEN|shut) ", seen)
    assert tried == ["shut"] * (7 + len(sockets))
    secrets = [ready["token"], broker.address["key"], CANARY]
    assert [secret for secret in secrets if secret in seen] == []


def test_what_is_kept_on_disk_is_for_its_owner_only(start_broker: Callable[..., Broker], repos: Repos) -> None:
    broker, (url, make) = start_broker(), repos
    make("app", PLAIN_APP)
    broker.launch(f"{url}/app")
    assert stat.S_IMODE(broker.home.stat().st_mode) == 0o700
    for name in ("broker.json", "root.key"):
        assert stat.S_IMODE((broker.home / name).stat().st_mode) == 0o600


def test_no_secret_is_said_anywhere(start_broker: Callable[..., Broker], repos: Repos) -> None:
    """Logs, the table, the events, the process list: none of them holds what opens a session or this broker."""
    broker, (url, make) = start_broker(ANYBINDER_LOG_LEVEL="DEBUG"), repos
    make("app", PLAIN_APP)
    ready = broker.launch(f"{url}/app", "--name", "app")
    httpx.get(f"{ready['url']}x", params={"token": ready["token"]}).raise_for_status()
    httpx.get(f"{ready['url']}x", params={"token": "wrong"})
    said = broker.log().encode() + broker.run("logs", "app", "--json").stdout.encode()
    said += b"".join(path.read_bytes() for path in broker.home.glob("anybinder.sqlite*"))
    said += b"".join(path.read_bytes() for path in (broker.home / "instances").rglob("*.log"))
    said += b"".join(" ".join(safe(one.cmdline)).encode() for one in psutil.process_iter())
    root = (broker.home / "root.key").read_bytes()
    secrets = [ready["token"].encode(), broker.address["key"].encode(), root, root.hex().encode()]
    assert ready["launch"].encode() in said
    assert [secret for secret in secrets if secret in said] == []


def test_the_session_is_told_no_secret_of_the_broker(
    start_broker: Start, repos: Repos, built_before: dict[str, str]
) -> None:
    broker, (url, make) = start_broker(**built_before), repos
    make("notebooks", NOTEBOOKS)
    ready = broker.launch(f"{url}/notebooks")
    seen = compute(ready, "import os; print(dict(os.environ)); print(open('/proc/self/cmdline').read())")
    assert [secret for secret in (ready["token"], broker.address["key"]) if secret in seen] == []
    assert "ANYBINDER_HOME" not in seen


@pytest.mark.parametrize("path", ["https://evil.example/x", "//evil.example", "\\\\evil.example", "../../etc/passwd"])
def test_no_path_to_open_leads_out_of_the_session(
    start_broker: Start, repos: Repos, built_before: dict[str, str], path: str
) -> None:
    broker, (url, make) = start_broker(**built_before), repos
    make("app", PLAIN_APP)
    ready = broker.launch(f"{url}/app", "--path", path)
    assert ready["browser_url"].startswith(f"http://{ready['launch']}.localhost:{broker.address['port']}/")
    assert ".." not in ready["browser_url"]
