"""A real Keycloak: fetched with Maven, kept in the clone's `.work/keycloak`, which git ignores.

It is unpacked and built once a clone (half a minute), so that each start takes about fifteen seconds. Its table is in
memory: nothing of one run is met by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from keycloak import KeycloakAdmin

from broker import settings
from tests import servers
from tests.waiting import until

VERSION = "26.7.3"
SHA256 = "77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47"
NEED = servers.Need(
    title="Java with Maven, for Keycloak",
    programs=(("java",), ("mvn",)),
    packages=("openjdk-17-jre-headless", "maven"),
)
FOLDER = Path(__file__).resolve().parent.parent.parent / ".work" / "keycloak"
ADMIN = "admin"
STORED_TOKENS_V2 = "identity-brokering-api:v2"
"""The feature by which a client, not the person's role, fetches the tokens that identity providers gave a person."""


@dataclass(frozen=True, kw_only=True)
class Keycloak:
    """A running server."""

    url: str
    password: str = field(repr=False)

    def admin(self, realm: str = "master") -> KeycloakAdmin:
        """What can change everything in this realm."""
        return KeycloakAdmin(
            server_url=self.url, username=ADMIN, password=self.password, realm_name=realm, user_realm_name="master"
        )

    def issuer(self, realm: str) -> str:
        return f"{self.url}/realms/{realm}"

    def add_realm(self, realm: str) -> KeycloakAdmin:
        """An empty one, as somebody else's campus would run it."""
        admin = self.admin()
        admin.create_realm({"realm": realm, "enabled": True, "sslRequired": "none"})
        return self.admin(realm)

    def add_person(
        self,
        realm: str,
        name: str,
        *,
        groups: Sequence[str] = (),
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        """Somebody with a password that is their name, complete enough to be asked for nothing else; their id."""
        admin = self.admin(realm)
        person = admin.create_user(
            {
                "username": name,
                "enabled": True,
                "email": f"{name}@{realm}.example",
                "emailVerified": True,
                "firstName": name.capitalize(),
                "lastName": realm.capitalize(),
                "attributes": {key: list(values) for key, values in (attributes or {}).items()},
                "credentials": [{"type": "password", "value": name, "temporary": False}],
            }
        )
        for group in groups:
            self.join(realm, person, group)
        return str(person)

    def join(self, realm: str, person: str, group: str) -> None:
        admin = self.admin(realm)
        admin.group_user_add(person, admin.create_group({"name": group}, skip_exists=True) or self._group(admin, group))

    def leave(self, realm: str, person: str, group: str) -> None:
        admin = self.admin(realm)
        admin.group_user_remove(person, self._group(admin, group))

    def end_sessions(self, realm: str, person: str) -> None:
        """Sign this person out everywhere, as an administrator of Keycloak does."""
        self.admin(realm).user_logout(person)

    def sessions(self, realm: str, person: str) -> list[dict[str, Any]]:
        """Where this person is signed in, as Keycloak knows it."""
        found: list[dict[str, Any]] = self.admin(realm).get_sessions(person)
        return found

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/realms/master").status_code == 200
        return False

    @staticmethod
    def _group(admin: KeycloakAdmin, name: str) -> str:
        return str(admin.get_group_by_path(f"/{name}")["id"])


@contextlib.contextmanager
def running(*features: str) -> Iterator[Keycloak]:
    """Starts in about fifteen seconds; the first time in a clone it takes another minute."""
    program = built(features)
    port, password = settings.free_port(), secrets.token_hex(12)
    command = [
        *(str(program / "bin/kc.sh"), "start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1"),
        *(f"--http-port={port}", "--hostname-strict=false"),
    ]
    with tempfile.TemporaryDirectory(prefix="abkeycloak-") as folder, Path(folder, "log").open("w+") as log:
        variables = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": password}
        server = subprocess.Popen(
            command, cwd=folder, env=environment() | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        servers.keep(server.pid)
        made = Keycloak(url=f"http://127.0.0.1:{port}", password=password)
        try:
            until(lambda: made.answers() or server.poll() is not None, seconds=300, what="Keycloak answers")
            assert server.poll() is None, Path(folder, "log").read_text()[-3000:]
            yield made
        finally:
            end(server)
            servers.kept.discard(server.pid)


def end(server: subprocess.Popen[bytes]) -> None:
    """It is a shell with Java below it, and what is in it is not needed any more."""
    below = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.terminate()
    server.wait(20)
    psutil.wait_procs(below, timeout=20)


def environment() -> dict[str, str]:
    """Ours, with the newest Java of this computer, and no more memory than a few realms need."""
    return os.environ | {"JAVA_HOME": str(java_home()), "JAVA_OPTS_KC_HEAP": "-Xms128m -Xmx512m"}


@functools.cache
def java_home() -> Path:
    """Keycloak likes 21 and later; 17 runs it too."""
    java = servers.program("java")
    assert java, "Java is not on this computer."
    homes = {
        Path(java).resolve().parent.parent,
        *(path.parent.parent for path in Path("/usr/lib/jvm").glob("*/bin/java")),
    }
    return max(homes, key=java_version)


def java_version(home: Path) -> int:
    said = subprocess.run([home / "bin/java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


# --- once a clone ---------------------------------------------------------------------------------------------------


def built(features: Sequence[str]) -> Path:
    """The folder of a Keycloak with these features, made where it is not there yet."""
    assert NEED.found(), "Java and Maven are not on this computer."
    FOLDER.mkdir(parents=True, exist_ok=True)
    place = FOLDER / "-".join([VERSION, *(re.sub(r"\W", "-", feature) for feature in features)])
    with (FOLDER / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            draft = unpacked(FOLDER / f"{place.name}.new")
            build(draft, features)
            draft.rename(place)
    return place


def unpacked(draft: Path) -> Path:
    shutil.rmtree(draft, ignore_errors=True)
    with tarfile.open(archive()) as packed:
        packed.extractall(draft, filter="tar")
    return next(draft.iterdir())


def archive() -> Path:
    """Keycloak as its project publishes it. Maven knows where from: this computer's settings may name a mirror."""
    path = FOLDER / f"keycloak-quarkus-dist-{VERSION}.tar.gz"
    if not path.exists():
        artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz"
        quietly("mvn", "--quiet", "--batch-mode", "dependency:copy", artifact, f"-DoutputDirectory={FOLDER}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        path.unlink()
        raise AssertionError(f"{path.name} is not what was pinned: its SHA-256 is {found}.")
    return path


def build(place: Path, features: Sequence[str]) -> None:
    """Its settings for tests, worked into it."""
    chosen = [f"--features={','.join(features)}"] if features else []
    quietly(str(place / "bin/kc.sh"), "build", "--db=dev-mem", "--cache=local", *chosen)


def quietly(*command: str) -> None:
    """To its end; what it says is shown only where it fails."""
    ended = subprocess.run(
        command, cwd=FOLDER, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command[0]}: {ended.stdout[-3000:]}{ended.stderr[-3000:]}"
