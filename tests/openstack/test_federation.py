"""Without a key: a real Keystone trusts the broker's tokens, verified with the keys that the broker really serves.

What verifies them stands where Apache's mod_auth_openidc would (tests/servers/openstack/inside/identity.py); users, groups, roles
and tokens are Keystone's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker import identity, people
from broker.models import Connection
from providers import base
from providers.errors import BadCredential
from providers.openstack import guides
from tests.openstack.conftest import BROKER, Account, Campus
from tests.servers import keystone
from tests.servers.keystone import Keystone

TAKEN = "did not take this broker's token"


class Trusted:
    """A project in which two groups are mapped to one person's two subjects, as the guide has it."""

    def __init__(self, cloud: Keystone, campus: Campus, account: Account) -> None:
        self.cloud, self.campus, self.project = cloud, campus, account.project
        self.trust = identity.trust(campus.at, identity.subject(campus.at, people.LOCAL.id, "backend:cloud"))
        self.groups = [
            cloud.new_group(name, self.project, role) for name, role in (("launch", "member"), ("reap", "reader"))
        ]
        self.map()

    def map(self, audience: str = "", rules: list[dict[str, Any]] | None = None) -> None:
        """The operators of the cloud do what the guide says."""
        cloud_address = self.cloud.url
        self.cloud.trust(BROKER, self.trust.issuer, audience or cloud_address, rules or self.rules())

    def rules(self) -> list[dict[str, Any]]:
        script = self.campus.backend.provider.guide("oidc", self.trust, {"project": self.project}).script
        words = script.replace("LAUNCH_GROUP", self.groups[0], -1).replace("REAP_GROUP", self.groups[1], -1)
        found: list[dict[str, Any]] = json.loads("\n".join(line for line in words.splitlines() if line[:1] != "#"))
        return found

    def connect(self, project: str = "") -> Connection:
        return self.campus.connect("oidc", project=project or self.project)

    def refusal(self, campus: Campus | None = None) -> str:
        """What the person reads who checks the connection."""
        found = (campus or self.campus).check(self.connect())
        assert found.works is False
        return found.trouble


@pytest.fixture
def trusting(make_campus: Callable[..., Campus]) -> Campus:
    return make_campus(identity_provider=BROKER)


@pytest.fixture
def trusted(cloud: Keystone, trusting: Campus, ada: Account) -> Trusted:
    return Trusted(cloud, trusting, ada)


def test_launching_and_reaping_are_two_users_with_the_roles_of_each(trusted):
    connection = trusted.connect()
    launch, reap = (trusted.campus.account(connection, purpose) for purpose in base.Purpose)
    assert launch.who.startswith(f"{trusted.trust.launch_subject} in the project paleo-")
    assert launch.who.endswith("(member, reader)")
    assert reap.who.startswith(f"{trusted.trust.reap_subject} in the project paleo-") and reap.who.endswith("(reader)")
    assert launch.reaches is None and reap.reaches is None  # the trust has no end of its own


def test_checked_and_nothing_secret_is_kept(trusted):
    row = trusted.campus.check(trusted.connect())
    assert row.works and row.secret is None and row.ends_at is None
    assert [each["name"] for each in row.findings if each["works"] is False] == []
    assert "application_credential" not in json.dumps(row.findings)


def test_the_better_way_is_offered_first_and_only_where_the_operator_says_so(trusting, make_campus):
    assert [kind.name for kind in trusting.backend.provider.kinds] == ["oidc", "application_credential"]
    assert [kind.name for kind in make_campus("other").backend.provider.kinds] == ["application_credential"]


# --- refused, and why -----------------------------------------------------------------------------------------------


def test_a_wrong_audience(trusted):
    trusted.map(audience="https://another.cloud.example/v3")
    assert f"{TAKEN}: “Audience doesn't match”" in trusted.refusal()


def test_the_operator_may_say_which_audience(make_campus, cloud, ada):
    told = Trusted(cloud, make_campus(identity_provider=BROKER, audience="the-cloud"), ada)
    told.map(audience="the-cloud")
    assert told.campus.check(told.connect()).works


