"""The promises about one machine: what it is told, what belongs to it, and how it ends by itself.

That boot data carries no long-lived secret is the broker's to keep, who writes it: `tests/broker` has that test.
"""

# ruff: noqa: S101
from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.base import DeadMan, InstanceState
from providers.contract.fixtures import GONE, TOKEN, Fixtures
from providers.errors import InvalidOrder

ENDED = (GONE, InstanceState.STOPPING)
SHORT = timedelta(minutes=5)  # less than a credential is good for


class MachineContract(Fixtures):
    """Part of `ProviderContract`."""

    # What it is told.

    def test_boot_data_as_large_as_the_cloud_takes_is_taken(
        self, provider, credential, make_order, boot, reads_user_data, orders_listed
    ):
        if not reads_user_data:
            pytest.skip("it hands no user data to anybody")
        order = make_order(boot=replace(boot, user_data=filled(boot.user_data, provider.user_data_most)))
        provider.provision(credential, order)
        assert orders_listed() == [order.id]

    def test_boot_data_that_is_too_large_is_refused_before_anything_is_bought(
        self, provider, credential, make_order, boot, reads_user_data, orders_listed, billed
    ):
        if not reads_user_data:
            pytest.skip("it hands no user data to anybody")
        order = make_order(boot=replace(boot, user_data=filled(boot.user_data, provider.user_data_most + 1)))
        with pytest.raises(InvalidOrder, match=r"\w+ .*\.$") as refused:
            provider.provision(credential, order)
        assert TOKEN not in str(refused.value)
        assert orders_listed() == []
        assert not billed or billed(order.id) == []

    def test_its_console_tells_what_it_wrote(self, provider, credential, buy, wait, console_says):
        if not console_says:
            pytest.skip("nobody knows what is written there")
        bought = buy()
        wait(lambda: console_says in provider.logs(credential, bought.id), "the console has it")

    # What belongs to it.

    def test_every_part_carries_its_orders_tag(self, provider, credential, make_order, labelled):
        if labelled is None:
            pytest.skip("this cloud does not say what labels something has")
        order = make_order()
        bought = provider.provision(credential, order)
        made = labelled(order.id)
        assert {bought.id, *bought.parts} <= set(made), "what it names is what there is"
        wanted = order.tag.as_labels().items()
        assert [name for name, labels in made.items() if not wanted <= dict(labels).items()] == []

    def test_what_died_is_ended_with_what_it_left_behind(self, provider, credential, buy, end, faults, wait, billed):
        bought = buy()
        faults.die(bought)
        wait(lambda: provider.describe(credential, bought.id).state in ENDED, "its death shows")
        end(bought.id, bought.tag.order)
        assert billed is None or billed(bought.tag.order) == []

    # How it ends by itself.

    def test_a_machine_that_powers_itself_off_does_not_run_and_can_be_ended(
        self, provider, credential, buy, end, faults, wait, billed
    ):
        bought = buy()
        faults.power_off(bought)
        wait(lambda: provider.describe(credential, bought.id).state in ENDED, "that it is off shows")
        end(bought.id, bought.tag.order)
        assert billed is None or billed(bought.tag.order) == []

    def test_where_powering_off_is_said_to_end_the_bill_all_of_it_is_gone(
        self, provider, credential, buy, faults, wait, billed, is_free
    ):
        """But for what costs nothing, which the broker ends."""
        if not provider.ends_when_off:
            pytest.skip("it does not say so")
        bought = buy()
        faults.power_off(bought)

        def gone():
            seen = provider.describe(credential, bought.id)
            return seen.state is GONE or (seen.parts and all(map(is_free, seen.parts)))

        wait(gone, "it is gone by itself")
        assert billed is None or [part for part in billed(bought.tag.order) if not is_free(part)] == []

    def test_where_the_cloud_is_said_to_end_it_at_its_time_it_is_gone_then(
        self, provider, credential, make_order, wait, advance, billed
    ):
        if not provider.ends_by_itself:
            pytest.skip("it does not say so")
        order = make_order(lasts=SHORT)
        bought = provider.provision(credential, order)
        advance(SHORT.total_seconds())
        wait(lambda: provider.describe(credential, bought.id).state is GONE, "it is gone by itself")
        assert billed is None or billed(order.id) == []

    def test_what_a_machine_holds_to_end_itself_ends_it_and_no_other(
        self, provider, credential, buy, send, wait, billed
    ):
        ended, left = buy(), buy()
        held = switch_of(provider, credential, ended)
        assert all(answer in (404, 410) or 200 <= answer < 300 for answer in pulled(held, send))
        wait(lambda: provider.describe(credential, ended.id).state in ENDED, "it is ended")
        assert provider.describe(credential, left.id).state is InstanceState.RUNNING
        assert billed is None or len(billed(left.tag.order)) == len({left.id, *left.parts})

    def test_what_a_machine_holds_ends_by_itself_and_works_twice(self, provider, credential, buy, send, wait):
        bought = buy()
        held = [switch_of(provider, credential, bought) for _ in range(2)]
        assert all(each.ends_at > datetime.now(UTC) for each in held)
        assert not [
            line for each in held for line in each.requests if re.search(r"[?&]\w*(token|secret|key)=", line.url)
        ]
        for each in held:
            assert all(answer in (404, 410) or 200 <= answer < 300 for answer in pulled(each, send))
        wait(lambda: provider.describe(credential, bought.id).state in ENDED, "it is ended")


def filled(user_data: str, size: int) -> str:
    """The same with a comment at its end, that makes it of this size."""
    return user_data + "\n#" + "x" * (size - len(user_data.encode()) - 2)


def switch_of(provider, credential, bought) -> DeadMan:
    held = provider.dead_man(credential, bought)
    if held is None:
        pytest.skip("its machines hold nothing to end themselves with")
    return held


def pulled(held: DeadMan, send) -> list[int]:
    """The status of each answer, in the order in which a machine would ask."""
    answers, kept = [], {}
    for request in held.requests:
        status, headers = send(request, kept)
        kept |= {again: headers[name] for again, name in request.keep.items() if name in headers}
        answers.append(status)
    return answers
