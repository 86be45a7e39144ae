"""Starts and ends an OpenStack."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from tests import servers
from tests.servers import keystone
from tests.servers.openstack import bridge, bus, configuration, database, hypervisor, packages, seed
from tests.servers.openstack.processes import Processes

NEED = servers.Need(
    title="MariaDB and RabbitMQ",
    programs=(("mariadbd",), ("rabbitmq-server",), ("epmd",)),
    packages=("mariadb-server-core", "rabbitmq-server"),
)
HERE = Path(__file__).resolve().parent
SERVICES = {
    "keystone": "identity",
    "placement": "placement",
    "glance": "image",
    "neutron": "network",
    "nova": "compute",
}
"""Whose name is what in the catalogue."""
VERSIONS = {"identity": "/v3", "compute": "/v2.1", "network": "", "image": "", "placement": ""}
START_SECONDS = 240
PASSED_ON = ("PATH", "TMPDIR", "LANG", "HTTPS_PROXY", "SSL_CERT_FILE")  # Keystone reads the keys of an issuer by https
PARTS = ("aki", "ari")
"""What Glance calls a kernel and a ramdisk."""
NOT_SAVED = ("*.out", "*.log", "rabbitmq", "*.there", "locks", "libvirt", "libvirt*.so", "libvirt.py", "bridge",
             "instances")  # fmt: skip

InFront = Callable[[Mapping[str, int]], Mapping[str, str]]
"""Given the port of each service, the root address by which the catalogue shall publish it."""


class Cloud(keystone.Keystone):
    """The running cloud, and what its operators and users do to it."""

    def __init__(self, ports: Mapping[str, int], folder: Path, published: Mapping[str, str]) -> None:
        super().__init__(ports["identity"], folder)
        self.ports, self.published = ports, published
        self.steps: list[tuple[float, str]] = []
        self.clients = {"identity": self.client}
        for name in set(SERVICES.values()) - {"identity"}:
            root = f"http://127.0.0.1:{ports[name]}{VERSIONS[name]}"
            self.clients[name] = httpx.Client(base_url=root, timeout=60, trust_env=False)

    @property
    def url(self) -> str:
        """Its `auth_url`, as people are told it."""
        return f"{self.published['identity']}/v3"

    def ask(
        self,
        method: str,
        path: str,
        told: keystone.Words | None = None,
        *,
        token: str = "",
        of: str = "identity",
        content: bytes | None = None,
    ) -> httpx.Response:
        """One request to this service, as the operator where no token is given. Raises where it is refused."""
        headers = {"X-Auth-Token": token or self.admin, "OpenStack-API-Version": "compute 2.90"}
        if content is not None:
            headers["Content-Type"] = "application/octet-stream"
        found = self.clients[of].request(method, path, json=told, content=content, headers=headers)
        if found.is_error:
            raise AssertionError(f"{method} {of} {path}: {found.status_code} {found.text[:500]}")
        return found

    def begin(self) -> None:
        """Sign in as the operator."""
        password = (self.folder / "password").read_text()
        self.admin = self.token(keystone.User(id="", name=keystone.ADMIN, password=password), project_name="admin")
        self.roles = {role["name"]: role["id"] for role in self.ask("GET", "/roles").json()["roles"]}

    def wired(self, project: str, wires: bridge.Bridge, name: str = "wired") -> str:
        """A network of this project's on this bridge; its id."""
        told = {"name": name, "project_id": project}
        network = self.ask("POST", "/v2.0/networks", {"network": told}, of="network").json()["network"]["id"]
        subnet = {"network_id": network, "name": name, "ip_version": 4, "cidr": wires.cidr, "project_id": project,
                  "gateway_ip": wires.gateway, "enable_dhcp": False}  # fmt: skip
        self.ask("POST", "/v2.0/subnets", {"subnet": subnet}, of="network")
        return str(network)

    def image(self, name: str, file: Path, disk_format: str, **properties: str) -> str:
        """A public image of this file; its id."""
        told = {"name": name, "disk_format": disk_format, "visibility": "public", "architecture": "x86_64",
                "container_format": disk_format if disk_format in PARTS else "bare", **properties}  # fmt: skip
        made = self.ask("POST", "/v2/images", told, of="image").json()
        self.ask("PUT", f"/v2/images/{made['id']}/file", of="image", content=file.read_bytes())
        return str(made["id"])

    def network(self, project: str, token: str) -> str:
        """The id of the network that Neutron allocates a project that has none, with a router to the world."""
        found = self.ask("GET", f"/v2.0/auto-allocated-topology/{project}", token=token, of="network").json()
        return str(found["auto_allocated_topology"]["id"])

    def quota(self, project: str, **limits: int) -> None:
        """Nova's, whatever is used."""
        self.ask("PUT", f"/os-quota-sets/{project}", {"quota_set": {**limits, "force": True}}, of="compute")

    def rule(self, **rules: str) -> None:
        """Nova's policy, by the names behind `os_compute_api:servers:`; all others as published. It holds at once."""
        told = {f"os_compute_api:servers:{name}": rule for name, rule in rules.items()}
        (self.folder / "policy.yaml").write_text(json.dumps(told))

    def hold(self, held: bool) -> None:
        """Whether the host that runs machines stands still: nothing boots on it, and nothing ends."""
        os.kill(int((self.folder / "compute.pid").read_text()), signal.SIGSTOP if held else signal.SIGCONT)

    def machines(self, **filters: str) -> list[keystone.Words]:
        """All that Nova has, of whatever project, as it tells its operator."""
        query = "&".join(f"{name}={value}" for name, value in {"all_tenants": "1", **filters}.items())
        found: list[keystone.Words] = self.ask("GET", f"/servers/detail?{query}", of="compute").json()["servers"]
        return found

    def power_off(self, machine: str) -> None:
        """As from within: it is off, and neither deleted nor cheaper."""
        self.ask("POST", f"/servers/{machine}/action", {"os-stop": None}, of="compute")

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


