"""The Debian 12 that boots in a software-emulated machine: its disk and its kernel, made once a clone in `.work/guests`.

It is the Debian of `tests/doubles/machines` with a kernel. There is no boot loader: Nova gives the machine the kernel and a
ramdisk. The ramdisk is made anew for each cloud, in no time: it carries what a campus would have put into its own image,
the names that this cloud's machines know, whom they trust for them, and wheels; it lays that over the root and becomes systemd.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import servers
from tests.doubles.machines import image
from tests.openstack_boot import wheels
from tests.servers import docker

NEED = servers.Need(
    title="what guests are made with",
    programs=(*image.NEED.programs, ("busybox",), ("cpio",), ("mke2fs",), ("qemu-img",)),
    packages=(*image.NEED.packages, "busybox-static", "cpio", "e2fsprogs", "qemu-utils"),
)
FOLDER = image.FOLDER.parent / "guests"
INIT = Path(__file__).with_name("init.sh")
PACKAGES = (*image.PACKAGES, "git", "linux-image-cloud-amd64")  # as in Ubuntu's stock image, git is there
DISK = "3G"
DRIVERS = ("crc32c_generic", "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "sr_mod", "isofs", "ext4")
COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet loglevel=4 mitigations=off audit=0 apparmor=0 nowatchdog "
    "systemd.show_status=0 systemd.mask=systemd-networkd-wait-online.service"
)
CLOUD = """\
datasource_list: [ConfigDrive]
apt: {preserve_sources_list: true}
locale: C.UTF-8
ssh_deletekeys: false
growpart: {mode: "off"}  # there is no partition
resize_rootfs: false
cloud_init_modules: [bootcmd, write-files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
"""
QUIET = (
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
    ),
    *("fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-timesyncd.service"),
    *(
        "systemd-pstore.service",
        "systemd-journal-flush.service",
        "systemd-update-utmp.service",
        "kmod-static-nodes.service",
    ),
    *(
        "systemd-udev-settle.service",
        "systemd-hwdb-update.service",
        "systemd-binfmt.service",
        "cloud-init-hotplugd.socket",
    ),
)
"""What nobody needs within minutes of an emulated life."""
DROPPED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache/apt")


@dataclass(frozen=True)
class Guest:
    """What every machine boots from."""

    disk: Path
    kernel: Path
    drivers: Path
    """A folder with the modules of the kernel that its ramdisk loads, and their order."""

    def ramdisk(self, names: Mapping[str, str], authority: Path, to: Path) -> Path:
        """Written to this file: for machines that know these names (name → address), and trust this certificate."""
        with tempfile.TemporaryDirectory(prefix="abramdisk-") as folder:
            root = Path(folder)
            (root / "bin").mkdir()
            shutil.copy2(servers.program("busybox") or "busybox", root / "bin/busybox")
            shutil.copy2(INIT, root / "init")
            (root / "init").chmod(0o755)
            shutil.copytree(self.drivers, root / "drivers")
            lay_over(root / "over", self.drivers.parent / "trusted", names, authority)
            listed = "\n".join(str(path.relative_to(root)) for path in [root, *sorted(root.rglob("*"))])
            with to.open("wb") as file:
                command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"]
                subprocess.run(command, input=listed.encode(), stdout=file, cwd=root, check=True)
        return to


def lay_over(upper: Path, root: Path, names: Mapping[str, str], authority: Path) -> None:
    """What is of this cloud. `root`: what the disk has of certificates."""
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
    image.write(upper / "etc/hosts", "\n".join(lines) + "\n")
    image.write(upper / "etc/resolv.conf", image.RESOLVER.read_text())
    image.trust(upper, root, authority, "broker")
    wheels.make(upper / wheels.PLACE.lstrip("/"))
    image.write(upper / "etc/uv/uv.toml", wheels.SETTINGS)
    known = dict.fromkeys(docker.BUNDLES, docker.CERTIFICATES)
    image.write(upper / "etc/environment", "".join(f"{name}={value}\n" for name, value in known.items()))
    shown = " ".join(f'"{name}={value}"' for name, value in known.items())
    image.write(upper / "etc/systemd/system.conf.d/indexes.conf", f"[Manager]\nDefaultEnvironment={shown}\n")


def made() -> Guest:
    """The guest, made if there is none of this recipe yet: in some two minutes."""
    folder = FOLDER / f"debian-{recipe()}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in (*FOLDER.glob("debian-*"), *FOLDER.glob("new*")):
                shutil.rmtree(old)
            make(FOLDER / "new")
            (FOLDER / "new").rename(folder)
    return Guest(disk=folder / "disk", kernel=folder / "kernel", drivers=folder / "drivers")


def recipe() -> str:
    """What a disk follows from: another one is made when this is another."""
    of = (PACKAGES, DISK, DRIVERS, CLOUD, QUIET, DROPPED)
    ways = (docker.sources(), docker.apt_options(), docker.build_variables(), Path(image.__file__).read_bytes())
    code = [inspect.getsource(each) for each in (make, finish, keep_drivers, behind)]
    return hashlib.sha256(repr((of, ways, code)).encode()).hexdigest()[:12]


def make(folder: Path) -> None:
    folder.mkdir()
    root = docker.make_debian(folder / "root", PACKAGES)
    image.finish(root)
    finish(root)
    keep_drivers(root, folder / "drivers")
    shutil.copy2(max((root / "boot").glob("vmlinuz-*")), folder / "kernel")
    shutil.copytree(root / "etc/ssl/certs", folder / "trusted/etc/ssl/certs", symlinks=True)
    raw = folder / "raw"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", root, raw, DISK], check=True)
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, folder / "disk"], check=True)
    raw.unlink()
    shutil.rmtree(root)


def finish(root: Path) -> None:
    """What is another thing where a kernel boots than where a namespace does, and what would only cost time."""
    image.write(root / "etc/cloud/cloud.cfg.d/99_guest.cfg", CLOUD)
    image.write(root / "etc/fstab", "/dev/vda / ext4 defaults,noatime 0 0\n")
    image.write(root / "etc/hostname", "guest\n")
    image.write(root / "etc/systemd/journald.conf.d/guest.conf", "[Journal]\nStorage=volatile\nForwardToConsole=no\n")
    units = root / "etc/systemd/system"
    for unit in QUIET:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/systemd-networkd.service").symlink_to(
        "/lib/systemd/system/systemd-networkd.service"
    )
    for each in DROPPED:
        shutil.rmtree(root / each, ignore_errors=True)
    for each in (root / "boot").glob("initrd*"):
        each.unlink()


def keep_drivers(root: Path, to: Path) -> None:
    """The modules that the ramdisk loads, each behind those that it needs, in a list `order`."""
    to.mkdir()
    library = max((root / "lib/modules").iterdir())
    needed = dict(line.split(":") for line in (library / "modules.dep").read_text().splitlines())
    by_name = {Path(path).stem: path for path in needed}
    order = list(dict.fromkeys(path for name in DRIVERS if name in by_name for path in behind(by_name[name], needed)))
    for path in order:
        shutil.copy2(library / path, to / Path(path).name)
    (to / "order").write_text("".join(f"{Path(path).name}\n" for path in order))


def behind(path: str, needed: Mapping[str, str]) -> Iterator[str]:
    """It and all it needs, what is needed first."""
    yield from reversed(needed[path].split())
    yield path
