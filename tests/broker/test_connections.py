"""What a person entrusts to the broker: one connection a target, opened only for its purpose, erased when nothing needs it."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from broker import backends, connections, db, errors, identity, launches, people, reaper, uses, wishes
from broker.models import Connection, Launch, Order, Profile, State
from providers import base
from providers import errors as clouds
from tests.broker.conftest import Bench, Clock
from tests.doubles.accounts_cloud import AccountsCloud

NUMBER, KEY = "123456789012", "not-to-be-seen"
TARGET = "backend:desk"
ADA = people.Person(id="ada")


@pytest.fixture
def desk(make_bench: Callable[..., Bench]) -> Bench:
    """A broker whose one backend asks for accounts."""
    return make_bench(AccountsCloud())


def cloud(desk: Bench) -> AccountsCloud:
    assert isinstance(desk.cloud, AccountsCloud)
    return desk.cloud


def backend(desk: Bench) -> backends.Backend:
    return backends.named(desk.at, "desk")


def connect(desk: Bench, kind: str = "keyless", person: people.Person = people.LOCAL, **typed: str) -> Connection:
    told = typed or {"keyless": {"account": NUMBER}, "kept": {"account": NUMBER, "key": KEY}}.get(kind, {"key": KEY})
    return connections.connect(desk.at, person, TARGET, cloud(desk).kinds, kind, told)


def again(desk: Bench, found: Connection) -> Connection:
    """As the table has it now."""
    kept = connections.row(desk.at, found.id)
    assert kept is not None
    return kept


def sign_in(
    desk: Bench, found: Connection, purpose: base.Purpose = base.Purpose.LAUNCH, **how: Any
) -> backends.Account:
    return connections.account(desk.at, backend(desk), again(desk, found), purpose, **how)


def known(desk: Bench, person: people.Person, *, hours_ago: float) -> None:
    """This person proved who they are so long ago."""
    when = desk.clock() - dt.timedelta(hours=hours_ago)
    with desk.at.db.transaction() as session:
        session.merge(Profile(id=person.id, name="Ada", created_at=when, signed_in_at=when))


# --- telling --------------------------------------------------------------------------------------------------------


def test_there_is_one_connection_a_person_and_target(desk: Bench) -> None:
    first, second = connect(desk), connect(desk, account="999999999999")
    assert [each.id for each in connections.of(desk.at, people.LOCAL)] == [second.id]
    assert again(desk, first).removed_at == desk.clock()
    assert connect(desk, person=ADA).id not in (first.id, second.id)
    assert [each.id for each in connections.of(desk.at, people.LOCAL)] == [second.id]


def test_two_browsers_at_once_leave_one(desk: Bench) -> None:
    wrong: list[Exception] = []

    def tell() -> None:
        try:
            connect(desk)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(connections.of(desk.at, people.LOCAL)) == 1


def test_who_a_person_is_there_stays_when_they_tell_anew(desk: Bench) -> None:
    first = connect(desk)
    assert first.subject == connect(desk, "kept").subject == identity.subject(desk.at, people.LOCAL.id, TARGET)
    assert first.subject != connect(desk, person=ADA).subject


def test_a_secret_left_empty_stays_what_it_was(desk: Bench) -> None:
    connect(desk, "kept")
    anew = connect(desk, "kept", account="999999999999", key="")
    assert connections.opened(desk.at, anew) == KEY
    assert anew.settings == {"account": "999999999999"}


def test_a_secret_of_another_kind_is_not_taken_over(desk: Bench) -> None:
    connect(desk, "kept")
    with pytest.raises(errors.BadField, match="Secret key is needed"):
        connect(desk, "delegated", zone="west")


@pytest.mark.parametrize(
    ("kind", "typed", "field"),
    [
        ("keyless", {}, "account"),
        ("keyless", {"account": "98765"}, "account"),
        ("keyless", {"account": "१" * 12}, "account"),
        ("kept", {"account": NUMBER, "key": "short"}, "key"),
        ("kept", {"account": NUMBER, "key": "x" * 4001}, "key"),
        ("kept", {"account": NUMBER, "key": "line\nanother-line"}, "key"),
        ("delegated", {"zone": "moon", "key": KEY}, "zone"),
    ],
)
def test_what_does_not_fit_is_said_of_its_field_and_not_repeated(
    desk: Bench, kind: str, typed: dict[str, str], field: str
) -> None:
    with pytest.raises(errors.BadField) as told:
        connections.connect(desk.at, people.LOCAL, TARGET, cloud(desk).kinds, kind, typed)
    assert told.value.field == field
    assert all(value not in str(told.value) for value in typed.values() if len(value) > 3)
    assert connections.of(desk.at, people.LOCAL) == []


def test_a_field_left_empty_has_its_default(desk: Bench) -> None:
    assert connect(desk, "delegated", key=KEY, zone="").settings == {"zone": "east"}


def test_nothing_is_connected_for_nobody_or_by_no_way(desk: Bench) -> None:
    with pytest.raises(errors.NotSignedIn):
        connect(desk, person=people.ANONYMOUS)
    with pytest.raises(errors.BadRequest, match="no such way"):
        connections.connect(desk.at, people.LOCAL, TARGET, cloud(desk).kinds, "moon", {})


def test_somebody_elses_connection_is_not_there(desk: Bench) -> None:
    found = connect(desk)
    for call in (connections.get, connections.check, connections.disconnect):
        with pytest.raises(errors.NotFound):
            call(desk.at, ADA, found.id)


# --- signing in -----------------------------------------------------------------------------------------------------


def test_a_credential_is_kept_in_memory_until_shortly_before_it_ends(desk: Bench) -> None:
    found = connect(desk)
    cloud(desk).expires_at = desk.clock() + dt.timedelta(minutes=15)
    first = sign_in(desk, found)
    assert sign_in(desk, found) is first
    desk.clock.move(minutes=9)
    assert sign_in(desk, found) is first
    desk.clock.move(minutes=2)
    assert sign_in(desk, found) is not first
    assert len(cloud(desk).signed_in) == 2


def test_what_has_ended_does_not_stay_in_memory(desk: Bench) -> None:
    cloud(desk).expires_at = desk.clock() + dt.timedelta(minutes=15)
    sign_in(desk, connect(desk))
    desk.clock.move(hours=1)
    cloud(desk).expires_at = desk.clock() + dt.timedelta(minutes=15)
    sign_in(desk, connect(desk, person=ADA), base.Purpose.REAP)
    assert len(desk.at.accounts) == 1


def test_what_the_cloud_refuses_does_not_stay_in_memory(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end there sooner than was said: a clock that jumped, a session that was revoked."""
    found = connect(desk)
    account = sign_in(desk, found)

    def refuse(*_: object) -> None:
        raise clouds.BadCredential("It has expired.")

    with monkeypatch.context() as expired:
        expired.setattr(cloud(desk), "describe", refuse)
        with pytest.raises(clouds.BadCredential):
            account.describe("i-1")
    assert sign_in(desk, found) is not account


