"""The promises, in the order of a purchase."""

# ruff: noqa: S101
from __future__ import annotations

import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from providers.base import CALL_SECONDS, InstanceState, Offer, Purpose, Resources
from providers.contract.accounts import AccountContract
from providers.contract.fixtures import GONE, TOKEN, new_id
from providers.contract.machines import MachineContract
from providers.contract.offers import OfferContract
from providers.errors import (
    BadCredential,
    InvalidOrder,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
)

VERBS = ("offers", "provision", "describe", "terminate", "instances")


class ProviderContract(AccountContract, OfferContract, MachineContract):
    """Subclass, override the fixtures, and run."""

    # The class, and what it is configured with.

    def test_the_class_introduces_itself_to_people(self, provider):
        names = [setting.name for setting in provider.settings]
        assert provider.title
        assert provider.kinds
        assert len(names) == len(set(names))
        assert all(setting.help.endswith((".", "?")) for setting in provider.settings)
        assert not [s.name for s in provider.settings if s.required and s.default is not None]

    def test_making_one_touches_no_network(self, provider, monkeypatch):
        with monkeypatch.context() as unplugged:
            unplugged.setattr(socket.socket, "connect", _refuse_to_connect)
            type(provider)(provider.configuration)

    def test_a_missing_required_setting_is_refused_with_a_sentence(self, provider):
        for setting in provider.settings:
            if setting.required:
                rest = {k: v for k, v in provider.configuration.items() if k != setting.name}
                with pytest.raises(InvalidOrder, match=r"\.$"):
                    type(provider)(rest)

    def test_no_setting_is_read_from_the_process_environment(self, provider, credential, monkeypatch):
        before = provider.offers(credential, Resources())
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}  # noqa: TID251
        for name in set(os.environ) - set(kept):  # noqa: TID251
            monkeypatch.delenv(name)
        assert type(provider)(provider.configuration).offers(credential, Resources()) == before

    # check

    def test_checking_buys_nothing(self, provider, connection, fresh_token, broker, untagged, with_every_bill):
        for purpose in Purpose:
            wanted = replace(connection, purpose=purpose)
            provider.check(wanted, provider.sign_in(wanted, fresh_token(wanted)))
        assert provider.instances(provider.sign_in(connection, fresh_token(connection)), broker) == []
        assert untagged is None or untagged() == []
        assert with_every_bill is None or with_every_bill() == []

    # provision

    def test_an_order_shows_no_token(self, make_order):
        assert TOKEN not in repr(make_order())

    def test_provision_returns_before_it_has_booted(self, provider, credential, make_order, with_fault, at_once):
        with_fault("slow_boot", "provision")
        began = time.monotonic()
        assert provider.provision(credential, make_order()).state is InstanceState.PENDING
        assert time.monotonic() - began < at_once

    def test_an_instance_carries_its_orders_tag(self, provider, credential, make_order):
        order = make_order()
        bought = provider.provision(credential, order)
        assert bought.tag == order.tag
        assert provider.describe(credential, bought.id).tag == order.tag

    def test_everything_bought_is_tagged_by_the_creating_call(self, provider, credential, make_order, untagged):
        if untagged is None:
            pytest.skip("this cloud does not say what carries no tag")
        provider.provision(credential, make_order())
        assert untagged() == []

    def test_one_order_bought_twice_is_one_instance(self, provider, another, credential, make_order, orders_listed):
        order = make_order()
        first, second = provider.provision(credential, order), another().provision(credential, order)
        assert first.id == second.id
        assert orders_listed() == [order.id]

    def test_two_callers_at_once_get_one_instance(self, another, credential, make_order, orders_listed):
        order, callers = make_order(), [another() for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            bought = list(threads.map(lambda caller: caller.provision(credential, order), callers))
        assert len({instance.id for instance in bought}) == 1
        assert orders_listed() == [order.id]

    def test_a_lost_response_is_unavailable_and_repeating_finds_the_same_instance(
        self, provider, credential, make_order, orders_listed, with_fault
    ):
        with_fault("lost_response", "provision")
        order = make_order()
        with pytest.raises(ProviderUnavailable):
            provider.provision(credential, order)
        again = provider.provision(credential, order)
        assert provider.provision(credential, order).id == again.id
        assert orders_listed() == [order.id]

    def test_an_order_delivered_twice_is_one_instance(
        self, provider, credential, make_order, orders_listed, billed, with_fault
    ):
        with_fault("duplicate", "provision")
        order = make_order()
        bought = provider.provision(credential, order)
        assert orders_listed() == [order.id]
        assert billed is None or len(billed(order.id)) == len({bought.id, *bought.parts})

    def test_an_order_that_has_ended_is_never_bought_again(
        self, provider, credential, make_order, buy, end, orders_listed, billed
    ):
        bought = buy()
        end(bought.id, bought.tag.order)
        again = provider.provision(credential, make_order(bought.tag.order))
        assert (again.id, again.state) == (bought.id, GONE)
        assert orders_listed() == []
        assert not billed or billed(bought.tag.order) == []

    def test_two_orders_are_two_instances(self, provider, credential, make_order, orders_listed):
        orders = [make_order(), make_order()]
        bought = {provider.provision(credential, order).id for order in orders}
        assert len(bought) == 2
        assert orders_listed() == sorted(order.id for order in orders)

    def test_an_unknown_offer_is_an_invalid_order(self, provider, credential, make_order):
        unknown = Offer(id="no-such-offer", title="none", zone="nowhere-1")
        with pytest.raises((InvalidOrder, NoCapacity)):
            provider.provision(credential, make_order(offer=unknown))

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("no_capacity", NoCapacity),
            ("quota", QuotaExceeded),
            ("permission", PermissionMissing),
            ("bad_credential", BadCredential),
            ("unavailable", ProviderUnavailable),
        ],
    )
    def test_a_refusal_says_what_to_do_next_and_leaves_nothing(
        self, provider, credential, make_order, orders_listed, faults, with_fault, fault, error
    ):
        """In a sentence that has the quota's or the permission's own name."""
        with_fault(fault, "provision")
        with pytest.raises(ProviderError) as refused:
            provider.provision(credential, make_order())
        assert isinstance(refused.value, error)
        assert re.search(r"\w+ .*\.$", str(refused.value)), "a sentence for the person"
        assert getattr(faults, fault, "") in str(refused.value), "it names the quota or the permission"
        assert TOKEN not in str(refused.value)
        assert orders_listed() == []

    def test_after_an_outage_the_same_order_is_bought(
        self, provider, credential, make_order, orders_listed, with_fault
    ):
        with_fault("unavailable", "provision")
        order = make_order()
        with pytest.raises(ProviderUnavailable):
            provider.provision(credential, order)
        assert provider.provision(credential, order).state is not GONE
        assert orders_listed() == [order.id]

    # describe

    def test_an_instance_comes_to_run(self, buy, provider, credential):
        assert provider.describe(credential, buy().id).state is InstanceState.RUNNING

    @pytest.mark.parametrize("unknown", ["i-0123456789abcdef0", "unknown", "0"])
    def test_an_unknown_instance_is_gone(self, provider, credential, unknown):
        assert provider.describe(credential, unknown).state is GONE

    def test_what_is_gone_stays_gone(self, provider, another, credential, buy, end):
        bought = buy()
        end(bought.id, bought.tag.order)
        assert provider.describe(credential, bought.id).state is GONE
        assert another().describe(credential, bought.id).state is GONE

    def test_a_machine_that_died_does_not_run(self, provider, credential, buy, faults, wait):
        bought = buy()
        faults.die(bought)
        ended = (GONE, InstanceState.STOPPING)
        wait(lambda: provider.describe(credential, bought.id).state in ended, "its death shows")

    # terminate

    def test_ending_it_ends_all_that_was_bought_with_it(self, buy, end, orders_listed, billed):
        bought = buy()
        end(bought.id, bought.tag.order)
        assert orders_listed() == []
        assert billed is None or billed(bought.tag.order) == []

    def test_ending_returns_without_waiting_and_gone_is_said_by_describe(
        self, provider, credential, buy, end, orders_listed, with_fault, at_once
    ):
        bought = buy()
        with_fault("slow_end", "terminate")
        began = time.monotonic()
        provider.terminate(credential, bought.id, bought.tag.order)
        assert time.monotonic() - began < at_once
        assert provider.describe(credential, bought.id).state is InstanceState.STOPPING
        assert orders_listed() == [bought.tag.order], "listed for as long as anything of it is there"
        end(bought.id, bought.tag.order)

    def test_ending_twice_is_success(self, provider, another, credential, buy, end):
        bought = buy()
        provider.terminate(credential, bought.id, bought.tag.order)
        another().terminate(credential, bought.id, bought.tag.order)
        end(bought.id, bought.tag.order)
        provider.terminate(credential, bought.id, bought.tag.order)

    def test_ending_what_never_was_is_success(self, provider, credential):
        provider.terminate(credential, None, new_id())
        provider.terminate(credential, "unknown", new_id())

    def test_it_is_ended_by_its_order_where_its_name_was_lost(self, provider, another, credential, buy, wait, billed):
        bought = buy()

        def gone():
            another().terminate(credential, None, bought.tag.order)
            return provider.describe(credential, bought.id).state is GONE

        wait(gone, "it is gone")
        assert billed is None or billed(bought.tag.order) == []

    def test_it_can_be_ended_before_it_has_booted(
        self, provider, credential, make_order, end, with_fault, billed, wait
    ):
        with_fault("slow_boot", "provision")
        bought = provider.provision(credential, make_order())
        provider.terminate(credential, bought.id, bought.tag.order)
        states = [provider.describe(credential, bought.id).state]

        def leaves_its_birth():
            states.append(provider.describe(credential, bought.id).state)
            return states[-1] is not InstanceState.PENDING

        wait(leaves_its_birth, "it goes on from being born")
        assert InstanceState.RUNNING not in states, "it has booted although it was to end"
        end(bought.id, bought.tag.order)
        assert billed is None or billed(bought.tag.order) == []

    def test_what_is_ending_can_be_ended_again(self, provider, another, credential, buy, end, with_fault, billed):
        bought = buy()
        with_fault("slow_end", "terminate")
        provider.terminate(credential, bought.id, bought.tag.order)
        assert provider.describe(credential, bought.id).state is InstanceState.STOPPING
        another().terminate(credential, bought.id, bought.tag.order)
        end(bought.id, bought.tag.order)
        assert billed is None or billed(bought.tag.order) == []

    def test_other_orders_are_left_alone(self, provider, credential, make_order, end, orders_listed):
        """Also one whose name begins the same."""
        short = new_id()
        ended, left = make_order(short), make_order(f"{short}a")
        first = provider.provision(credential, ended)
        provider.provision(credential, left)
        end(first.id, ended.id)
        assert orders_listed() == [left.id]

    def test_half_created_resources_are_ended_by_their_order(
        self, provider, credential, make_order, orders_listed, billed, wait, with_fault
    ):
        with_fault("half_created", "provision")
        order = make_order()
        with pytest.raises(ProviderError):
            provider.provision(credential, order)
        provider.terminate(credential, None, order.id)
        wait(lambda: orders_listed() == [], "nothing of it is listed")
        assert billed is None or billed(order.id) == []

    def test_a_failing_end_says_so_and_can_be_repeated(self, provider, credential, buy, end, with_fault):
        bought = buy()
        with_fault("unavailable", "terminate", times=2)
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                provider.terminate(credential, bought.id, bought.tag.order)
        end(bought.id, bought.tag.order)

    def test_an_end_whose_answer_was_lost_can_be_repeated(self, provider, credential, buy, end, with_fault):
        bought = buy()
        with_fault("lost_response", "terminate")
        with pytest.raises(ProviderUnavailable):
            provider.terminate(credential, bought.id, bought.tag.order)
        end(bought.id, bought.tag.order)

    # instances

    def test_what_one_worker_bought_every_worker_sees(self, provider, another, credential, broker, make_order):
        order = make_order()
        bought = provider.provision(credential, order)
        seen = another().instances(credential, broker)
        assert [(instance.id, instance.tag) for instance in seen] == [(bought.id, order.tag)]

    def test_another_brokers_instances_are_not_ours(self, provider, credential, broker, make_order, orders_listed):
        ours, theirs = make_order(), make_order(of=f"{broker}-2")
        provider.provision(credential, ours)
        provider.provision(credential, theirs)
        assert orders_listed() == [ours.id]

    def test_half_created_resources_are_listed(self, provider, credential, make_order, orders_listed, with_fault):
        with_fault("half_created", "provision")
        order = make_order()
        with pytest.raises(ProviderError):
            provider.provision(credential, order)
        assert orders_listed() == [order.id]

    def test_a_new_instance_shows_within_the_time_promised(
        self, provider, credential, make_order, orders_listed, with_fault, advance
    ):
        with_fault("hidden", "provision")
        order = make_order()
        provider.provision(credential, order)
        advance(provider.lists_within.total_seconds())
        assert orders_listed() == [order.id]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("unavailable", ProviderUnavailable),
            ("lost_response", ProviderUnavailable),
            ("bad_credential", BadCredential),
            ("permission", PermissionMissing),
        ],
    )
    def test_who_cannot_look_never_says_that_nothing_is_there(
        self, provider, credential, buy, broker, with_fault, fault, error
    ):
        bought = buy()
        with_fault(fault, "instances")
        with_fault(fault, "describe")
        with pytest.raises(error):
            provider.instances(credential, broker)
        with pytest.raises(error):
            provider.describe(credential, bought.id)

    # All verbs

    def test_verbs_may_be_called_from_several_threads_at_once(self, provider, credential, make_order, orders_listed):
        orders = [make_order() for _ in range(4)]
        with ThreadPoolExecutor(8) as threads:
            bought = list(threads.map(lambda order: provider.provision(credential, order), orders))
            looks = list(threads.map(lambda instance: provider.describe(credential, instance.id), bought * 2))
        assert [look.tag for look in looks] == [order.tag for order in orders] * 2
        assert orders_listed() == sorted(order.id for order in orders)

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_cloud_that_never_answers_is_unavailable_in_time(
        self, provider, credential, make_order, buy, broker, with_fault, verb
    ):
        order, bought = make_order(), buy()
        with_fault("silence", verb)
        calls = {
            "offers": lambda: provider.offers(credential, Resources()),
            "provision": lambda: provider.provision(credential, order),
            "describe": lambda: provider.describe(credential, bought.id),
            "terminate": lambda: provider.terminate(credential, bought.id, bought.tag.order),
            "instances": lambda: provider.instances(credential, broker),
        }
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            calls[verb]()
        assert time.monotonic() - began < CALL_SECONDS

    def test_the_console_of_nothing_is_empty(self, provider, credential):
        assert provider.logs(credential, "unknown") == ""


def _refuse_to_connect(*_: object) -> None:
    raise AssertionError("a provider touched the network while it was made")
