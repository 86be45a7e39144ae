"""The services' configuration files, from `templates/`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TEMPLATES = Path(__file__).with_name("templates")
FOLDERS = ("nova/instances", "neutron", "images", "glance-staging", "glance-tasks", "locks")
REGION = "RegionOne"
REMEMBERED_SECONDS = 2
"""A revoked token is taken for so long by whoever has just seen it; by published defaults 300."""
ACCOUNT = """\
auth_type = password
auth_url = http://127.0.0.1:{identity}
username = admin
password = {password}
project_name = admin
user_domain_id = default
project_domain_id = default
region_name = {region}
valid_interfaces = internal
"""
AUTHTOKEN = """\
interface = internal
www_authenticate_uri = http://127.0.0.1:{identity}
service_token_roles_required = true
service_token_roles = service
# most of a service's work would be asking whether a token is good; what is revoked is refused as soon as this
token_cache_time = {remembered}
"""
WIRING = "[neutron.ml2.mechanism_drivers]\nunwired = unwired:Unwired\nwired = unwired:Wired\n"


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What machines run on."""

    nova: str
    """`compute_driver` of Nova."""
    neutron: str
    """The mechanism that binds their ports (inside/unwired.py)."""
    boots: bool


FAKE = Driver(nova="fake.FakeDriverWithoutFakeNodes", neutron="unwired", boots=False)
LIBVIRT = Driver(nova="libvirt.LibvirtDriver", neutron="wired", boots=True)


def write(folder: Path, ports: Mapping[str, int], *, place: Path, packages: Path, driver: Driver) -> None:
    """Anew at each start: ports and socket are others."""
    words = {"password": (folder / "password").read_text(), "identity": ports["identity"], "region": REGION}
    account = ACCOUNT.format(**words)
    database, query = "mysql+pymysql://root@localhost", f"?unix_socket={place / 'db'}"
    told = {
        **{name: str(port) for name, port in ports.items()},
        "folder": str(folder),
        "place": str(place),
        "programs": str(packages / "bin"),
        "packaged": str(packages / "etc"),
        "compute_driver": driver.nova,
        "mechanism": driver.neutron,
        "database": database,
        "socket": query,
        "bus": f"rabbit://guest:guest@127.0.0.1:{ports['bus']}/",
        "account": account,
        "authtoken": account + AUTHTOKEN.format(**words, remembered=REMEMBERED_SECONDS),
    }
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for file in TEMPLATES.iterdir():
        (folder / file.name).write_text(string.Template(file.read_text()).substitute(told))
    (folder / "policy.yaml").write_text("{}\n")
    (folder / "keystone.database").write_text(f"{database}/keystone{query}")
    wiring = folder / "unwired-1.dist-info"
    wiring.mkdir(exist_ok=True)
    (wiring / "entry_points.txt").write_text(WIRING)
    (wiring / "METADATA").write_text("Metadata-Version: 2.1\nName: unwired\nVersion: 1\n")
