"""A hub for upstream's own black-box tests: their repositories at hand, in containers where there is an engine.

    unshare --mount python -m tests.clients.hub REPOSITORIES [-- COMMAND …]

REPOSITORIES holds `binderhub-ci-repos/<name>` as bare clones. In this mount namespace github.com is this computer, so
links that name its address lead there; GitHub's and GitLab's interfaces are answered by the tests' doubles. The command
runs with BINDER_URL set, and the hub ends with it; without a command it runs until it is interrupted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.doubles import confined_local
from tests.doubles.git_server import GitServer
from tests.doubles.github_double import GitHubDouble
from tests.doubles.gitlab_double import GitLabDouble
from tests.journeys.conftest import Broker
from tests.servers import docker

NAME = "github.com"
BASE = "jupyterhub/binderhub-ci-repos_minimal-dockerfile:latest"
"""What upstream's repository builds on; here an image of our own by that name, as nothing is pulled."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def main(arguments: list[str]) -> int:
    root, command = Path(arguments[0]).resolve(), arguments[2:]
    folder = Path(tempfile.mkdtemp(prefix="abhub-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(this_is_github(root, folder))
        github = stack.enter_context(GitHubDouble(root))
        gitlab = stack.enter_context(GitLabDouble(with_endings(root, folder)))
        engine = stack.enter_context(docker.running())
        environment = hub_environment(folder, github, gitlab, engine)
        broker = Broker(folder / "home", environment)
        stack.callback(broker.close)
        broker.start("up", "--no-browser", "--port", "0")
        broker.wait()
        stack.callback(confined_local.end_all, broker.home)
        url = f"http://{broker.address['host']}:{broker.address['port']}"
        print(f"{url}\nits log: {broker.home / 'up.log'}", flush=True)
        if command:
            return subprocess.run(command, env={**os.environ, "BINDER_URL": url}, check=False).returncode
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


def hub_environment(folder: Path, github: GitHubDouble, gitlab: GitLabDouble, engine: docker.Engine) -> dict[str, str]:
    """An embedded broker whose links run in containers, and which says that it is the version upstream's tests expect."""
    from tests.docker import images

    engine.docker("tag", images.jupyter(engine), BASE)
    configuration = {
        "engine": "docker",
        "engine_url": engine.url,
        "engine_config": str(engine.config),
        "base_image": engine.base_image,
    }
    hosts = {
        "gh": {"api": github.api, "url": github.url},
        "gl": {"api": gitlab.api, "url": gitlab.url},
        "git": {"url": f"https://{NAME}"},
    }
    versions = {"builder_info": {"repo2docker-version": _version("jupyter-repo2docker")}}
    if told := os.environ.get("UPSTREAM_VERSION"):
        versions["binderhub"] = told  # type: ignore[assignment]
    return {
        **engine.environment,
        "ANYBINDER_BACKENDS": json.dumps([{"name": "engine", "provider": "local", "configuration": configuration}]),
        "ANYBINDER_BINDER_BACKEND": "engine",
        "ANYBINDER_HOSTS": json.dumps(hosts),
        "ANYBINDER_VERSIONS": json.dumps(versions),
        "ANYBINDER_RATE_LIMIT": "0",
    }


def _version(name: str) -> str:
    return metadata.version(name)


def with_endings(root: Path, folder: Path) -> Path:
    """The same repositories under the names that GitLab clones by."""
    made = folder / "gitlab"
    for repository in root.glob("*/*"):
        link = made / repository.parent.name / f"{repository.name.removesuffix('.git')}.git"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repository)
    return made


@contextlib.contextmanager
def this_is_github(root: Path, folder: Path) -> Iterator[None]:
    """In this mount namespace, github.com is a git server of ours, with a certificate that is believed."""
    pem, certificate = made_out_to(NAME, folder)
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + f"127.0.0.1 {NAME}\n")
    (folder / "ca").write_bytes(Path(CERTIFICATES).read_bytes() + certificate)
    for source, target in (("hosts", "/etc/hosts"), ("ca", CERTIFICATES)):
        subprocess.run(["mount", "--bind", folder / source, target], check=True)
    with GitServer(root, certificate=pem) as server, forwarded(443, server.port):
        yield


def made_out_to(name: str, folder: Path) -> tuple[Path, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = folder / "server.pem"
    pem.write_bytes(secret + made)
    return pem, made


@contextlib.contextmanager
def forwarded(port: int, to: int) -> Iterator[None]:
    """This port of 127.0.0.1 is that one: a server takes a free port, https has a fixed one."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=_accept, args=(listening, to), daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, to: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            here, _ = listening.accept()
            there = socket.create_connection(("127.0.0.1", to))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
