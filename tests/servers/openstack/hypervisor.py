"""libvirt, which Nova's own libvirt driver has start QEMU: a daemon of our own, with folders and a socket of its own.

It has a mount namespace, in which the folders that are written into its program are this bed's; no other libvirt of this
computer meets it. QEMU emulates in software, so that it works where nothing else does.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests import servers
from tests.servers.openstack.processes import Processes

NEED = servers.Need(
    title="libvirt and QEMU",
    programs=(("libvirtd",), ("qemu-system-x86_64",), ("qemu-img",), ("genisoimage",), ("ip",), ("iptables",)),
    packages=("libvirt-daemon", "libvirt-daemon-driver-qemu", "python3-libvirt", "qemu-system-x86", "qemu-utils",
              "genisoimage", "iproute2", "iptables"),
)  # fmt: skip
NAME = "libvirtd"
SOCKET = "libvirt-sock"
BINDING = ("libvirt.py", "libvirtmod.*.so")
DEBIAN = Path("/usr/lib/python3/dist-packages")
FOLDERS = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "log": "/var/log/libvirt"}
START_SECONDS = 30
NAMES = {"passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin", "group": "libvirt-qemu:x:64055:\nkvm:x:64056:"}
"""The daemon does not start where these names mean nobody; Debian has them in a package that starts it."""
QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
DAEMON = """\
unix_sock_dir = "{place}"
auth_unix_rw = "none"
auth_unix_ro = "none"
"""


def bind(folder: Path) -> None:
    """Debian's Python module for libvirt, beside the configuration, where the services find it: alone, without its neighbours."""
    for pattern in BINDING:
        for file in DEBIAN.glob(pattern):
            (folder / file.name).unlink(missing_ok=True)
            (folder / file.name).symlink_to(file)


def start(processes: Processes, folder: Path, place: Path) -> None:
    """Answers on PLACE/libvirt-sock when this returns."""
    ours = folder / "libvirt"
    for name, usual in FOLDERS.items():
        (ours / name).mkdir(parents=True, exist_ok=True)
        Path(usual).mkdir(parents=True, exist_ok=True)
    (ours / "etc" / "qemu.conf").write_text(QEMU)
    (ours / "libvirtd.conf").write_text(DAEMON.format(place=place))
    places = FOLDERS | {name: f"/etc/{name}" for name in NAMES}
    for name, lines in NAMES.items():
        (ours / name).write_text(f"{Path('/etc', name).read_text().rstrip()}\n{lines}\n")
    binds = "".join(f"mount --bind {ours / name} {usual}\n" for name, usual in places.items())
    words = f"--config {ours / 'libvirtd.conf'} --pid-file {place / 'libvirtd.pid'}"
    script = f"set -e\n{binds}mount -t tmpfs -o mode=755 tmpfs /run\nexec libvirtd {words}\n"
    processes.start(NAME, ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], os.environ)
    processes.until(lambda: (place / SOCKET).exists(), seconds=START_SECONDS, what="libvirt answers")
