"""A Docker engine of our own: on a private socket, its images kept in the clone's `.work/docker`, which git ignores.

Several runs of one clone share it: the last that leaves stops it. What a killed run left running, the next one takes over.
Nothing here names a mirror or a certificate: both are what this computer's own apt and environment are set up with.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from broker.environments import network
from tests import servers
from tests.waiting import until

NEED = servers.Need(
    title="Docker",
    programs=(("dockerd",), ("docker",), ("iptables",), ("mmdebstrap",)),
    packages=("docker.io", "iptables", "mmdebstrap"),
)
FOLDER = Path(__file__).resolve().parent.parent.parent / ".work" / "docker"
RELEASE = "bookworm"
PACKAGES = (  # what repo2docker's recipes and ours expect of a base image beyond Debian's smallest
    *("ca-certificates", "curl", "git", "less", "locales", "procps", "python3", "python3-dev", "python3-venv"),
    *("unzip", "wget"),
)
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
KEPT = "/usr/local/share/machine-ca.pem"  # a package's installation may write CERTIFICATES anew
INDEXES = re.compile(r"(PIP|UV)_(EXTRA_|DEFAULT_)?INDEX(_URL)?|[A-Za-z]+_proxy|[A-Z]+_PROXY")
STARTED: dict[int, subprocess.Popen[bytes]] = {}  # by this run; another's may end it
BROAD = re.compile(r"Acquire::(Check-|https?::|.*::Proxy|.*Verify-)")


@dataclass(frozen=True)
class Engine:
    """A running engine. `config` is the folder that `$DOCKER_CONFIG` shall name: it has the buildx plugin."""

    url: str
    config: Path

    @property
    def environment(self) -> dict[str, str]:
        """For `docker`, repo2docker and whatever else asks the environment where the engine is."""
        return {"DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.config), "DOCKER_BUILDKIT": "1"}

    @functools.cached_property
    def base_image(self) -> str:
        """A small Debian that knows this computer's mirrors and certificates. Made once a clone, in half a minute."""
        return base_image(self)

    def docker(self, *words: str, given: str | None = None, check: bool = True) -> str:
        """The `docker` command: what it says, standard output and errors together. Fails with that."""
        ended = subprocess.run(
            ["docker", *words],
            env=os.environ | self.environment,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or ended.returncode == 0, f"docker {' '.join(words)}\n{ended.stdout}"
        return ended.stdout.strip()

    def build(self, dockerfile: str, *, name: str = "") -> str:
        """An image from this text, without any files beside it; its name. Built anew only where the text is another."""
        key = hashlib.sha256(dockerfile.encode()).hexdigest()[:12]
        tag = f"anybinder-test/{name or 'image'}:{key}"
        if not self.has(tag):
            self.docker("build", "--quiet", "--tag", tag, "-", given=dockerfile)
        return tag

    def has(self, image: str) -> bool:
        return bool(self.docker("images", "--quiet", image))

    def answers(self) -> bool:
        return "Server Version" in self.docker("info", check=False)


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """Starts in about two seconds, plus what it takes to fetch the plugin the first time."""
    assert NEED.found(), "Docker is not on this computer."
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "users.lock").open("a") as users:
        with alone("start"):
            fcntl.flock(users, fcntl.LOCK_SH)
            engine = Engine(url=found_running() or start(), config=config_with_buildx())
        try:
            yield engine
        finally:
            with alone("start"):
                stop_when_last(users.fileno())


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    with (FOLDER / f"{what}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def found_running() -> str | None:
    with contextlib.suppress(OSError):
        url = (FOLDER / "url").read_text()
        if Engine(url=url, config=FOLDER / "config").answers():
            return url
    return None


def start() -> str:
    place = Path(tempfile.mkdtemp(prefix="abdock-", dir="/tmp"))  # short: a socket's path may have at most 107 bytes
    url = f"unix://{place}/docker.sock"
    command = [
        *("dockerd", "--host", url, "--data-root", str(FOLDER / "data"), "--exec-root", str(place / "run")),
        *("--pidfile", str(place / "pid"), "--log-level", "warn"),
    ]
    with (FOLDER / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    STARTED[servers.keep(server.pid)] = server
    (FOLDER / "url").write_text(url)
    (FOLDER / "pid").write_text(str(server.pid))
    engine = Engine(url=url, config=FOLDER / "config")
    until(lambda: server.poll() is not None or engine.answers(), seconds=60, what="the engine answers")
    assert server.poll() is None, (FOLDER / "log").read_text()
    return url


def stop_when_last(users: int) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another run is at it
    place = Path((FOLDER / "url").read_text().removeprefix("unix://")).parent
    pid = int((FOLDER / "pid").read_text())
    engine = Engine(url=(FOLDER / "url").read_text(), config=FOLDER / "config")
    engine.docker("network", "rm", *network.NETWORKS.values(), check=False)
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if "dockerd" in process.name():
            process.send_signal(signal.SIGTERM)
            STARTED[pid].wait(40) if pid in STARTED else process.wait(40)
    servers.kept.discard(pid)
    network.remove_fence()
    (FOLDER / "url").unlink()
    shutil.rmtree(place, ignore_errors=True)


# --- the buildx plugin: repo2docker asks for it, and bookworm has none ----------------------------------------------


def config_with_buildx() -> Path:
    """A folder for `$DOCKER_CONFIG` with the plugin of Debian's unstable release, a program that needs nothing but libc."""
    plugin = FOLDER / "config/cli-plugins/docker-buildx"
    if not plugin.exists():
        with tempfile.TemporaryDirectory(prefix="abbuildx-") as folder:
            unpacked = fetch_package("docker-buildx", "sid", Path(folder))
            plugin.parent.mkdir(parents=True, exist_ok=True)
            draft = plugin.with_suffix(".new")
            shutil.copy2(unpacked / "usr/libexec/docker/cli-plugins/docker-buildx", draft)
            draft.rename(plugin)
    return FOLDER / "config"


def fetch_package(name: str, release: str, folder: Path) -> Path:
    """Another release's package, unpacked here; nothing of this computer's own apt changes."""
    for each in ("lists/partial", "cache/archives/partial", "unpacked"):
        (folder / each).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "sources.list").write_text(f"deb [signed-by={keyring()}] {mirrors()[RELEASE]} {release} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
    for verb in (["update"], ["download", name]):
        subprocess.run(["apt-get", "-qq", *words, *verb], check=True, cwd=folder, stdin=subprocess.DEVNULL)
    package = next(folder.glob(f"{name}_*.deb"))
    subprocess.run(["dpkg", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked"


# --- the base image -------------------------------------------------------------------------------------------------


def base_image(engine: Engine) -> str:
    variables = build_variables()
    recipe = repr((sources(), PACKAGES, variables, apt_options(), Path(bundle()).read_bytes()))
    name = f"anybinder-test/base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with alone("base"), tempfile.TemporaryDirectory(prefix="abbase-") as folder:
        if not engine.has(name):
            tar = make_debian(Path(folder) / "base.tar", PACKAGES)
            changes = [f"ENV {name}={value}" for name, value in variables.items()] + ['CMD ["bash"]']
            words = [word for change in changes for word in ("--change", change)]
            engine.docker("import", *words, str(tar), name)
    return name


def build_variables() -> dict[str, str]:
    """What a build has to know to reach the registries from here."""
    ours = {name: value for name, value in os.environ.items() if INDEXES.fullmatch(name)}
    return ours | dict.fromkeys(BUNDLES, KEPT) | {"LANG": "C.UTF-8"}


def make_debian(target: Path, packages: tuple[str, ...]) -> Path:
    """A Debian with these packages that knows this computer's mirrors and certificates; a tar file, or a folder."""
    target.parent.chmod(0o755)
    options = target.with_name("apt.conf")
    options.write_text("".join(f"{line}\n" for line in apt_options()))
    copies = [(bundle(), CERTIFICATES), (bundle(), KEPT)]
    copies += [(path, path) for path in ("/etc/pip.conf", "/etc/uv/uv.toml") if Path(path).exists()]
    hooks = [f'mkdir -p "$1{Path(target).parent}" && cp -L {source} "$1{target}"' for source, target in copies]
    command = [
        *("mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--dpkgopt=force-unsafe-io"),
        *("--aptopt=APT::Sandbox::User root", f"--aptopt={options}", f"--include={','.join(packages)}"),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(RELEASE, str(target), *sources()),
    ]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    return target


def sources() -> list[str]:
    return [f"deb {uri} {suite} main" for suite, uri in mirrors().items()]


@functools.cache
def mirrors() -> dict[str, str]:
    """Debian's suites and where this computer has them from."""
    what = "$(CREATED_BY)|$(ORIGIN)|$(CODENAME)|$(REPO_URI)"
    said = subprocess.run(["apt-get", "indextargets", "--format", what], capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in said.stdout.splitlines()]
    found = {row[2]: row[3] for row in rows if row[:2] == ["Packages", "Debian"] and row[2].startswith(RELEASE)}
    assert RELEASE in found, f"This computer's apt has no Debian {RELEASE}; `apt-get update` may help."
    return found


@functools.cache
def apt_options() -> tuple[str, ...]:
    """This computer's own way to the mirrors: proxies, and what apt is told not to insist on."""
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return tuple(line for line in said.splitlines() if BROAD.match(line) and not line.endswith('"";'))


def bundle() -> str:
    named = (os.environ.get(name) for name in BUNDLES)
    return next((path for path in named if path and Path(path).is_file()), CERTIFICATES)


def keyring() -> str:
    return "/usr/share/keyrings/debian-archive-keyring.gpg"
