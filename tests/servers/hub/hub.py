"""One JupyterHub with its proxy, started and ended with all that it has started."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from broker import settings
from tests import servers
from tests.servers.hub import packages
from tests.servers.hub.front import PREFIX, Front
from tests.waiting import until

NEED = servers.Need(
    title="Node.js with npm, for JupyterHub's proxy", programs=(("node",), ("npm",)), packages=("nodejs", "npm")
)
CONFIGURATION = Path(__file__).with_name("jupyterhub_config.py")
START_SECONDS = 90
END_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A peer."""

    url: str
    """Where people and the broker reach it: its proxy."""
    front: Front

    @property
    def binder_url(self) -> str:
        """Where its BinderHub answers."""
        return f"{self.url}{PREFIX}"

    def setting(self, name: str, **more: object) -> dict[str, object]:
        """The peer that it is, for settings."""
        return {"name": name, "title": name.title(), "url": self.url, "binder_url": self.binder_url, **more}


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """Starts in a few seconds; the first time in a clone its packages are got."""
    programs, proxy = packages.environment()
    url = f"http://127.0.0.1:{settings.free_port()}"
    with tempfile.TemporaryDirectory(prefix="abhub-", dir="/tmp") as folder, Front(Path(folder, "homes")) as front:
        front.hub_url, front.token = url, secrets.token_hex(32)
        told = {
            "TEST_HUB_FOLDER": folder,
            "TEST_HUB_URL": url,
            "TEST_HUB_API_PORT": str(settings.free_port()),
            "TEST_HUB_PROXY": str(proxy),
            "TEST_HUB_PROXY_PORT": str(settings.free_port()),
            "TEST_HUB_FRONT": front.url,
            "TEST_HUB_TOKEN": front.token,
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        command = [str(programs / "jupyterhub"), "--config", str(CONFIGURATION)]
        with Path(folder, "log").open("w+") as log:
            hub = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **told}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            servers.keep(hub.pid)
            try:
                until(
                    lambda: _answers(url, front) or hub.poll() is not None, seconds=START_SECONDS, what="a JupyterHub"
                )
                assert hub.poll() is None, Path(folder, "log").read_text()[-3000:]
                yield Hub(url=url, front=front)
            finally:
                _end(hub)


def _answers(url: str, front: Front) -> bool:
    """It is there, its proxy is, and its service is known to both."""
    with contextlib.suppress(httpx.TransportError):
        return (
            front.asked("GET", "/info").status_code == 200 and httpx.get(f"{url}{PREFIX}/versions").status_code == 200
        )
    return False


def _end(hub: subprocess.Popen[bytes]) -> None:
    """The hub, and whatever of its proxy and servers it has left: by what it started, not by name."""
    started = psutil.Process(hub.pid).children(recursive=True) if hub.poll() is None else []
    hub.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        hub.wait(END_SECONDS)
    for left in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    if hub.poll() is None:
        hub.kill()
        hub.wait(END_SECONDS)
    psutil.wait_procs(started, timeout=END_SECONDS)
