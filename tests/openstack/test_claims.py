"""Claims in a real Glance: who may buy when a holder died, and what nobody buys again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from providers.base import Connection, InstanceState, Purpose
from providers.contract.fixtures import Fixtures
from providers.openstack import OpenStackProvider, claims, needs, servers
from tests.openstack.conftest import soon
from tests.openstack.projects import Project
from tests.servers.openstack import configuration

PENDING, STOPPING = InstanceState.PENDING, InstanceState.STOPPING


class OnTheBed(Fixtures):
    """With an application credential of somebody whose project is used by nothing else."""

    settings: Mapping[str, str] = {}

    @pytest.fixture
    def provider(self, bed):
        return OpenStackProvider({"auth_url": bed.url, "region": configuration.REGION, **self.settings})

    @pytest.fixture
    def project(self, bed):
        return Project(bed)

    @pytest.fixture
    def connection(self, bed, project):
        rules = needs.rules(addresses=bool(self.settings))
        told = {"access_rules": rules, "expires_at": soon(days=1), "secret": secrets.token_urlsafe(32)}
        made = bed.application_credential(project.user, project.id, **told)
        return Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)

    @pytest.fixture
    def patience(self):
        return 60


def machines(bed, project, order):
    """What Nova's operator sees of it."""
    return [each for each in bed.machines(project_id=project.id) if each["metadata"].get("anybinder-order") == order]


class TestClaims(OnTheBed):
    def test_a_claim_whose_holder_died_holds_its_order_until_nothing_of_it_can_be_on_its_way(
        self, provider, another, credential, make_order, orders_listed, bed, project, monkeypatch
    ):
        order = make_order()
        with provider._services(credential) as services:
            assert claims.take(services, order)
        assert provider.provision(credential, order).state is PENDING
        assert orders_listed() == [order.id] and machines(bed, project, order.id) == []
        monkeypatch.setattr(claims, "SETTLE_SECONDS", 0)
        assert provider.describe(credential, f"anybinder-{order.id}").state is STOPPING
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda _: another().provision(credential, order), range(3)))
        assert len(machines(bed, project, order.id)) == 1, "one of them followed"

    def test_a_machine_that_somebody_else_deleted_is_not_bought_again(
        self, provider, credential, make_order, bed, project, wait, monkeypatch
    ):
        monkeypatch.setattr(claims, "SETTLE_SECONDS", 0)
        order = make_order()
        bought = provider.provision(credential, order)
        for machine in machines(bed, project, order.id):
            bed.ask("DELETE", f"/servers/{machine['id']}", of="compute")
        wait(lambda: machines(bed, project, order.id) == [], "it is deleted")
        assert provider.describe(credential, bought.id).state is STOPPING
        again = provider.provision(credential, order)
        assert (again.id, again.state) == (bought.id, STOPPING)
        assert "was deleted" in again.detail and machines(bed, project, order.id) == []

    def test_of_twins_everyone_keeps_the_same_one(
        self, provider, another, credential, make_order, buy, bed, project, wait
    ):
        """What a network can do that delivers a request twice, much later."""
        bought = buy()
        order = make_order(bought.tag.order)
        with provider._services(credential) as services:
            (first,) = servers.of_order(services, order.id)
            group = bed.ask("GET", f"/servers/{first.id}/os-security-groups", of="compute").json()["security_groups"][0]
            image = next(
                each
                for each in bed.ask("GET", "/v2/images", of="image").json()["images"]
                if each["visibility"] == "public"
            )
            wanted = servers.Wanted(
                flavor=order.offer.id, image=image["id"], group=group["id"], network=project.network
            )
            servers.create(services, order, wanted)
        assert another().describe(credential, bought.id).id == bought.id
        wait(lambda: [each["id"] for each in machines(bed, project, order.id)] == [first.id], "the younger is gone")

    def test_its_firewall_lets_everything_out_and_nothing_in(self, buy, bed, project):
        bought = buy()
        listed = bed.ask("GET", f"/v2.0/security-groups?project_id={project.id}", of="network").json()
        (group,) = [each for each in listed["security_groups"] if bought.tag.order in each["description"]]
        assert {rule["direction"] for rule in group["security_group_rules"]} == {"egress"}
        (machine,) = machines(bed, project, bought.tag.order)
        assert [each["name"] for each in machine["security_groups"]] == [bought.id]


class TestAddresses(OnTheBed):
    """Where the operator says that nothing dials out without one."""

    settings = {"floating_network": "public"}

    @pytest.fixture
    def reaping(self, bed, project, provider):
        """Of the second application credential, which may look and delete only."""
        rules = needs.rules(purpose=Purpose.REAP, addresses=True)
        told = {"access_rules": rules, "expires_at": soon(days=1), "secret": secrets.token_urlsafe(32)}
        made = bed.application_credential(project.user, project.id, **told)
        connection = Connection(kind="application_credential", settings={"id": made.id}, secret=made.secret)
        return provider.sign_in(connection, None)

    @pytest.fixture
    def given_back(self, bed, project):
        def given_back(order):
            """What Neutron's operator sees of it, of every kind that is billed or named."""
            kinds = ("floatingips", "ports", "security-groups")
            lists = (bed.ask("GET", f"/v2.0/{kind}?project_id={project.id}", of="network").json() for kind in kinds)
            left = [each for told in lists for found in told.values() for each in found]
            return not any(order in (each["description"] or "") for each in left)

        return given_back

    def test_the_grant_that_only_cleans_up_gives_back_card_and_address(self, provider, buy, reaping, wait, given_back):
        bought = buy()
        (listed,) = provider.instances(reaping, bought.tag.broker)
        assert {part.rpartition(" ")[0] for part in listed.parts} == {"floating address", "port", "security group"}

        def gone():
            provider.terminate(reaping, bought.id, bought.tag.order)
            return provider.describe(reaping, bought.id).state is InstanceState.GONE

        wait(gone, "it is gone")
        assert given_back(bought.tag.order)

    def test_a_machine_has_an_address_that_is_given_back_with_it(self, provider, credential, buy, end, bed, project):
        bought = buy()

        def addresses():
            listed = bed.ask("GET", f"/v2.0/floatingips?project_id={project.id}", of="network").json()["floatingips"]
            return [each for each in listed if bought.tag.order in each["description"]]

        (address,) = addresses()
        assert address["fixed_ip_address"], "it leads to the machine's card"
        (listed,) = provider.instances(credential, bought.tag.broker)
        assert {part.rpartition(" ")[0] for part in listed.parts} == {"floating address", "port", "security group"}
        end(bought.id, bought.tag.order)
        assert addresses() == [] and provider.instances(credential, bought.tag.broker) == []
