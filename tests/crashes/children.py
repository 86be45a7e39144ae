"""Brokers of the crash tests: the real one, in a child of the zygote, with boundaries to die at and scaled-down waits.

Three parts: `all` is `anybinder up`, the embedded size. `web` and `worker` are the production size: two processes on one
table, where leases matter. Celery and Redis are left out: hints travel as datagrams and are lost when nobody listens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import signal
import socket
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.crashes import broken, points

WAITS = {"RETRY_SECONDS": 0.1, "GONE_SECONDS": 0.03, "LOOK_SECONDS": 0.2, "LOOK_MOST_SECONDS": 0.4}
"""The waits between two looks (`broker/launches/waits.py`), shorter: a schedule takes a second, not a minute."""
LONGER_WAITS = {"RETRY_SECONDS": 1, "GONE_SECONDS": 1, "LOOK_SECONDS": 1, "LOOK_MOST_SECONDS": 2}
"""Where each look is a dozen requests to real services on the same two cores."""
PRICE = "0.05"  # for a core and hour: that of the fake cloud's smallest machine
KEEP_SECONDS = 0.4
"""The same between two looks at secrets that may go."""
HINTS = "hints"
PDEATHSIG = 1


def be(told: dict[str, Any]) -> None:
    """Be the process that is wanted, until killed."""
    from broker import launches, logs, settings, tasks

    chosen = settings.Settings(**told["settings"])
    logs.configure(chosen)
    for name, seconds in (LONGER_WAITS if told["over"] == "openstack" else WAITS).items():
        setattr(launches.waits, name, seconds)
    if told["account"]:
        tasks.KEEP_SECONDS = KEEP_SECONDS
    broken.break_(told["broken"])
    if told["over"] in DOUBLES:
        DOUBLES[told["over"]](told["lists_within"])
    if told["jumps"]:
        _set_clock(told["jumps"])
    counter = points.Counter(Path(told["counter"]))
    counter.reset()
    points.set_up(points.Points(counter, Path(told["points"]), deadly=told["deadly"], agents=told["agents"]),
                  verbs=(*points.VERBS, "sign_in") if told["account"] else points.VERBS)  # fmt: skip
    _know_this_repository(told)
    _note_early_ends(chosen, Path(told["early"]))
    {"all": serve, "web": serve_alone, "worker": work, "worker2": work}[told["part"]](chosen, told)


def _know_aws(lists_within: float) -> None:
    """Its machines are on this computer, and it lists what it has made within a moment, as the schedule says."""
    from providers.aws import AwsProvider

    AwsProvider.dials_loopback = True
    AwsProvider.lists_within = dt.timedelta(seconds=lists_within)


def _know_openstack(lists_within: float) -> None:
    """The same; nothing is on its way for longer than that either. And what a machine costs, or no money would be promised."""
    from providers.openstack import OpenStackProvider, claims, clouds

    OpenStackProvider.dials_loopback = True
    OpenStackProvider.lists_within = dt.timedelta(seconds=lists_within)
    claims.SETTLE_SECONDS = lists_within  # type: ignore[assignment]
    inner = clouds.chosen
    rate = clouds.Rate(flavor="m3.*", per_vcpu=Decimal(PRICE), source="tests/crashes", as_of="2026-11-28")
    clouds.chosen = lambda configuration: dataclasses.replace(inner(configuration), rates=(rate,))


DOUBLES = {"aws": _know_aws, "openstack": _know_openstack}


def _set_clock(jumps: list[tuple[float, float]]) -> None:
    """The broker's clock jumps at these moments of real life: the same in each of its processes, and after a restart."""
    from broker import service

    inner = service.build

    def now() -> dt.datetime:
        real = time.time()
        return dt.datetime.fromtimestamp(real + sum(seconds for at, seconds in jumps if real >= at), dt.UTC)

    service.build = lambda *arguments, **named: dataclasses.replace(inner(*arguments, **named), now=now)


def serve(chosen: Any, told: dict[str, Any]) -> None:
    """Everything in one process."""
    from broker import serving

    with serving.owned(chosen.home):
        listening, chosen = serving.bind(chosen)
        serving.run(listening, chosen, on_ready=lambda at, key: None)


def serve_alone(chosen: Any, told: dict[str, Any]) -> None:
    """The web process of the production size."""
    from broker import fanout, queue

    queue.CeleryQueue = lambda: Hints(chosen.home)  # type: ignore[assignment,misc]
    fanout.RedisFanout = lambda url: fanout.EmbeddedFanout()  # type: ignore[assignment,misc]
    serve(chosen.model_copy(update={"redis_url": _secret("redis://nowhere")}), told)


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


class Hints:
    """The web's end of the queue: whoever works is told, if anybody does."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def start(self, tasks: object, every: object) -> None:
        """Nothing runs here."""

    def enqueue(self, task: str, *args: str, delay: float = 0.0) -> None:
        for path in self._home.glob(f"{HINTS}*"):
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join((str(delay), task, *args)).encode(), str(path))

    def stop(self) -> None:
        self._socket.close()


def work(chosen: Any, told: dict[str, Any]) -> None:
    """A worker process of the production size, as `tasks.worker_app` would run it."""
    from broker import service, tasks

    at = service.build(chosen, migrate=False)
    at.queue.start(tasks.all_of(at), tasks.every(chosen))
    path = chosen.home / f"{HINTS}-{told['part']}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hints:
        hints.bind(str(path))
        while True:
            delay, task, *args = hints.recv(65536).decode().split("\n")
            at.queue.enqueue(task, *args, delay=float(delay))


def _know_this_repository(told: dict[str, Any]) -> None:
    """Where nothing is cloned, nothing need be looked up: the one repository is known."""
    from broker import repos

    if not (known := told["repo"]):
        return
    url, commit = known["url"], known["commit"]
    fixed = {"commit": commit, "repo_url": url, "web_url": url, "slug": "crashes", "ref": "main", "path": ""}
    repos.Resolver.resolve = lambda self, spec, opener=None: repos.Resolved(  # type: ignore[method-assign]
        spec=spec, spec_string=f"git/{url}/main", **fixed
    )
    repos.Resolver.read = lambda self, found, paths, opener=None: {}  # type: ignore[method-assign]


def _note_early_ends(chosen: Any, note: Path) -> None:
    """This computer sends no bill: what is there while `stopped` is being written is noted at that very moment."""
    import sqlalchemy as sa

    from broker import launches, models
    from providers import processes

    inner = launches.advancing._settle

    def settle(service: Any, held: Any, outcome: Any) -> Any:
        if outcome.state is models.State.STOPPED:
            with service.db.transaction() as session:
                orders = list(session.scalars(sa.select(models.Order.id).where(models.Order.launch_id == held.id)))
            with note.open("a") as file:
                for order in orders:
                    if (chosen.home / "instances" / order).exists() or processes.marked(order):
                        file.write(f"{order} was there when its launch was stopped\n")
        return inner(service, held, outcome)

    launches.advancing._settle = settle


def prepare(told: dict[str, Any], log: Path) -> None:
    """In the new child: words go to a file, signals mean what they usually do, and it dies with the zygote."""
    import ctypes

    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    words = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for ours, well_known in ((nothing, 0), (words, 1), (words, 2)):
        os.dup2(ours, well_known)
    assert threading.active_count() == 1, "a thread of the zygote would be missing here"
