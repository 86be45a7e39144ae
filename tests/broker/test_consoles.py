"""A machine that never reports explains itself on its console; and how long each part of a launch took."""

from __future__ import annotations

import pytest

from broker import consoles, phases
from broker.models import State
from providers import base
from providers import errors as clouds
from tests.doubles.desk_cloud import DeskCloud

BOOT = """\
[    4.1] Linux version 6.1
[    6.2] cloud-init[412]: anybinder: [0 s] goes off at 21:02:00 UTC at the latest; up for 6 s
anybinder: [2 s] the broker is not reached: Name or service not known\x1b[0m
debian login:
"""


class TalkingCloud(DeskCloud):
    """Shows a console."""

    console = BOOT

    def logs(self, credential: base.Credential, instance_id: str) -> str:
        self._called("logs")
        return self.console


@pytest.fixture
def bench(make_bench):
    return make_bench(TalkingCloud(), boot_minutes=5, attempts=1)


def never_reports(bench):
    launch = bench.advance(bench.request())
    bench.clock.move(minutes=6)
    return bench.until_stopped(launch)


def test_a_machine_that_never_dials_out_is_quoted(bench):
    launch = never_reports(bench)
    assert launch.reason == "no_offer"
    assert "never reported" in launch.message
    assert launch.message.endswith("The last it said: “[2 s] the broker is not reached: Name or service not known[0m”")


def test_one_that_ended_before_it_reported_is_quoted_too(bench):
    launch = bench.advance(bench.request())
    bench.cloud.instances_by_order.clear()
    launch = bench.until_stopped(launch)
    assert "The machine ended before it reported (it went away). The last it said: “[2 s]" in launch.message


def test_without_a_console_the_sentence_stands_alone(bench):
    bench.cloud.console = "debian login: "
    assert never_reports(bench).message.endswith("try again, or somewhere else.")


def test_a_console_that_cannot_be_had_ends_nothing_otherwise(bench):
    bench.cloud.refuse("logs", clouds.PermissionMissing("You may not read consoles."))
    launch = never_reports(bench)
    assert launch.state is State.STOPPED
    assert "never reported" in launch.message


def test_what_a_machine_says_is_cut_and_cleaned(bench):
    bench.cloud.console = f"anybinder: {'x' * 5000}\x07\n"
    launch = bench.advance(bench.request())
    assert consoles.last_line(bench.at, bench.order(launch)) == "x" * consoles.LINE_MOST


# --- phases ---------------------------------------------------------------------------------------------------------


def test_a_launch_is_measured_part_by_part(bench):
    launch = bench.advance(bench.request())
    steps = ("fetching", "building", "built", "launching")
    bench.clock.move(seconds=5)
    bench.advance(launch)  # looks, and sees it run
    bench.clock.move(seconds=20)
    bench.enrol(launch)
    for number, phase in enumerate(steps, start=1):
        bench.clock.move(seconds=number)
        bench.report(launch, (phase, phase), first=number)
    bench.clock.move(seconds=1)
    bench.run(launch)
    reached = {mark.name: mark.seconds for mark in phases.of(bench.at, bench.launch(launch.id))}
    expected = {"asked": 0, "running": 5, "enrolled": 25, "fetched": 28, "built": 31, "served": 35, "ready": 36}
    assert reached == expected
    assert tuple(reached) == phases.NAMES


def test_what_has_not_happened_is_left_out(bench):
    launch = bench.request()
    assert phases.of(bench.at, launch) == []
    bench.advance(launch)
    assert [mark.name for mark in phases.of(bench.at, launch)] == ["asked"]
