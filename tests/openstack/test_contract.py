"""The provider contract over a real OpenStack: Keystone, Glance, Placement, Nova and Neutron answer, and enforce."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from providers.base import Connection, Purpose
from providers.contract import ProviderContract
from providers.openstack import OpenStackProvider, guides, needs
from tests.doubles.issuer_double import IssuerDouble
from tests.openstack.bed_faults import BedFaults
from tests.openstack.conftest import BROKER, soon
from tests.servers.openstack import configuration

LIMITS = {"instances": 30, "cores": 200, "ram": 999_999}
SUBJECTS = {Purpose.LAUNCH: "launch:abcdefghijklmnopqrstuvwxyz", Purpose.REAP: "reap:abcdefghijklmnopqrstuvwxyz"}


class Project:
    """Somebody's, with room for what the tests buy."""

    def __init__(self, bed) -> None:
        self.user, self.id = bed.new_user("ada"), bed.new_project("paleo")
        bed.grant(self.user, self.id, "member")
        bed.quota(self.id, **LIMITS)
        bed.ask("PUT", f"/v2.0/quotas/{self.id}", {"quota": {"security_group": 100, "port": 100}}, of="network")
        self.network = bed.network(self.id, bed.token(self.user, project_id=self.id))


@pytest.fixture(scope="module")
def project(bed):
    return Project(bed)


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
    """With the access rules of the guide, and no more."""

    @pytest.fixture(scope="class")
    def made(self, bed, project):
        return bed.application_credential(
            project.user, project.id, access_rules=needs.rules(), roles=[{"name": "member"}], expires_at=soon(days=1)
        )

    @pytest.fixture
    def connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)

    @pytest.fixture
    def bad_connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret="not-the-secret")


class TestTrust(OverTheBed, ProviderContract):
    """Without a key: the cloud trusts an issuer's tokens, by a mapping for each of the two subjects."""

    @pytest.fixture(scope="class")
    def issuer(self):
        with IssuerDouble() as issuer:
            issuer.issuer = issuer.url
            yield issuer

    @pytest.fixture(scope="class")
    def trusted(self, bed, project, issuer):
        group = bed.new_group("people", project.id, "member")
        rules = [guides.rule(subject, group) for subject in SUBJECTS.values()]
        bed.trust(BROKER, issuer.url, bed.url, rules)

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
