"""A real OpenStack Keystone (30.0.0, from PyPI) on a free port of this computer, on SQLite, made from nothing in 5 s.

    with keystone.running() as server:
        project, ada = server.new_project("paleo"), server.new_user("ada")
        server.grant(ada, project, "member")
        credential = server.application_credential(ada, project, expires_at=…, access_rules=[…])
        server.trust("anybinder", issuer, audience, rules)       # federation: the issuer's keys are really asked for

Beside it stand-ins for Nova, Glance and Neutron, behind the real keystonemiddleware: see `openstack/inside/keystone_alone.py`.
The real ones are in `tests.servers.openstack`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from broker import settings
from tests import servers
from tests.servers.openstack import packages
from tests.waiting import until

PROGRAM = Path(__file__).resolve().parent / "openstack" / "inside" / "keystone_alone.py"
REGION = "RegionOne"
DOMAIN = "default"
ADMIN = "admin"

Words = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a password in it, as `openstack` is signed in with."""

    id: str
    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ApplicationCredential:
    """What a person copies into a form."""

    id: str
    secret: str = field(repr=False)


class Keystone:
    """A running Keystone, and what its operator and its users do to it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.root, self.folder = f"http://127.0.0.1:{port}", folder
        self.client = httpx.Client(base_url=f"{self.root}/v3", timeout=20, trust_env=False)
        self.admin = ""
        self.roles: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Its `auth_url`."""
        return f"{self.root}/v3"

    def ask(self, method: str, path: str, told: Words | None = None, *, token: str = "") -> httpx.Response:
        """One request, as the operator where no token is given. Raises where it is refused."""
        found = self.client.request(method, path, json=told, headers={"X-Auth-Token": token or self.admin})
        if found.is_error:
            raise AssertionError(f"{method} {path}: {found.status_code} {found.text[:500]}")
        return found

    def begin(self) -> None:
        """Sign in as the operator, and publish the services in the catalogue."""
        password = (self.folder / "password").read_text()
        self.admin = self.token(User(id="", name=ADMIN, password=password), project_name=ADMIN)
        self.roles = {role["name"]: role["id"] for role in self.ask("GET", "/roles").json()["roles"]}
        for kind, url in json.loads((self.folder / "published.json").read_text()).items():
            service = self.ask("POST", "/services", {"service": {"type": kind, "name": kind}}).json()["service"]
            told = {"service_id": service["id"], "interface": "public", "url": url, "region_id": REGION}
            self.ask("POST", "/endpoints", {"endpoint": told})

    def token(self, user: User, **scope: str) -> str:
        """Signed in with the password, to the project named by `project_name` or `project_id`."""
        project = {"domain": {"id": DOMAIN}, "name": scope["project_name"]} if "project_name" in scope else {}
        project = project or {"id": scope["project_id"]}
        person = {"name": user.name, "domain": {"id": DOMAIN}, "password": user.password}
        identity = {"methods": ["password"], "password": {"user": person}}
        told = {"auth": {"identity": identity, "scope": {"project": project}}}
        return self.ask("POST", "/auth/tokens", told).headers["X-Subject-Token"]

    def new_project(self, name: str) -> str:
        """The id of a project of this name and something that makes it unique."""
        told = {"project": {"name": f"{name}-{uuid.uuid4().hex[:6]}", "domain_id": DOMAIN}}
        return self.ask("POST", "/projects", told).json()["project"]["id"]

    def new_user(self, name: str) -> User:
        """Somebody without a role anywhere."""
        password = secrets.token_urlsafe(16)
        told = {"name": f"{name}-{uuid.uuid4().hex[:6]}", "password": password, "domain_id": DOMAIN}
        made = self.ask("POST", "/users", {"user": told}).json()["user"]
        return User(id=made["id"], name=made["name"], password=password)

    def new_group(self, name: str, project: str, role: str) -> str:
        """The id of a group whose members have this role in the project."""
        told = {"group": {"name": f"{name}-{uuid.uuid4().hex[:6]}", "domain_id": DOMAIN}}
        group = self.ask("POST", "/groups", told).json()["group"]["id"]
        self.ask("PUT", f"/projects/{project}/groups/{group}/roles/{self.role(role)}")
        return group

    def withdraw_from_group(self, group: str, project: str, role: str) -> None:
        """Its members have this role there no more."""
        self.ask("DELETE", f"/projects/{project}/groups/{group}/roles/{self.role(role)}")

    def role(self, name: str) -> str:
        """The id of this role, which is made where it does not exist."""
        if name not in self.roles:
            self.roles[name] = self.ask("POST", "/roles", {"role": {"name": name}}).json()["role"]["id"]
        return self.roles[name]

    def grant(self, user: User, project: str, role: str) -> None:
        """This role in the project."""
        self.ask("PUT", f"/projects/{project}/users/{user.id}/roles/{self.role(role)}")

    def withdraw(self, user: User, project: str, role: str) -> None:
        """It has this role there no more."""
        self.ask("DELETE", f"/projects/{project}/users/{user.id}/roles/{self.role(role)}")

    def application_credential(self, user: User, project: str, **told: Any) -> ApplicationCredential:
        """One of this person's own making. `told`: `access_rules`, `expires_at`, `roles`, `unrestricted` as Keystone says."""
        wanted = {"name": f"test-{uuid.uuid4().hex[:8]}", **told}
        made = self.ask(
            "POST",
            f"/users/{user.id}/application_credentials",
            {"application_credential": wanted},
            token=self.token(user, project_id=project),
        ).json()["application_credential"]
        return ApplicationCredential(id=made["id"], secret=made["secret"])

    def delete(self, user: User, project: str, credential: ApplicationCredential) -> None:
        """The person deletes it."""
        path = f"/users/{user.id}/application_credentials/{credential.id}"
        self.ask("DELETE", path, token=self.token(user, project_id=project))

    def trust(self, idp: str, issuer: str, audience: str, rules: Sequence[Words], protocol: str = "openid") -> None:
        """As an operator makes an issuer an identity provider: who is verified, and who its subjects are here."""
        file = self.folder / "trust.json"
        trusted = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**trusted, idp: {"issuer": issuer, "audience": audience}}))
        base = f"/OS-FEDERATION/identity_providers/{idp}"
        mapping = f"{idp}-{uuid.uuid4().hex[:6]}"
        self.client.delete(base, headers={"X-Auth-Token": self.admin})
        self.ask("PUT", base, {"identity_provider": {"enabled": True, "remote_ids": [issuer], "domain_id": DOMAIN}})
        self.ask("PUT", f"/OS-FEDERATION/mappings/{mapping}", {"mapping": {"rules": list(rules)}})
        self.ask("PUT", f"{base}/protocols/{protocol}", {"protocol": {"mapping_id": mapping}})

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def running() -> Iterator[Keystone]:
    """Five seconds, after the first time."""
    python, port = packages.environment(), settings.free_port()
    with tempfile.TemporaryDirectory(prefix="abkeystone-") as name:
        folder = Path(name)
        (folder / "password").write_text(secrets.token_urlsafe(16))
        log = folder / "log"
        with log.open("wb") as out:
            command = [str(python), "-I", "-W", "ignore", str(PROGRAM), name, str(port)]
            process = subprocess.Popen(command, cwd=name, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        servers.keep(process.pid)
        server = Keystone(port, folder)
        try:
            until(lambda: (folder / "published.json").exists() or process.poll() is not None, seconds=60,
                  what="Keystone is begun")  # fmt: skip
            assert process.poll() is None, log.read_text()[-4000:]
            server.begin()
            yield server
        finally:
            server.close()
            process.terminate()
            process.wait(20)
            servers.kept.discard(process.pid)