def test_each_purpose_is_asked_for_by_itself(desk: Bench) -> None:
    found = connect(desk)
    assert sign_in(desk, found) is not sign_in(desk, found, base.Purpose.REAP)
    assert [each.purpose for each, _token in cloud(desk).signed_in] == [base.Purpose.LAUNCH, base.Purpose.REAP]


def test_who_is_vouched_for_is_told_with_the_broker(desk: Bench) -> None:
    found = connect(desk)
    sign_in(desk, found)
    told, token = cloud(desk).signed_in[0]
    assert (told.subject, told.broker, told.settings) == (found.subject, desk.at.keys.broker_id, {"account": NUMBER})
    assert token is not None


def test_launching_needs_a_recent_sign_in_and_ending_does_not(desk: Bench) -> None:
    found = connect(desk, person=ADA)
    for hours_ago, good in ((1, True), (13, False)):
        known(desk, ADA, hours_ago=hours_ago)  # what was signed in to before is still in memory
        if good:
            sign_in(desk, found)
        else:
            with pytest.raises(errors.SignInAgain):
                sign_in(desk, found)
    sign_in(desk, found, base.Purpose.REAP)


def test_what_this_computer_is_signed_in_with_is_for_the_local_person_only(desk: Bench) -> None:
    known(desk, ADA, hours_ago=0)
    sign_in(desk, connect(desk, "ambient", nothing=""))
    hers = connect(desk, "ambient", ADA, nothing="")
    for purpose in base.Purpose:
        with pytest.raises(errors.NotAllowed, match="at this computer"):
            sign_in(desk, hers, purpose)
    with pytest.raises(errors.NotAllowed, match="at this computer"):
        connections.check(desk.at, ADA, hers.id)


