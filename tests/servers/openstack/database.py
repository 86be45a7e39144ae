"""MariaDB, on a socket in a folder of its own; what is written is not waited for."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from tests.servers import program
from tests.servers.openstack.processes import Processes

NAME = "mariadb"
DATABASES = ("keystone", "glance", "placement", "nova_api", "nova_cell0", "nova", "neutron")
OPTIONS = (
    *("--no-defaults", "--skip-networking", "--skip-grant-tables", "--skip-log-bin", "--performance-schema=0"),
    *("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"),
    *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--max-connections=400"),
    *("--innodb-fast-shutdown=1", "--character-set-server=utf8mb3"),
)
SHARED = Path("/usr/share/mysql")
OWN_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
START_SECONDS = 60


def make(folder: Path) -> None:
    """The tables of MariaDB itself, as `mariadb-install-db` makes them, without the packages that this asks for."""
    (folder / NAME / "mysql").mkdir(parents=True)
    told = "use mysql;\n" + "".join((SHARED / name).read_text() for name in OWN_TABLES)
    command = [program("mariadbd") or "mariadbd", *OPTIONS, "--bootstrap", f"--datadir={folder / NAME}", *user()]
    made = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def start(processes: Processes, folder: Path, place: Path) -> None:
    """Its databases are there when it answers. `place` is for the socket: its path may have at most 107 bytes."""
    names = " ".join(f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb3;\n" for name in DATABASES)
    (folder / "databases.sql").write_text(names)
    words = (f"--datadir={folder / NAME}", f"--socket={place / 'db'}", f"--init-file={folder / 'databases.sql'}")
    processes.start(NAME, [program("mariadbd") or "mariadbd", *OPTIONS, *words, *user()], os.environ)
    processes.until(lambda: answers(place / "db"), seconds=START_SECONDS, what="MariaDB answers")


def stop(processes: Processes) -> None:
    """Everything is on the disk afterwards."""
    processes.end(NAME)


def user() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def answers(at: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(1)
        asked.connect(str(at))
        return bool(asked.recv(1))
    return False
