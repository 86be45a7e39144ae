"""RabbitMQ, a node of its own on free ports of this computer."""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers import program
from tests.servers.openstack.processes import Processes

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""The one on PATH becomes another user first."""


def start(processes: Processes, folder: Path, *, port: int, names: int, distribution: int) -> None:
    """Returns at once. `names` is where its nodes would find one another."""
    (folder / "rabbitmq").mkdir(exist_ok=True)
    (folder / "rabbitmq" / "plugins").write_text("[].\n")
    own = os.environ | {"HOME": str(folder), "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(names)}
    processes.start("epmd", [program("epmd") or "epmd", "-port", str(names), "-address", "127.0.0.1"], own)
    told = {
        "NODENAME": f"bed{port}@localhost",
        "NODE_IP_ADDRESS": "127.0.0.1",
        "NODE_PORT": str(port),
        "DIST_PORT": str(distribution),
        "MNESIA_BASE": str(folder / "rabbitmq"),
        "LOG_BASE": str(folder),
        "CONFIG_FILE": str(folder / "rabbitmq" / "none"),
        "CONF_ENV_FILE": os.devnull,
        "ENABLED_PLUGINS_FILE": str(folder / "rabbitmq" / "plugins"),
        "SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
    }
    processes.start("rabbitmq", [PROGRAM], own | {f"RABBITMQ_{name}": value for name, value in told.items()})