def test_another_persons_subject(trusted):
    somebody = identity.trust(trusted.campus.at, identity.subject(trusted.campus.at, "somebody", "backend:cloud"))
    trusted.map(rules=[guides.rule(somebody.launch_subject, trusted.groups[0])])
    assert "knows nobody by the subject" in trusted.refusal()


def test_the_reapers_subject_opens_nothing_of_the_launchers(trusted):
    trusted.map(rules=[guides.rule(trusted.trust.launch_subject, trusted.groups[0])])
    connection = trusted.connect()
    assert trusted.campus.account(connection, base.Purpose.LAUNCH)
    with pytest.raises(BadCredential, match="knows nobody by the subject"):
        trusted.campus.account(connection, base.Purpose.REAP)


def test_an_expired_token(trusted):
    assert f"{TAKEN}: “Signature has expired”" in trusted.refusal(trusted.campus.later(hours=-1))


def test_a_token_of_the_future(trusted):
    assert f"{TAKEN}: “The token is not yet valid" in trusted.refusal(trusted.campus.later(hours=1))


@pytest.mark.parametrize("minutes", [-5, 5])
def test_clocks_that_differ_by_five_minutes(trusted, minutes):
    campus = trusted.campus.later(minutes=minutes)
    assert campus.check(trusted.connect()).works


def test_another_issuers_key(trusted, make_campus):
    """Somebody signs with a key of their own and says that they are this broker."""
    impostor = make_campus("impostor", identity_provider=BROKER)
    lying = replace(impostor.at, agent_url=trusted.campus.at.agent_url)
    assertion = base.Assertion(audience=trusted.cloud.url)
    forged = identity.token(lying, trusted.trust.launch_subject, assertion)
    plain = base.Connection(kind="oidc", settings={"project": trusted.project})
    with pytest.raises(BadCredential, match="Signed with a key that its issuer does not publish"):
        trusted.campus.backend.provider.sign_in(plain, forged)


def test_another_issuer(trusted, make_campus):
    other = make_campus("another", identity_provider=BROKER)
    row = other.check(other.connect("oidc", project=trusted.project))
    assert row.works is False and TAKEN in row.trouble


def test_a_token_signed_with_a_key_that_was_rotated_out(trusted):
    assertion = base.Assertion(audience=trusted.cloud.url)
    old = identity.token(trusted.campus.at, trusted.trust.launch_subject, assertion)
    plain = base.Connection(kind="oidc", settings={"project": trusted.project})
    provider = trusted.campus.backend.provider
    assert provider.sign_in(plain, old)
    identity.rotate(trusted.campus.at, at_once=True)
    with pytest.raises(BadCredential, match="Signed with a key that its issuer does not publish"):
        provider.sign_in(plain, old)
    assert trusted.campus.check(trusted.connect()).works  # with the key that took its place


def test_rotation_in_its_own_time_is_noticed_by_nobody(trusted):
    connection = trusted.connect()
    for _ in range(2):
        assert trusted.campus.check(connection).works
        identity.rotate(trusted.campus.at)
    assert trusted.campus.check(connection).works


def test_no_role_in_the_project(trusted, cloud):
    elsewhere = cloud.new_project("elsewhere")
    row = trusted.campus.check(trusted.connect(project=elsewhere))
    assert row.works is False and f"you have no role in the project {elsewhere}" in row.trouble


def test_a_project_that_does_not_exist(trusted):
    row = trusted.campus.check(trusted.connect(project="0" * 32))
    assert row.works is False and "you have no role in the project" in row.trouble


def test_a_cloud_that_has_never_heard_of_us(make_campus, ada):
    stranger = make_campus(identity_provider="nobody-made-this")
    row = stranger.check(stranger.connect("oidc", project=ada.project))
    assert row.works is False and TAKEN in row.trouble


def test_a_broker_whose_keys_cannot_be_asked_for(trusted):
    trusted.trust = identity.trust(trusted.campus.at, "x")
    nowhere = f"http://127.0.0.1:{keystone.settings.free_port()}"
    trusted.cloud.trust(BROKER, nowhere, trusted.cloud.url, trusted.rules())
    assert f"{TAKEN}: “<urlopen error" in trusted.refusal()