def test_a_kind_that_is_no_longer_offered_opens_nothing(desk: Bench) -> None:
    found = connect(desk, "kept")
    cloud(desk).kinds = cloud(desk).kinds[:1]
    with pytest.raises(clouds.BadCredential, match="no longer"):
        sign_in(desk, found)


def test_each_use_is_written_down_with_what_came_of_it(desk: Bench) -> None:
    found = connect(desk)
    sign_in(desk, found)
    cloud(desk).refuse("sign_in", clouds.ProviderUnavailable("The desk is away."))
    with pytest.raises(clouds.ProviderUnavailable):
        sign_in(desk, found, base.Purpose.REAP)
    told = [(use.what, use.outcome, use.connection_id) for use in uses.of(desk.at, people.LOCAL)]
    assert told == [("reap", "The desk is away.", found.id), ("launch", "", found.id)]
    assert uses.of(desk.at, ADA) == []
    assert uses.last_used(desk.at, people.LOCAL) == {TARGET: desk.clock()}


def test_uses_come_by_the_page_and_without_idle_sweeps(desk: Bench) -> None:
    found = connect(desk)
    for number in range(6):
        connections.used(desk.at, found, "sweep" if number % 2 else "check", outcome="no" if number == 5 else "")
    page = uses.of(desk.at, people.LOCAL, limit=2)
    rest = uses.of(desk.at, people.LOCAL, before=page[-1].id)
    assert [each.id for each in (*page, *rest)] == [6, 5, 4, 3, 2, 1]
    assert [each.id for each in uses.of(desk.at, people.LOCAL, sweeps=False)] == [6, 5, 3, 1]


# --- checking -------------------------------------------------------------------------------------------------------


def test_a_check_tries_both_purposes_and_keeps_what_it_found(desk: Bench) -> None:
    cloud(desk).reaches = desk.clock() + dt.timedelta(days=30)
    found = connections.check(desk.at, people.LOCAL, connect(desk).id)
    assert (found.works, found.trouble, found.who) == (True, "", "desk")
    assert (found.checked_at, found.ends_at) == (desk.clock(), cloud(desk).reaches)
    assert [(each["name"], each["purpose"], each["works"]) for each in found.findings] == [
        ("Signing in", "launch", True),
        ("desk:Buy", "launch", True),
        ("desk:Pay", "launch", None),
        ("Signing in", "reap", True),
        ("desk:End", "reap", True),
        ("desk:Pay", "reap", None),
    ]
    assert {use.what for use in uses.of(desk.at, people.LOCAL)} == {"check"}


def test_what_is_missing_is_named_with_its_fix_and_closes_the_place(desk: Bench) -> None:
    cloud(desk).missing = {"desk:End"}
    found = connections.check(desk.at, people.LOCAL, connect(desk).id)
    assert found.works is False
    assert found.trouble == "Something is missing in the account: desk:End."
    assert [each["fix"] for each in found.findings if each["works"] is False] == ["Allow `desk:End` in the role."]
    assert connections.missing(desk.at, people.LOCAL, backend(desk)) == found.trouble
    cloud(desk).missing = set()
    assert connections.check(desk.at, people.LOCAL, found.id).works is True
    assert connections.missing(desk.at, people.LOCAL, backend(desk)) is None


