"""What a build needs on a bought machine, and nothing else: brought once it is known, with lines for the person.

    python bringing.py WHAT …          `python`, `git`, `image` or `images`; told on standard output, as a builder tells

`image` runs an image that is there already, so no builder is installed for it; `images` builds with repo2docker.
Standard library only; it lies in the builder's archive, beside `machine.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time

sys.path[0:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from broker import machine

ENGINE = "/var/run/docker.sock"
BASE_IMAGE = "docker.io/library/buildpack-deps:jammy"  # repo2docker's own, as the provider `local` has it
REPO2DOCKER = ("docker==", "jupyter-repo2docker==", "uv==")
PYTHON = (3, 11)
PACKAGES = {
    "git": ("git",),
    "python": (),
    "image": ("docker.io", "iptables", "python3-docker"),
    "images": ("docker.io", "docker-buildx", "git", "iptables"),
}
"""What the system's package manager gives. Debian calls a package's program as this says (`there`)."""
SIGNS = {
    "git": "git",
    "python3-venv": "/usr/share/python-wheels",
    "docker.io": "dockerd",
    "iptables": "iptables",
    "docker-buildx": "/usr/libexec/docker/cli-plugins/docker-buildx",
    "python3-docker": "/usr/lib/python3/dist-packages/docker/__init__.py",
}
OPTIONAL = ("docker-buildx",)  # Debian 12 has none; the builder says so where it is missed


def main(wanted):
    """Bring all of it, telling the agent on standard output; 0 where it is there. May be repeated."""
    told = json.loads(machine.read(os.path.join(machine.HOME, "parcels.json")).decode())
    brought = {}
    try:
        if sys.version_info < PYTHON:
            raise machine.Trouble("its image has Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
        if machine.GUEST and any(what.startswith("image") for what in wanted):
            raise machine.Trouble(
                "on a server of your own nothing runs in containers. What needs more than Python runs at another place"
            )
        install(sorted({package for what in wanted for package in PACKAGES[what] if not there(package)}))
        for what in wanted:
            brought.update(BRINGERS[what](told))
    except (machine.Trouble, OSError, subprocess.SubprocessError) as fault:
        tell("failed", "This machine cannot be made ready to build: %s." % str(fault).rstrip("."))
        return 1
    tell("fetching", "This machine is ready to build", brought=brought)
    return 0


def there(package):
    """Whether what this package brings is on the machine, by whatever way it came there."""
    sign, path = SIGNS[package], machine.environment()["PATH"]
    return os.path.exists(sign) if sign.startswith("/") else shutil.which(sign, path=path) is not None


def install(packages):
    """By the system's own package manager. Raises Trouble with its last words, where something is not there then."""
    if not packages:
        return
    if machine.GUEST:
        named = " ".join(packages)
        raise machine.Trouble(
            "your server has no %s, and nothing is installed into it. Install that there (sudo apt install %s) and launch again"
            % (named, named)
        )
    tell("fetching", "Installing %s" % ", ".join(packages))
    wait_for_cloud_init()
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3"]
    env = dict(machine.environment(), DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    said = apt_get([*apt, "update"], env)
    wanted = [each for each in packages if each not in OPTIONAL or is_known(each, env)]
    said = apt_get([*apt, "install", "--yes", "--no-install-recommends", *wanted], env) or said
    missing = [each for each in wanted if not there(each)]
    if missing:
        raise machine.Trouble("%s cannot be installed (%s)" % (", ".join(missing), said or "no reason given"))


def apt_get(command, env):
    """What it said last, where it did not end well. Tried again while another holds its lock."""
    for _ in range(60):
        ended = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        said = ended.stderr.decode("utf-8", "replace").strip()
        if not ended.returncode:
            return ""
        if "lock" not in said:
            break
        time.sleep(2)
    return (said.splitlines() or ["apt-get failed"])[-1]


def is_known(package, env):
    shown = subprocess.run(["apt-cache", "show", package], env=env, capture_output=True, check=False)
    return shown.returncode == 0


def wait_for_cloud_init():
    """It writes the list of package sources itself, some seconds after we began."""
    give_up = time.monotonic() + 60
    while os.path.isdir("/run/cloud-init") and not os.path.exists("/run/cloud-init/result.json"):
        if time.monotonic() > give_up:
            return
        time.sleep(0.2)


def bring_git(_told):
    return {}


def bring_python(told):
    """The builder and `uv`: for an environment that needs no container."""
    bring_uv(told)
    return {"builder": [sys.executable, "-I", machine.BUILDER]}


def bring_image(told):
    """An engine, and a builder that has it run an image that is there already: nothing that builds."""
    start_engine()
    return {"builder": [sys.executable, "-I", machine.BUILDER], "engine": engine(told["order"])}


def bring_images(told):
    """An engine, and repo2docker in an environment of its own, from the versions and digests that the broker names."""
    bring_uv(told)
    start_engine()
    place = os.path.join(machine.HOME, "repo2docker")
    python = os.path.join(place, "bin", "python")
    if not os.path.exists(python):
        tell("fetching", "Installing repo2docker")
        lock = machine.put("builder.lock", machine.fetch(told, "builder.lock"))
        uv = [os.path.join(machine.HOME, "bin", "uv"), "--quiet"]
        machine.run([*uv, "venv", "--python", sys.executable, place])
        pins = [line.split()[0] for line in machine.read(lock).decode().splitlines() if line.startswith(REPO2DOCKER)]
        machine.run([*uv, "pip", "install", "--python", python, "--require-hashes", "-c", lock, *pins])
    return {"builder": [python, "-I", machine.BUILDER], "engine": engine(told["order"])}


def start_engine():
    """Returns once it answers. Raises Trouble where it does not within a minute."""
    if os.path.isdir("/run/systemd/system"):
        subprocess.run(["systemctl", "start", "docker"], check=False)
    give_up = time.monotonic() + 60
    while True:
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
                door.connect(ENGINE)
            return
        except OSError as fault:
            if time.monotonic() > give_up:
                raise machine.Trouble("the container engine does not start (%s)" % fault.strerror) from None
        time.sleep(0.1)


def engine(order):
    """How the builder and the container's server use it: one container, which may have nearly all of the machine."""
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "kind": "docker",
        "url": "unix://" + ENGINE,
        "config": os.path.join(machine.HOME, "docker"),
        "memory_mb": max(256, megabytes - max(256, megabytes // 10)),
        "cpu": os.cpu_count() or 1,
        "pids": machine.PROCESSES,
        "network": "fenced",
        "network_allowed": [],
        "labels": {"anybinder-order": order},
        "base_image": BASE_IMAGE,
        "builder": "uv",
        "registry": "",
    }


def bring_uv(told):
    """From the broker, where that has one for such a machine; else by this machine's own pip, of the same version."""
    if os.path.exists(os.path.join(machine.HOME, "bin", "uv")):
        return
    os.makedirs(os.path.join(machine.HOME, "bin"), exist_ok=True)
    name = "uv-" + platform.machine()
    if name in told["files"]:
        machine.put("bin/uv", machine.fetch(told, name), mode=0o755)
        return
    if "uv.lock" not in told["files"]:
        raise machine.Trouble("the broker has no uv for a machine of this kind (%s)" % platform.machine())
    tell("fetching", "Installing uv")
    install(["python3-venv"])
    lock, place = machine.put("uv.lock", machine.fetch(told, "uv.lock")), os.path.join(machine.HOME, "uv")
    machine.run([sys.executable, "-m", "venv", place])
    machine.run([os.path.join(place, "bin", "pip"), "install", "--quiet", "--require-hashes", "-r", lock])
    os.symlink(os.path.join(place, "bin", "uv"), os.path.join(machine.HOME, "bin", "uv"))


BRINGERS = {"git": bring_git, "python": bring_python, "image": bring_image, "images": bring_images}


def tell(phase, message, **more):
    """One line for the agent."""
    print(json.dumps(dict(more, phase=phase, message=message)), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
