"""The Debian 12 that every machine's root is a copy of, as a cloud's stock image is: made once a clone, in about 40 s.

It lies in the clone's `.work/machines`, which git ignores. This computer's own way to the package indexes is in it, as a
campus puts its mirrors and authorities into its image; nothing of ours is.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests import servers
from tests.doubles.machines import metadata
from tests.servers import docker

NEED = servers.Need(
    title="what machines are made with",
    programs=(("mmdebstrap",), ("unshare",), ("iptables",), ("ip",), ("openssl",)),
    packages=("mmdebstrap", "util-linux", "iptables", "iproute2", "openssl"),
)
FOLDER = docker.FOLDER.parent / "machines"
PACKAGES = (  # of Debian's own cloud image, what a launch may lean on
    *(
        "ca-certificates",
        "cloud-init",
        "curl",
        "dbus",
        "iproute2",
        "iptables",
        "netbase",
        "nftables",
        "procps",
        "python3",
    ),
    *("sudo", "systemd-sysv", "udev", "util-linux"),
)
RESOLVER = Path("/etc/resolv.conf")
CLOUD = """\
datasource_list: [{datasource}]
network: {{config: disabled}}  # set from outside
apt: {{preserve_sources_list: true}}
locale: C.UTF-8
ssh_deletekeys: false
"""
PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def made() -> Path:
    """The root, made if there is none of this recipe yet."""
    recipe = repr(
        (PACKAGES, docker.sources(), docker.apt_options(), docker.build_variables(), Path(__file__).read_bytes())
    )
    root = FOLDER / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            for old in FOLDER.glob("root-*"):
                shutil.rmtree(old)
            draft = FOLDER / "root-new"
            docker.make_debian(draft, PACKAGES)
            finish(draft)
            draft.rename(root)
    return root


def finish(root: Path) -> None:
    """What a cloud's image has besides packages."""
    trust(root, root, Path(docker.bundle()), "this-computer")
    variables = " ".join(f'"{name}={value}"' for name, value in environment().items())
    write(root / "etc/systemd/system.conf.d/indexes.conf", f"[Manager]\nDefaultEnvironment={variables}\n")
    write(root / "etc/environment", "".join(f"{name}={value}\n" for name, value in environment().items()))
    for unit in ("console-getty.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer"):
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")  # nobody sits there, and nothing updates itself
    write(root / "etc/machine-id", "")
    (root / "sbin/dhclient").unlink()  # nobody would answer it, and cloud-init would wait a minute for that


def environment() -> dict[str, str]:
    """What programs on the machine have to know to reach the indexes from here."""
    return docker.build_variables() | dict.fromkeys(docker.BUNDLES, docker.CERTIFICATES)


def furnish(
    upper: Path, root: Path, service: metadata.Service, names: Mapping[str, str], authority: Path | None
) -> None:
    """What is of this one machine: its cloud, the names it knows, and whom it trusts for them."""
    write(upper / "etc/cloud/cloud.cfg.d/99_machine.cfg", CLOUD.format(datasource=service.datasource))
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
    write(upper / "etc/hosts", "\n".join(lines) + "\n")
    write(upper / "etc/hostname", "machine\n")
    write(upper / "etc/resolv.conf", RESOLVER.read_text())
    if authority:
        trust(upper, root, authority, "broker")


def trust(into: Path, root: Path, authorities: Path, name: str) -> None:
    """Add these certificates to what OpenSSL, GnuTLS and Python believe: the bundle, and the folder with hashed names."""
    bundle = (root / docker.CERTIFICATES.lstrip("/")).read_text().rstrip("\n")
    for number, pem in enumerate(PEM.findall(authorities.read_text())):
        bundle += "" if pem.strip() in bundle else f"\n{pem.strip()}"
        asked = ["openssl", "x509", "-hash", "-noout"]
        hashed = subprocess.run(asked, input=pem, capture_output=True, text=True, check=True).stdout.strip()
        taken = [(folder / "etc/ssl/certs" / f"{hashed}.0").exists() for folder in (root, into)]
        if not any(taken):  # two authorities of one name would need more
            write(into / "etc/ssl/certs" / f"{hashed}.0", pem)
            write(into / f"usr/local/share/ca-certificates/{name}-{number}.crt", pem)
    write(into / docker.CERTIFICATES.lstrip("/"), f"{bundle}\n")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
