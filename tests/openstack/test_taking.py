"""A server that its person made: run on, for one order at a time, and as it was whatever becomes of the order."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from broker import connections, people, reaper, service, settings
from providers.base import InstanceState, Resources
from providers.contract.fixtures import Fixtures
from providers.errors import InvalidOrder, ProviderUnavailable
from providers.openstack import OpenStackProvider, claims
from tests.openstack.over_bed import ByApplicationCredential, labels_in
from tests.servers.openstack import configuration

RUNNING, STOPPING, GONE = InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.GONE


class OwnServers(ByApplicationCredential, Fixtures):
    @pytest.fixture
    def make_server(self, bed, project, wait):
        """As its person does on the dashboard; its id."""
        token = bed.token(project.user, project_id=project.id)

        all_made = []

        def make(name="mine", **more):
            images = bed.ask("GET", "/v2/images", of="image").json()["images"]
            flavors = bed.ask("GET", "/flavors/detail", of="compute").json()["flavors"]
            told = {
                "name": name,
                "imageRef": next(each["id"] for each in images if each["visibility"] == "public"),
                "flavorRef": next(each["id"] for each in flavors if each["disk"] and each["ram"] < 5000),
                "networks": [{"uuid": project.network}],
                **more,
            }
            made = bed.ask("POST", "/servers", {"server": told}, token=token, of="compute").json()["server"]["id"]
            all_made.append(made)
            wait(lambda: shown(bed, made)["status"] == "ACTIVE", "it runs")
            return made

        yield make
        for each in {machine["id"] for machine in bed.machines(project_id=project.id)} & set(all_made):
            bed.ask("DELETE", f"/servers/{each}", of="compute")

    @pytest.fixture
    def server(self, make_server):
        return make_server()

    @pytest.fixture
    def own(self, provider, credential):
        """Its offers that nobody need buy."""
        return lambda: [each for each in provider.offers(credential, Resources()) if each.taken]


def shown(bed, server):
    """All that Nova says of it, as its operator sees it."""
    return bed.ask("GET", f"/servers/{server}", of="compute").json()["server"]


def of_server(own, server):
    return next(each for each in own() if each.id == f"server:{server}")


def asked_of_nova(gate, since):
    """What more than a question it was asked since then."""
    return [call for call in gate.calls[since:] if call.service == "compute" and call.method != "GET"]


class TestOffers(OwnServers):
    def test_it_is_offered_last_by_its_name_for_nothing_and_bought_ones_are_not(
        self, provider, credential, server, buy, make_server, own
    ):
        buy()
        make_server("another's", metadata={"anybinder-broker": "another"})
        (offer,) = own()
        assert offer.id == f"server:{server}" and offer.title.startswith("Your server “mine” (")
        assert offer.price_per_hour == 0 and "yours already" in offer.price_source
        listed = provider.offers(credential, Resources())
        assert listed[-1] == offer and not any(each.taken for each in listed[:-1])

    def test_an_operator_may_want_none(self, bed, credential, server):
        told = {"auth_url": bed.url, "region": configuration.REGION, "own_servers": "no"}
        assert not any(each.taken for each in OpenStackProvider(told).offers(credential, Resources()))

    def test_what_is_too_small_or_switched_off_is_not_offered(self, provider, credential, server, bed, own, wait):
        small = provider.offers(credential, Resources(memory_mb=900_000))
        assert not any(each.taken for each in small)
        bed.power_off(server)
        wait(lambda: own() == [], "it is off")


class TestTaking(OwnServers):
    def test_it_is_left_as_it_was_by_every_way_in_which_an_order_ends(
        self, provider, another, credential, server, own, make_order, orders_listed, bed, gate, project
    ):
        offer, before, began = of_server(own, server), shown(bed, server), len(gate.calls)
        endings = (
            lambda order: f"taken-{order.id}",
            lambda _: None,  # the answer was lost
            lambda order: f"anybinder-{order.id}",  # a table that is wrong
        )
        for named in endings:
            order = make_order(offer=offer)
            taken = provider.provision(credential, order)
            assert (taken.id, taken.state, taken.tag) == (f"taken-{order.id}", RUNNING, order.tag)
            assert orders_listed() == [order.id]
            for _ in range(3):
                another().terminate(credential, named(order), order.id)
            assert another().describe(credential, taken.id).state is GONE and orders_listed() == []
        assert shown(bed, server) == before
        assert asked_of_nova(gate, began) == []
        assert "anybinder" not in repr([shown(bed, server), parts_of(bed, project)])

    def test_not_even_one_that_somebody_has_put_our_whole_tag_on_is_deleted(
        self, provider, credential, server, own, make_order, bed, gate
    ):
        order = make_order(offer=of_server(own, server))
        taken = provider.provision(credential, order)
        bed.ask("POST", f"/servers/{server}/metadata", {"metadata": order.tag.as_labels()}, of="compute")
        began = len(gate.calls)
        provider.terminate(credential, None, order.id)
        provider.terminate(credential, taken.id, order.id)
        assert asked_of_nova(gate, began) == [] and shown(bed, server)["status"] == "ACTIVE"

    def test_an_order_that_is_repeated_is_the_same_and_one_that_has_ended_is_gone(
        self, provider, another, credential, server, own, make_order, orders_listed, gate
    ):
        order = make_order(offer=of_server(own, server))
        gate.fault("lost_response", "image", "POST", "/images")
        gate.fault("lost_response", "image", "PATCH", "/images/.*")
        with pytest.raises(ProviderUnavailable):
            provider.provision(credential, order)
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda _: another().provision(credential, order), range(3)))
        assert {each.id for each in found} == {f"taken-{order.id}"} and orders_listed() == [order.id]
        provider.terminate(credential, found[0].id, order.id)
        assert provider.provision(credential, order).state is GONE and orders_listed() == []

    def test_of_several_orders_at_once_one_gets_it_and_the_others_are_told_why(
        self, another, provider, credential, server, own, make_order, orders_listed
    ):
        offer = of_server(own, server)
        orders = [make_order(offer=offer) for _ in range(4)]

        def take(order):
            for _ in range(30):
                try:
                    return another().provision(credential, order)
                except ProviderUnavailable:
                    continue
                except InvalidOrder as refusal:
                    return str(refusal)
            return "never answered"

        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(take, orders))
        refused = [each for each in found if isinstance(each, str)]
        assert len(refused) == 3 and all("Another session runs on that server" in each for each in refused), found
        (won,) = (each for each in found if not isinstance(each, str))
        assert orders_listed() == [won.tag.order], "those who were refused have left nothing"
        provider.terminate(credential, won.id, won.tag.order)
        assert provider.provision(credential, make_order(offer=offer)).state is RUNNING

    def test_who_died_while_it_asked_keeps_nobody_off_for_ever(
        self, provider, credential, server, own, make_order, monkeypatch
    ):
        offer = of_server(own, server)
        dead, order = make_order(offer=offer), make_order(offer=offer)
        with provider._services(credential) as services:
            claims.take(services, dead, server=server)
        with pytest.raises((ProviderUnavailable, InvalidOrder)):
            provider.provision(credential, order)
        monkeypatch.setattr(claims, "SETTLE_SECONDS", 0)
        assert provider.provision(credential, make_order(offer=offer)).state is RUNNING

    def test_one_that_its_owner_deletes_or_stops_is_told_and_nothing_is_left(
        self, provider, credential, make_server, own, make_order, orders_listed, bed, wait
    ):
        stopped, deleted, never = make_server("stopped"), make_server("deleted"), make_server("never")
        offers = {each: of_server(own, each) for each in (stopped, deleted, never)}
        taken = {each: provider.provision(credential, make_order(offer=offers[each])) for each in (stopped, deleted)}
        bed.power_off(stopped)
        for each in (deleted, never):
            bed.ask("DELETE", f"/servers/{each}", of="compute")
        for each, why in ((stopped, "the cloud says SHUTOFF"), (deleted, "was deleted on the cloud's side")):
            wait(lambda each=each: provider.describe(credential, taken[each].id).state is STOPPING, "it shows")
            assert why in provider.describe(credential, taken[each].id).detail
            provider.terminate(credential, taken[each].id, taken[each].tag.order)
        with pytest.raises(InvalidOrder, match="deleted on the cloud's side"):
            provider.provision(credential, make_order(offer=offers[never]))
        assert orders_listed() == [] and shown(bed, stopped)["status"] == "SHUTOFF"

    def test_a_machine_of_somebody_elses_is_no_console_of_ours_to_read_nor_is_a_key_made_for_it(
        self, provider, credential, server, own, make_order, gate
    ):
        taken = provider.provision(credential, make_order(offer=of_server(own, server)))
        began = len(gate.calls)
        assert provider.logs(credential, taken.id) == "" and provider.dead_man(credential, taken) is None
        assert asked_of_nova(gate, began) == []


class TestSweeping(OwnServers):
    """The third net, over a table that knows nothing, or what is long past."""

    @pytest.fixture
    def at(self, bed, connection, tmp_path):
        told = {"auth_url": bed.url, "region": configuration.REGION}
        place = settings.BackendSetting(name="cloud", provider="openstack", configuration=told)
        made = service.build(settings.Settings(home=tmp_path / "home", backends=(place,)))
        kinds, typed = OpenStackProvider(told).kinds, {**connection.settings, "secret": connection.secret}
        connections.connect(made, people.LOCAL, connections.target_of("cloud"), kinds, connection.kind, typed)
        yield made
        made.close()

    def test_a_lost_table_and_a_restored_one_give_back_the_order_and_leave_the_server(
        self, at, provider, credential, server, own, make_order, bed, gate
    ):
        before = shown(bed, server)
        order = make_order(of=at.keys.broker_id, offer=of_server(own, server))
        provider.provision(credential, order)
        began = len(gate.calls)
        (lost,) = reaper.sweep(at, everything=True)
        assert (lost.verdict, lost.instance.id) == ("unknown", f"taken-{order.id}")
        late = replace(at, now=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=5))
        (over,) = reaper.sweep(late, everything=True)
        assert over.verdict == "expired" and reaper.sweep(late, everything=True) == []
        assert shown(bed, server) == before and asked_of_nova(gate, began) == []


def parts_of(bed, project):
    """The labels of what the project has besides machines."""
    groups = bed.ask("GET", f"/v2.0/security-groups?project_id={project.id}", of="network").json()["security_groups"]
    return [labels_in(each["description"]) for each in groups]