def test_an_account_that_lets_one_purpose_in_says_which(desk: Bench) -> None:
    cloud(desk).refused = {base.Purpose.REAP: "The role for ending is not there."}
    found = connections.check(desk.at, people.LOCAL, connect(desk).id)
    assert (found.works, found.trouble, found.who) == (False, "The role for ending is not there.", "desk")
    assert [(each["purpose"], each["works"]) for each in found.findings if each["name"] == "Signing in"] == [
        ("launch", True),
        ("reap", False),
    ]


def test_a_check_of_a_cloud_that_is_away_leaves_what_was_known(desk: Bench) -> None:
    found = connections.check(desk.at, people.LOCAL, connect(desk).id)
    cloud(desk).refuse("sign_in", clouds.ProviderUnavailable("The desk is away."))
    with pytest.raises(clouds.ProviderUnavailable):
        connections.check(desk.at, people.LOCAL, found.id)
    assert again(desk, found).works is True


def test_a_refusal_in_passing_closes_the_place_until_it_is_let_in_again(desk: Bench) -> None:
    found = connections.check(desk.at, people.LOCAL, connect(desk).id)
    cloud(desk).refuse("sign_in", clouds.BadCredential("It knows nobody of that name."))
    with pytest.raises(clouds.BadCredential):
        sign_in(desk, found, base.Purpose.REAP, fresh=True)
    assert connections.missing(desk.at, people.LOCAL, backend(desk)) == "It knows nobody of that name."
    sign_in(desk, found, base.Purpose.LAUNCH, fresh=True)
    assert again(desk, found).works is False  # ending is still refused, as far as anybody knows
    sign_in(desk, found, base.Purpose.REAP, fresh=True)
    assert (again(desk, found).works, again(desk, found).trouble) == (True, "")


# --- ending ---------------------------------------------------------------------------------------------------------


def running(desk: Bench, kind: str = "kept") -> tuple[Connection, Launch]:
    found = connect(desk, kind)
    launch = desk.ready()
    assert launch.connection_id == found.id
    return found, launch


def test_without_a_machine_the_secret_goes_at_once(desk: Bench) -> None:
    found = connect(desk, "kept")
    sign_in(desk, found)
    connections.disconnect(desk.at, people.LOCAL, found.id)
    assert (again(desk, found).secret, again(desk, found).erased_at) == (None, desk.clock())
    assert not desk.at.accounts
    with pytest.raises(clouds.BadCredential, match="erased"):
        connections.opened(desk.at, again(desk, found))


def test_what_runs_is_ended_with_a_connection_that_is_gone_and_then_its_secret_goes(desk: Bench) -> None:
    found, launch = running(desk)
    connections.disconnect(desk.at, people.LOCAL, found.id)
    assert [each.id for each in uses.running_on(desk.at, people.LOCAL, TARGET)] == [launch.id]
    assert again(desk, found).secret is not None
    desk.at.accounts.clear()
    launches.stop(desk.at, launch.id)
    assert desk.until_stopped(desk.launch(launch.id)).state is State.STOPPED
    assert desk.cloud.instances_by_order == {}
    told, _token = cloud(desk).signed_in[-1]
    assert (told.purpose, told.secret) == (base.Purpose.REAP, KEY)
    assert connections.erase_unneeded(desk.at) == 1
    assert again(desk, found).secret is None
    assert uses.running_on(desk.at, people.LOCAL, TARGET) == []
    assert connections.erase_unneeded(desk.at) == 0


def test_nothing_new_is_begun_with_what_was_disconnected(desk: Bench) -> None:
    found = connect(desk)
    launch = desk.request()
    connections.disconnect(desk.at, people.LOCAL, found.id)
    desk.until_stopped(launch)
    assert desk.cloud.bought == []
    with pytest.raises(clouds.BadCredential, match="disconnected"):
        sign_in(desk, found)


def test_telling_anew_leaves_what_runs_to_what_was_told_before(desk: Bench) -> None:
    found, launch = running(desk)
    anew = connect(desk, "kept", account=NUMBER, key="another-key")
    assert connections.opened(desk.at, again(desk, found)) == KEY
    desk.at.accounts.clear()
    launches.stop(desk.at, launch.id)
    desk.until_stopped(desk.launch(launch.id))
    assert cloud(desk).signed_in[-1][0].secret == KEY
    connections.erase_unneeded(desk.at)
    assert again(desk, found).secret is None
    assert connections.opened(desk.at, again(desk, anew)) == "another-key"


