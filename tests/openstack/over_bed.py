"""The fixtures of the provider contract over a real OpenStack, for each of the two ways to connect an account."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from providers.base import Connection
from providers.openstack import OpenStackProvider
from tests.openstack.bed_faults import BedFaults
from tests.openstack.conftest import BROKER
from tests.openstack.projects import LIMITS, SUBJECTS
from tests.servers.openstack import configuration


def labels_in(description):
    return dict(word.partition("=")[::2] for word in description.split())


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
    def console_says(self):
        return "FAKE CONSOLE OUTPUT"  # by Nova's fake driver

    @pytest.fixture
    def things(self, bed, project):
        """The labels of every machine, group and record in Glance, by the names that the driver has for them."""

        def things():
            groups = bed.ask("GET", f"/v2.0/security-groups?project_id={project.id}", of="network").json()
            claims = bed.ask("GET", f"/v2/images?owner={project.id}&visibility=private", of="image").json()["images"]
            return {
                **{each["name"]: each["metadata"] for each in bed.machines(project_id=project.id)},
                **{f"security group {each['id']}": labels_in(each["description"])
                   for each in groups["security_groups"] if each["name"] != "default"},
                **{f"claim {each['id']}": each for each in claims},
            }  # fmt: skip

        return things

    @pytest.fixture
    def labelled(self, things):
        return lambda order: {
            name: labels for name, labels in things().items() if labels.get("anybinder-order") == order
        }

    @pytest.fixture
    def untagged(self, things):
        """A machine's port comes and goes with it, and is not ours to tag."""
        return lambda: [name for name, labels in things().items() if "anybinder-order" not in labels]


class ByApplicationCredential(OverTheBed):
    """Made by the person, for a day."""

    @pytest.fixture
    def connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)

    @pytest.fixture
    def bad_connection(self, made):
        return Connection(kind="application_credential", settings={"id": made.id}, secret="not-the-secret")


class ByTrust(OverTheBed):
    """Without a key: the cloud trusts an issuer's tokens, by a mapping for each of the two subjects."""

    settings = {"identity_provider": BROKER}

    @pytest.fixture
    def fresh_token(self, bed, issuer, mapped):
        return lambda connection: issuer.token(sub=SUBJECTS[connection.purpose], aud=bed.url)

    @pytest.fixture
    def connection(self, project):
        return Connection(kind="oidc", settings={"project": project.id})

    @pytest.fixture
    def bad_connection(self):
        return Connection(kind="oidc", settings={"project": uuid.uuid4().hex})