@contextlib.contextmanager
def running(in_front: InFront | None = None, *, on: bridge.Bridge | None = None) -> Iterator[Cloud]:
    """Two minutes the first time, half a minute afterwards. `on`: machines boot, and are wired to this.

    The first time one is made, saved and ended: services whose tables went away under them ask one another for a minute what
    nobody answers, and meanwhile no machine can be had.
    """
    for need in (NEED, hypervisor.NEED) if on else (NEED,):
        assert need.found(), f"{need.title} are not on this computer."
    python = packages.environment()
    tidy()
    if not saved(driver(on)).exists():
        with made(python, on) as first:
            first.start()
            first.save()
    with made(python, on) as bed:
        yield bed.start(in_front)


@contextlib.contextmanager
def made(python: Path, on: bridge.Bridge | None) -> Iterator[Bed]:
    """Not started yet; nothing of it is left afterwards."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abos-", dir="/tmp")))  # for the socket
        folder = packages.FOLDER / f"run-{os.getpid()}-{secrets.token_hex(3)}"
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bed = Bed(folder, place, python, on)
        stack.callback(bed.end)
        yield bed


class Bed:
    """One cloud's processes and files."""

    def __init__(self, folder: Path, place: Path, python: Path, wires: bridge.Bridge | None) -> None:
        self.folder, self.place, self.python, self.wires = folder, place, python, wires
        self.driver = driver(wires)
        self.processes = Processes(folder)
        self.ports = free_ports("bus", "names", "distribution", *SERVICES.values())
        self.began, self.made_at = time.monotonic(), dt.datetime.now(dt.UTC)
        self.steps: list[tuple[float, str]] = []
        self.cloud: Cloud | None = None

    def start(self, in_front: InFront | None = None) -> Cloud:
        fresh = not restored(self.folder, self.driver)
        if fresh:
            self.folder.mkdir(parents=True)
            (self.folder / "password").write_text(secrets.token_urlsafe(16))
        direct = {name: f"http://127.0.0.1:{self.ports[name]}" for name in SERVICES.values()}
        published = {**direct, **(in_front({name: self.ports[name] for name in direct}) if in_front else {})}
        configuration.write(
            self.folder, self.ports, place=self.place, packages=self.python.parent.parent, driver=self.driver
        )
        numbers = {"port": self.ports["bus"], "names": self.ports["names"], "distribution": self.ports["distribution"]}
        bus.start(self.processes, self.folder, **numbers)
        self.start_database(fresh)
        if self.wires:
            (self.folder / "bridge").write_text(self.wires.name)  # for `tidy`
            hypervisor.bind(self.folder)
            hypervisor.start(self.processes, self.folder, self.place)
            self.step("libvirt")
        for name, kind in SERVICES.items():
            self.start_service(name, self.ports[kind])
        cloud = self.cloud = Cloud(self.ports, self.folder, published)
        cloud.steps = self.steps
        self.publish(cloud, direct, fresh)
        self.furnish(cloud, fresh)
        if self.wires:
            self.wires.ports = lambda: seed.ports(cloud)
        return cloud

    def start_database(self, fresh: bool) -> None:
        if fresh:
            database.make(self.folder)
        database.start(self.processes, self.folder, self.place)
        self.step("database")

    def start_service(self, name: str, port: int) -> None:
        told = {
            **{word: os.environ[word] for word in PASSED_ON if word in os.environ},
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(HERE / "inside"), str(self.folder)]),
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [str(self.python), str(HERE / "inside" / "service.py"), name, str(self.folder), str(port)]
        self.processes.start(name, command, told)

    def publish(self, cloud: Cloud, direct: Mapping[str, str], fresh: bool) -> None:
        """Nova's compute service asks the catalogue where Placement is."""
        self.until_it_answers("identity")
        cloud.begin()
        seed.catalogue(cloud, direct, cloud.published, VERSIONS)
        self.until_open(self.ports["bus"])
        (self.folder / "bus.there").touch()
        self.step("catalogue")
        self.until_it_answers("placement")
        (self.folder / "catalogue.there").touch()

    def furnish(self, cloud: Cloud, fresh: bool) -> None:
        for name in ("image", "network", "compute"):
            self.until_it_answers(name)
        if fresh:
            with ThreadPoolExecutor(4) as threads:
                for done in [threads.submit(work, cloud) for work in self.furniture()]:
                    done.result()
            self.step("furnished")
        self.until_it_computes(cloud)
        self.step("compute")

    def until_it_computes(self, cloud: Cloud) -> None:
        self.processes.until(
            lambda: seed.computes(cloud, self.made_at), seconds=START_SECONDS, what="a machine can be bought"
        )

    def furniture(self) -> tuple[Callable[[Cloud], None], ...]:
        """Images that boot are brought by who knows their names."""
        return (seed.networks, seed.small_sizes) if self.wires else (seed.images, seed.networks, seed.sizes)

    def until_it_answers(self, kind: str) -> None:
        self.until_open(self.ports[kind])
        self.step(kind)

    def until_open(self, port: int) -> None:
        self.processes.until(lambda: is_open(port), seconds=START_SECONDS, what=f"port {port} is open")

    def step(self, name: str) -> None:
        """How long it took until this was there: `python -m tests.servers.openstack` shows it."""
        self.steps.append((time.monotonic() - self.began, name))

    def save(self) -> None:
        """Ends its services and its database, whose files are whole only then."""
        target = saved(self.driver)
        self.processes.end(*SERVICES, at_once=True)
        database.stop(self.processes)
        making = packages.FOLDER / f"{target.name}-{self.folder.name}"
        shutil.copytree(self.folder, making, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SAVED))
        with contextlib.suppress(OSError):  # another run was sooner
            making.rename(target)
        for older in set(packages.FOLDER.glob(f"{kept_as(self.driver)}-*")) - {target}:
            shutil.rmtree(older, ignore_errors=True)
        shutil.rmtree(making, ignore_errors=True)

    def end(self) -> None:
        if self.wires:
            self.wires.ports = list
        if self.cloud is not None:
            self.cloud.close()
        self.processes.end(at_once=True)
        if self.wires:
            end_machines(self.folder)