def test_a_sweep_looks_only_where_something_was_ever_bought(desk: Bench) -> None:
    connect(desk, person=ADA)
    reaper.sweep(desk.at)
    assert cloud(desk).signed_in == []
    found, launch = running(desk)
    connections.disconnect(desk.at, people.LOCAL, found.id)
    desk.at.accounts.clear()
    assert [finding.verdict for finding in reaper.sweep(desk.at)] == ["wanted"]
    assert uses.of(desk.at, people.LOCAL)[0].what == "sweep"
    assert uses.of(desk.at, ADA) == []
    assert desk.launch(launch.id).state is State.READY


def test_a_table_restored_from_before_a_purchase_leaves_nothing_for_good(desk: Bench, clock: Clock) -> None:
    running(desk)
    with desk.at.db.transaction() as session:  # as the table of before would be
        for table in ("events", "orders", "launches", "uses"):
            session.execute(sa.text(f"DELETE FROM {table}"))
    assert reaper.sweep(desk.at) == []
    clock.move(hours=6)
    assert [finding.verdict for finding in reaper.sweep(desk.at)] == ["unknown"]
    assert reaper.sweep(desk.at) == []
    clock.move(days=2)
    assert [finding.verdict for finding in reaper.sweep(desk.at)] == ["expired"]


def test_a_sweep_goes_on_where_one_account_lets_nobody_in(desk: Bench) -> None:
    _found, launch = running(desk)
    desk.at.accounts.clear()
    cloud(desk).refused = {base.Purpose.REAP: "No more."}
    assert reaper.sweep(desk.at) == []
    assert desk.launch(launch.id).state is State.READY


def test_an_order_of_the_table_keeps_the_secret_whatever_its_launch_says(desk: Bench) -> None:
    """A launch that is over while its machine is not gone: the secret is what it is ended with."""
    found, launch = running(desk)
    connections.disconnect(desk.at, people.LOCAL, found.id)
    with desk.at.db.transaction() as session:
        session.execute(sa.update(Launch).where(Launch.id == launch.id).values(state=State.STOPPED))
    assert connections.erase_unneeded(desk.at) == 0
    with desk.at.db.transaction() as session:
        session.execute(sa.update(Order).values(closed_at=desk.clock()))
    assert connections.erase_unneeded(desk.at) == 1


def test_a_repository_is_kept_open_for_the_launch_that_needs_it(desk: Bench) -> None:
    found = connections.connect(desk.at, people.LOCAL, "repo:gh", cloud(desk).kinds, "delegated", {"key": KEY})
    connect(desk)
    launch = desk.request()
    with desk.at.db.transaction() as session:
        session.execute(sa.update(Launch).where(Launch.id == launch.id).values(repo_connection_id=found.id))
    connections.disconnect(desk.at, people.LOCAL, found.id)
    assert again(desk, found).secret is not None
    assert [each.id for each in uses.running_on(desk.at, people.LOCAL, "repo:gh")] == [launch.id]


def test_a_person_without_an_account_is_told_to_connect_one(desk: Bench) -> None:
    assert connections.missing(desk.at, people.LOCAL, backend(desk)) == "Connect your own account there first."
    with pytest.raises(errors.NoBackend, match="Connect your own account"):
        launches.request(desk.at, people.LOCAL, wishes.Wish(repo=desk.repo, backend="desk"))
    with pytest.raises(clouds.BadCredential, match="No account is connected"):
        connections.account(desk.at, backend(desk), None, base.Purpose.LAUNCH)


def test_on_postgresql_two_browsers_at_once_leave_one(desk: Bench, postgres_url: str) -> None:
    """The index of the table would refuse the second; it waits for the first instead."""
    table = db.Database(postgres_url)
    table.migrate()
    other = Bench(replace(desk.at, db=table), desk.cloud, desk.clock, desk.repo)
    try:
        test_two_browsers_at_once_leave_one(other)
    finally:
        table.dispose()
