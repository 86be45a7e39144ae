"""The provider contract over a real OpenStack: Keystone, Glance, Placement, Nova and Neutron answer, and enforce."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping

import pytest

from providers.base import Connection, Purpose
from providers.contract import ProviderContract
from providers.openstack import OpenStackProvider, guides, needs
from tests.doubles.issuer_double import IssuerDouble
from tests.openstack.bed_faults import BedFaults
from tests.openstack.conftest import BROKER, soon
from tests.openstack.projects import LIMITS, Project
from tests.servers.openstack import configuration

SUBJECTS = {Purpose.LAUNCH: "launch:abcdefghijklmnopqrstuvwxyz", Purpose.REAP: "reap:abcdefghijklmnopqrstuvwxyz"}


@pytest.fixture(scope="module")
def project(bed):
    return Project(bed)


@pytest.fixture(scope="module")
def made(bed, project):
    """An application credential with the access rules of the guide, and no more."""
    narrow = {"access_rules": needs.rules(), "roles": [{"name": "member"}], "expires_at": soon(days=1)}
    short = secrets.token_urlsafe(32)  # of one that Keystone makes, bcrypt reads only the first 72 of 86 characters
    return bed.application_credential(project.user, project.id, secret=short, **narrow)


@pytest.fixture(scope="module")
def issuer():
    with IssuerDouble() as issuer:
        issuer.issuer = issuer.url
        yield issuer


@pytest.fixture(scope="module")
def trusted(bed, project, issuer):
    """The bed maps the issuer's two subjects to a group that may work in the project."""
    group = bed.new_group("people", project.id, "member")
    bed.trust(BROKER, issuer.url, bed.url, [guides.rule(subject, group) for subject in SUBJECTS.values()])


class OverTheBed:
    """Mixed in before `ProviderContract`."""

    settings: Mapping[str, str] = {}

    @pytest.fixture
    def provider(self, bed):
        return OpenStackProvider({"auth_url": bed.url, "region": configuration.REGION, **self.settings})

    @pytest.fixture
    def faults(self, bed, gate, project):
        """A token that was revoked is one of the same person's."""

        def revoked():
            token = bed.token(project.user, project_id=project.id)
            bed.client.delete("/auth/tokens", headers={"X-Auth-Token": bed.admin, "X-Subject-Token": token})
            return token

        gate.revoked = revoked
        return BedFaults(bed, gate, project.id, LIMITS)

    @pytest.fixture
    def advance(self, faults):
        return faults.advance

    @pytest.fixture
    def patience(self):
        return 60

    @pytest.fixture
    def at_once(self):
        """Six services share two cores with all else that is tested; its minutes are longer yet."""
        return 20

    @pytest.fixture
    def billed(self, faults):
        return faults.of_order

    @pytest.fixture
    def untagged(self, bed, project):
        """Machines, groups and images of the project without a tag; ports come and go with their machine."""

        def untagged():
            machines = [
                each["name"]
                for each in bed.machines(project_id=project.id)
                if "anybinder-order" not in each["metadata"]
            ]
            groups = bed.ask("GET", f"/v2.0/security-groups?project_id={project.id}", of="network").json()[
                "security_groups"
            ]
            images = bed.ask("GET", f"/v2/images?owner={project.id}&visibility=private", of="image").json()["images"]
            return [
                *machines,
                *(
                    each["name"]
                    for each in groups
                    if each["name"] != "default" and "anybinder-order" not in each["description"]
                ),
                *(each["name"] for each in images if "anybinder-order" not in each),
            ]

        return untagged


class TestApplicationCredential(OverTheBed, ProviderContract):
    """Made by the person, for a day."""

    @pytest.fixture
    def connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)

    @pytest.fixture
    def bad_connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret="not-the-secret")


class TestTrust(OverTheBed, ProviderContract):
    """Without a key: the cloud trusts an issuer's tokens, by a mapping for each of the two subjects."""

    settings = {"identity_provider": BROKER}

    @pytest.fixture
    def fresh_token(self, bed, issuer, trusted):
        return lambda connection: issuer.token(sub=SUBJECTS[connection.purpose], aud=bed.url)

    @pytest.fixture
    def connection(self, project):
        return Connection(kind="oidc", settings={"project": project.id})

    @pytest.fixture
    def bad_connection(self):
        return Connection(kind="oidc", settings={"project": uuid.uuid4().hex})


def test_no_request_was_refused_because_it_was_malformed(gate):
    """By Nova's, Keystone's and Glance's own JSON schemas and Neutron's attribute maps, in all that was asked above."""
    assert gate.calls and gate.malformed() == []