def saved(driver: configuration.Driver) -> Path:
    """Where the state is kept that these very files make of these very packages."""
    made_of = hashlib.sha256()
    for file in sorted(path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        made_of.update(file.read_bytes())
    return packages.FOLDER / f"{kept_as(driver)}-{made_of.hexdigest()[:16]}"


def driver(on: bridge.Bridge | None) -> configuration.Driver:
    """Of a bed on this bridge, or on none."""
    return configuration.LIBVIRT if on else configuration.FAKE


def kept_as(driver: configuration.Driver) -> str:
    """What one driver's hosts have told Nova is not true of the other's."""
    return "booting" if driver.boots else "saved"


def restored(folder: Path, driver: configuration.Driver) -> bool:
    if not saved(driver).exists():
        return False
    shutil.copytree(saved(driver), folder, symlinks=True)
    return True


def tidy() -> None:
    """End and remove what was left by runs that were killed."""
    for folder in packages.FOLDER.glob("run-*"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            end_machines(folder)
            if (name := folder / "bridge").exists():
                bridge.taken_up(name.read_text())
            shutil.rmtree(folder, ignore_errors=True)


def end_machines(folder: Path) -> None:
    """And whatever else has this folder in its words: a machine belongs to nobody's process group."""
    for process in psutil.process_iter():
        if belongs(process, folder):
            process.kill()


def belongs(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.cwd() == str(folder) or any(f"{folder}" in word for word in process.cmdline())
    return False


def free_ports(*names: str) -> dict[str, int]:
    """Held together, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            found[name] = held.getsockname()[1]
        return found


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
