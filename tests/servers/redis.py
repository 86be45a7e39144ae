"""A Redis of our own: on a free port of this computer, with a password, keeping nothing on disk."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import redis

from broker import settings
from tests import servers
from tests.waiting import until


@dataclass(frozen=True, kw_only=True)
class Redis:
    """A running server."""

    url: str

    def empty(self) -> str:
        """Forget everything in it; returns its URL."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        return self.url

    def answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False


@contextlib.contextmanager
def running() -> Iterator[Redis]:
    """Starts in a fraction of a second."""
    found = servers.REDIS.found()
    assert found, "Redis is not on this computer."
    port, password = settings.free_port(), secrets.token_hex(16)
    options = {"--port": port, "--bind": "127.0.0.1", "--requirepass": password, "--save": "", "--appendonly": "no"}
    command = [found[0], *(str(word) for pair in options.items() for word in pair)]
    with tempfile.TemporaryDirectory(prefix="abredis-") as folder:
        server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        servers.keep(server.pid)
        running = Redis(url=f"redis://:{password}@127.0.0.1:{port}/0")
        try:
            until(lambda: running.answers() or server.poll() is not None, seconds=20, what="Redis answers")
            yield running
        finally:
            server.terminate()
            server.wait(20)
            servers.kept.discard(server.pid)
