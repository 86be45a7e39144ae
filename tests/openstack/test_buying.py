"""What the contract cannot ask of every cloud: OpenStack's own refusals, and its two grants."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from providers.base import Connection, InstanceState, Purpose, Resources
from providers.contract.fixtures import Fixtures
from providers.errors import BadCredential, InvalidOrder, PermissionMissing, ProviderUnavailable
from providers.openstack import needs
from tests.openstack.conftest import soon
from tests.openstack.over_bed import ByApplicationCredential, ByTrust

ENDED = (InstanceState.GONE, InstanceState.STOPPING)


class TestByApplicationCredential(ByApplicationCredential, Fixtures):
    def test_what_is_larger_than_any_host_is_taken_and_shows_as_ended_with_the_clouds_words(
        self, provider, credential, make_order, end, wait
    ):
        """Nova answers the creating call before it looks for a host: so a lack of capacity is told by looking only."""
        huge = next(each for each in provider.offers(credential, Resources()) if each.title.startswith("m3.toobig"))
        bought = provider.provision(credential, make_order(offer=huge))
        wait(lambda: provider.describe(credential, bought.id).state in ENDED, "it has failed")
        assert "No valid host was found" in provider.describe(credential, bought.id).detail
        end(bought.id, bought.tag.order)

    def test_an_access_rule_that_is_missing_is_named_and_nothing_is_left(
        self, provider, bed, project, make_order, orders_listed
    ):
        rules = [rule for rule in needs.rules() if (rule["method"], rule["path"]) != ("POST", "/v2.1/servers")]
        made = bed.application_credential(project.user, project.id, access_rules=rules, expires_at=soon(days=1))
        told = Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)
        with pytest.raises(PermissionMissing, match=r"POST.*/v2\.1/servers"):
            provider.provision(provider.sign_in(told, None), make_order())
        assert orders_listed() == []

    def test_a_credential_that_is_deleted_while_a_machine_runs_is_asked_for_and_another_ends_it(
        self, provider, bed, project, end, make_order, wait
    ):
        short = secrets.token_urlsafe(32)
        made = bed.application_credential(project.user, project.id, secret=short, access_rules=needs.rules())
        told = Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)
        revoked = provider.sign_in(told, None)
        bought = provider.provision(revoked, make_order())
        bed.delete(project.user, project.id, made)
        wait(lambda: is_refused(provider, revoked, bought.id), "the cloud's services have forgotten its token")
        with pytest.raises(BadCredential):
            provider.terminate(revoked, bought.id, bought.tag.order)
        end(bought.id, bought.tag.order)

    def test_a_cloud_that_is_busy_is_asked_again_later(self, provider, credential, gate, make_order, orders_listed):
        gate.fault("busy", "compute", "POST", "/servers")
        order = make_order()
        with pytest.raises(ProviderUnavailable, match="429"):
            provider.provision(credential, order)
        provider.provision(credential, order)
        assert orders_listed() == [order.id]

    def test_a_machine_that_somebody_has_locked_is_said_to_be_and_ends_once_it_is_unlocked(
        self, provider, credential, buy, end, bed
    ):
        bought = buy()
        (server,) = servers_named(bed, bought.id)
        bed.ask("POST", f"/servers/{server}/action", {"lock": None}, of="compute")
        with pytest.raises(InvalidOrder, match=rf"is locked”.*openstack server unlock {server}") as refused:
            provider.terminate(credential, bought.id, bought.tag.order)
        assert "it runs on" in str(refused.value)
        assert provider.describe(credential, bought.id).state is not InstanceState.GONE
        bed.ask("POST", f"/servers/{server}/action", {"unlock": None}, of="compute")
        end(bought.id, bought.tag.order)

    def test_nothing_of_an_order_that_has_ended_is_left_anywhere(self, buy, end, labelled, bed, project):
        bought = buy()
        end(bought.id, bought.tag.order)
        assert labelled(bought.tag.order) == {}
        ports = bed.ask("GET", f"/v2.0/ports?project_id={project.id}", of="network").json()["ports"]
        assert [each["id"] for each in ports if each["device_owner"].startswith("compute:")] == []


def servers_named(bed, name):
    listed = bed.ask("GET", f"/servers?all_tenants=1&name={name}", of="compute").json()["servers"]
    return [each["id"] for each in listed]


def is_refused(provider, credential, instance_id):
    try:
        provider.describe(credential, instance_id)
    except BadCredential:
        return True
    return False


class TestByTrust(ByTrust, Fixtures):
    @pytest.fixture
    def credential(self, provider, connection, fresh_token):
        """The reaper's: it also cleans up behind the tests."""
        reaper = replace(connection, purpose=Purpose.REAP)
        return provider.sign_in(reaper, fresh_token(reaper))

    def test_the_reapers_grant_ends_what_the_launchers_bought_while_that_one_opens_nothing_more(
        self, provider, connection, fresh_token, credential, make_order, bed, project, mapped, wait, labelled
    ):
        bought = provider.provision(provider.sign_in(connection, fresh_token(connection)), make_order())
        bed.withdraw_from_group(mapped[Purpose.LAUNCH], project.id, "member")
        with pytest.raises(BadCredential):
            provider.sign_in(connection, fresh_token(connection))
        assert [each.id for each in provider.instances(credential, bought.tag.broker)] == [bought.id]
        provider.terminate(credential, bought.id, bought.tag.order)
        wait(lambda: provider.describe(credential, bought.id).state is InstanceState.GONE, "it is gone")
        assert labelled(bought.tag.order) == {}


def test_no_request_was_refused_because_it_was_malformed(gate):
    assert gate.calls and gate.malformed() == []
