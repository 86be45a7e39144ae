"""A real Keystone for the whole run, a real OpenStack behind a gate, and a broker whose keys they can ask for over HTTP."""

from __future__ import annotations

import datetime as dt
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from broker import backends, connections, people, service, settings
from broker.models import Connection
from broker.web import issuer as issuing
from providers import base
from providers.openstack import guides, needs
from tests.conftest import wanted
from tests.doubles.issuer_double import IssuerDouble
from tests.doubles.openstack_gate import OpenStackGate
from tests.openstack.projects import SUBJECTS, Project
from tests.servers import keystone
from tests.servers.keystone import ApplicationCredential, Keystone, User
from tests.servers.openstack.bed import NEED, Cloud, running
from tests.waiting import until

BED_SECONDS = 600
BROKER = "anybinder"
"""What Keystone calls the broker as an identity provider."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first to use the bed waits until it is made; all of them share its two cores."""
    for item in items:
        if isinstance(item, pytest.Function) and "bed" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(BED_SECONDS))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Keystone]:
    with keystone.running() as server:
        yield server


@pytest.fixture(scope="session")
def gate() -> Iterator[OpenStackGate]:
    """What stands between us and `bed`."""
    with OpenStackGate() as gate:
        yield gate


@pytest.fixture(scope="session")
def bed(gate: OpenStackGate) -> Iterator[Cloud]:
    """All of an OpenStack, published at the gate's addresses."""
    wanted(NEED)
    with running(gate.in_front_of) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def project(bed: Cloud) -> Project:
    return Project(bed)


@pytest.fixture(scope="module")
def made(bed: Cloud, project: Project) -> ApplicationCredential:
    """An application credential with the access rules of the guide, and no more."""
    narrow = {"access_rules": needs.rules(), "roles": [{"name": "member"}], "expires_at": soon(days=1)}
    short = secrets.token_urlsafe(32)  # of one that Keystone makes, bcrypt reads only the first 72 of 86 characters
    return bed.application_credential(project.user, project.id, secret=short, **narrow)


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerDouble]:
    with IssuerDouble() as issuer:
        issuer.issuer = issuer.url
        yield issuer


@pytest.fixture(scope="module")
def mapped(bed: Cloud, project: Project, issuer: IssuerDouble) -> dict[base.Purpose, str]:
    """The bed maps each of the issuer's two subjects to a group of its own that may work in the project: their ids."""
    groups = {purpose: bed.new_group(purpose, project.id, "member") for purpose in SUBJECTS}
    rules = [guides.rule(SUBJECTS[purpose], group) for purpose, group in groups.items()]
    bed.trust(BROKER, issuer.url, bed.url, rules)
    return groups


class Account:
    """Somebody with a project of their own in the cloud."""

    def __init__(self, cloud: Keystone, role: str = "member") -> None:
        self.cloud, self.user, self.project = cloud, cloud.new_user("ada"), cloud.new_project("paleo")
        cloud.grant(self.user, self.project, role)

    def credential(self, **told: Any) -> ApplicationCredential:
        """An application credential of theirs; see Keystone.application_credential."""
        return self.cloud.application_credential(self.user, self.project, **told)

    @property
    def owner(self) -> User:
        return self.user


@pytest.fixture
def ada(cloud: Keystone) -> Account:
    return Account(cloud)


class Campus:
    """A broker with this one backend, whose key list is really served."""

    def __init__(self, at: service.Service) -> None:
        self.at = at

    @property
    def backend(self) -> backends.Backend:
        return backends.named(self.at, "cloud")

    def connect(self, kind: str, **typed: str) -> Connection:
        """As the one local person."""
        found = self.backend.provider.kinds
        target = connections.target_of("cloud")
        return connections.connect(self.at, people.LOCAL, target, found, kind, typed)

    def check(self, connection: Connection) -> Connection:
        return connections.check(self.at, people.LOCAL, connection.id)

    def account(self, connection: Connection, purpose: base.Purpose = base.Purpose.LAUNCH) -> base.Credential:
        return connections.account(self.at, self.backend, connection, purpose, fresh=True).credential

    def later(self, **by: float) -> Campus:
        """The same broker with its clock moved."""
        moved = dt.timedelta(**by)
        return Campus(replace(self.at, now=lambda: dt.datetime.now(dt.UTC) + moved))


@pytest.fixture
def make_campus(cloud: Keystone, tmp_path: Path) -> Iterator[Callable[..., Campus]]:
    """Brokers with what else the backend's configuration says; each an issuer with an address of its own."""
    with ExitStack() as stack:

        def make(name: str = "home", **configuration: str) -> Campus:
            told = {"auth_url": cloud.url, "region": keystone.REGION, **configuration}
            setting = settings.BackendSetting(name="cloud", provider="openstack", configuration=told)
            port = settings.free_port()
            at = service.build(settings.Settings(home=tmp_path / name, port=port, backends=(setting,)))
            stack.callback(at.close)
            stack.enter_context(served(at, port))
            return Campus(at)

        yield make


@pytest.fixture
def campus(make_campus: Callable[..., Campus]) -> Campus:
    return make_campus()


@contextmanager
def served(at: service.Service, port: int) -> Iterator[None]:
    """What clouds read of this broker, on the port that its tokens name."""
    app = FastAPI()
    app.state.service = at
    app.include_router(issuing.router)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, what="the issuer answers")
        yield
    finally:
        server.should_exit = True
        thread.join(10)


def soon(**by: float) -> str:
    """An instant from now on, as Keystone takes it."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(**by)).strftime("%Y-%m-%dT%H:%M:%S")
