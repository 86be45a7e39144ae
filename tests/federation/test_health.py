"""How a peer stands: several bad answers are an outage, several good ones end it, and what keeps falling is rested."""

from __future__ import annotations

import datetime as dt
import json

from federation import health
from federation.health import Condition, Seen, Standing

NOW = dt.datetime(2026, 11, 28, 15, 0, tzinfo=dt.UTC)
WELL, ILL = Seen(ok=True, total=3, quota=100), Seen(ok=False, why="It cannot be reached.")
LOOK = dt.timedelta(seconds=30)


def after(*looks: Seen, standing: Standing | None = None, since: dt.datetime = NOW) -> Standing:
    standing = standing or Standing()
    for number, seen in enumerate(looks):
        standing = health.observed(standing, seen, since + number * LOOK)
    return standing


def at(standing: Standing, since: dt.datetime = NOW, **passed: float) -> Condition:
    return health.condition(standing, since + dt.timedelta(**passed))


def test_what_was_never_looked_at_may_be_tried() -> None:
    assert at(Standing()) is Condition.UNKNOWN
    assert at(after(WELL)) is Condition.OPEN


def test_one_bad_answer_is_no_outage_and_one_good_answer_ends_none() -> None:
    assert at(after(WELL, ILL)) is Condition.OPEN
    assert at(after(WELL, ILL, ILL, WELL, ILL, ILL)) is Condition.OPEN
    down = after(WELL, ILL, ILL, ILL)
    assert (at(down), down.why) == (Condition.DOWN, "It cannot be reached.")
    assert at(after(WELL, standing=down)) is Condition.DOWN
    assert at(after(WELL, WELL, standing=down)) is Condition.OPEN


def test_a_peer_that_keeps_falling_is_rested_longer_each_time() -> None:
    standing, time, rests = Standing(), NOW, []
    for _ in range(5):
        for seen in (WELL, WELL, ILL, ILL, ILL):
            standing, time = health.observed(standing, seen, time), time + LOOK
        if standing.rests_until:
            rests.append(round((standing.rests_until - time + LOOK) / dt.timedelta(minutes=1)))
    assert rests == [10, 20, 40]
    well = after(WELL, WELL, standing=standing, since=time)
    assert health.condition(well, time) is Condition.RESTING
    assert health.condition(well, time + dt.timedelta(hours=1)) is Condition.OPEN


def test_it_is_full_by_its_own_quota_with_some_kept_free_and_does_not_flicker() -> None:
    def of(total: int, before: Standing | None = None) -> Standing:
        return health.observed(before or Standing(), Seen(ok=True, total=total, quota=100), NOW)

    assert at(of(90)) is Condition.OPEN
    full = of(91)
    assert at(full) is Condition.FULL
    assert at(of(85, full)) is Condition.FULL
    assert at(of(80, full)) is Condition.OPEN
    assert [health.kept_free(quota) for quota in (1, 5, 10, 50, 1000)] == [1, 1, 1, 5, 10]


def test_a_quota_of_nothing_is_how_members_drain() -> None:
    assert at(after(Seen(ok=True, total=4, quota=0))) is Condition.DRAINING
    assert health.condition(after(WELL), NOW, draining=True) is Condition.DRAINING


def test_what_launches_met_there_counts_whatever_it_says_of_itself() -> None:
    full = health.experienced(after(WELL), "full", "Too many users", NOW)
    assert (at(full, minutes=0.5), at(full, minutes=2)) == (Condition.FULL, Condition.OPEN)
    assert after(WELL, standing=full).why == "Too many users", "a good look does not make room"
    assert after(WELL, standing=full, since=NOW + dt.timedelta(minutes=2)).why == ""
    seldom = health.experienced(after(WELL), "full", "Rate limit", NOW, seconds=3600)
    assert (at(seldom, minutes=59), at(seldom, minutes=61)) == (Condition.FULL, Condition.OPEN)
    liar = health.experienced(after(WELL), "not_believed", "It sends people elsewhere.", NOW)
    assert (at(liar, minutes=9), at(liar, minutes=11)) == (Condition.RESTING, Condition.OPEN)
    silent = after(WELL)
    for _ in range(3):
        silent = health.experienced(silent, "silent", "Nothing more was heard.", NOW)
    assert at(silent) is Condition.DOWN
    assert at(health.experienced(after(WELL), "build_failed", "", NOW)) is Condition.OPEN
    assert at(health.experienced(full, "", "", NOW)) is Condition.OPEN


def test_a_standing_is_kept_as_json() -> None:
    standing = after(WELL, ILL, ILL, ILL, WELL, WELL, ILL, ILL, ILL, ILL)
    standing = health.experienced(standing, "full", "", NOW)
    assert health.read(json.loads(json.dumps(health.told(standing)))) == standing
    assert health.read({}) == Standing()
