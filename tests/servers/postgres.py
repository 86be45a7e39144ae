"""A PostgreSQL of our own: on a unix socket in a temporary folder, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests import servers
from tests.waiting import until

OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "fsync": "off",  # the tests kill our processes, never PostgreSQL's
    "full_page_writes": "off",
    "log_min_messages": "warning",
}


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server. Who may open its folder may do all in it."""

    socket: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://anybinder@/{database}?host={self.socket}"

    def new_database(self) -> str:
        """The SQLAlchemy URL of an empty database."""
        name = f"t_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """End this database and every connection to it."""
        self.run(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.run("SELECT 1")
            return True
        return False

    def run(self, statement: Any) -> None:
        with psycopg.connect(host=str(self.socket), user="anybinder", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Starts in about a second. As root it runs as the `postgres` user of the package, because root is refused."""
    found = servers.POSTGRES.found()
    assert found, "PostgreSQL is not on this computer."
    postgres, initdb = found
    folder = Path(tempfile.mkdtemp(prefix="abpg-", dir="/tmp"))  # short: a socket's path may have at most 107 bytes
    other = another_user(folder)
    make = [initdb, "-D", folder / "data", "-U", "anybinder", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **other)
    options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        command = [postgres, "-D", folder / "data", "-k", folder, *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, **other)
    servers.keep(server.pid)
    try:
        yield when_it_answers(Postgres(socket=folder), server, folder / "log")
    finally:
        server.send_signal(signal.SIGINT)  # "fast shutdown": PostgreSQL drops its clients and stops
        server.wait(30)
        servers.kept.discard(server.pid)
        shutil.rmtree(folder, ignore_errors=True)


def when_it_answers(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> Postgres:
    until(lambda: server.answers() or process.poll() is not None, seconds=30, what="PostgreSQL answers")
    assert process.poll() is None, log.read_text()
    return server


def another_user(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
