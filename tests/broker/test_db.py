"""The table: what is written is durable, what only reads waits for nobody."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker import db
from broker.models import Consent
from tests.waiting import until


@pytest.fixture
def table(tmp_path: Path) -> Iterator[db.Database]:
    made = db.Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    made.migrate()
    yield made
    made.dispose()


def consent(person: str = "a") -> Consent:
    return Consent(person=person, repo_url="u", commit="c", at=dt.datetime(2026, 11, 21, 9, 30, tzinfo=dt.UTC))


def count(table: db.Database) -> int:
    with table.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Consent)) or 0


def test_what_fails_is_rolled_back_and_calls_nothing(table: db.Database) -> None:
    called: list[int] = []
    with pytest.raises(ZeroDivisionError), table.transaction() as session:
        session.add(consent())
        db.after_commit(session, lambda: called.append(1))
        raise ZeroDivisionError
    assert (count(table), called) == (0, [])


def test_after_commit_runs_when_others_can_see_it(table: db.Database) -> None:
    seen: list[int] = []
    with table.transaction() as session:
        session.add(consent())
        db.after_commit(session, lambda: seen.append(count(table)))
        assert seen == []
    assert seen == [1]


def test_a_reader_waits_for_no_writer(table: db.Database) -> None:
    with table.transaction() as session:
        session.add(consent())
        session.flush()
        assert count(table) == 0


def test_writers_take_turns(table: db.Database) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            with table.transaction() as session:
                session.add(consent(f"{number}-{turn}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(table) == 60


def test_every_commit_is_synced_to_disk(table: db.Database) -> None:
    with table.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_times_come_back_with_their_zone(table: db.Database) -> None:
    with table.transaction() as session:
        session.add(consent())
    with table.reading() as session:
        found = session.get(Consent, ("a", "u", "c"))
    assert found is not None
    assert found.at == dt.datetime(2026, 11, 21, 9, 30, tzinfo=dt.UTC)


def test_a_time_without_a_zone_is_refused(table: db.Database) -> None:
    row = consent()
    row.at = dt.datetime(2026, 11, 21)  # noqa: DTZ001
    with pytest.raises(sa.exc.StatementError, match="without a zone"), table.transaction() as session:
        session.add(row)


@pytest.mark.parametrize("amount", ["0", "0.000001", "12345.678901", "0.1"])
def test_money_is_exact(amount: str) -> None:
    kind = db.Money()
    stored = kind.process_bind_param(Decimal(amount), sa.engine.default.DefaultDialect())
    assert kind.process_result_value(stored, sa.engine.default.DefaultDialect()) == Decimal(amount)


def test_a_password_is_not_shown() -> None:
    table = db.Database("postgresql+psycopg://who:canary@127.0.0.1/x")
    assert "canary" not in repr(table)
    table.dispose()


def test_who_writes_goes_in_the_order_in_which_they_came() -> None:
    turn, order, come = db.Turn(), [], []

    def write(name: str) -> None:
        come.append(name)
        with turn:
            order.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcde"]
    with turn:
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: len(turn._waiting) == number)  # type: ignore[misc]
        assert order == []
    for thread in threads:
        thread.join(5)
    assert order == come
    with turn:
        assert not turn._waiting


def test_a_write_that_fails_lets_the_next_one_go(table: db.Database) -> None:
    with pytest.raises(ValueError), table.transaction():
        raise ValueError
    writer = threading.Thread(target=lambda: consented(table, "after"))
    writer.start()
    writer.join(5)
    assert not writer.is_alive()


def consented(table: db.Database, person: str) -> None:
    with table.transaction() as session:
        session.add(Consent(person=person, repo_url="u", commit="c", at=dt.datetime.now(dt.UTC)))


def test_only_what_passes_may_be_taken_back_by_a_power_cut(table: db.Database) -> None:
    full, normal = 2, 1
    for passing, expected in ((False, full), (True, normal), (False, full)):
        with table.transaction(passing=passing) as session:
            assert session.scalar(sa.text("PRAGMA synchronous")) == expected
