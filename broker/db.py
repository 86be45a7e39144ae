"""The table: one engine a process, short transactions, and what happens after a commit.

No network call happens between `transaction()` and its end: read, close, act, write.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, orm

READING = "anybinder_reading"  # marks a connection whose transaction will write nothing
PASSING = "anybinder_passing"  # marks one whose transaction need not survive a power cut
# SQLite's words for both. FULL: what is written before anything is bought must survive a power cut, not only a kill.
SYNC_LASTING, SYNC_PASSING = "FULL", "NORMAL"
MIGRATIONS = Path(__file__).parent / "migrations"


class UTC(sa.types.TypeDecorator[dt.datetime]):
    """An aware instant. SQLite keeps none, so it is stored naive in UTC and comes back aware."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without a zone cannot be stored.")
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=dt.UTC) if value is not None and value.tzinfo is None else value


class Money(sa.types.TypeDecorator[Decimal]):
    """An amount, exact to a millionth, as a whole number of millionths: SQLite knows no decimals."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else int(value.scaleb(6).to_integral_value())

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(value).scaleb(-6)


class Table(orm.DeclarativeBase):
    """What every row class derives from."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dt.datetime: UTC, dict[str, Any]: sa.JSON}


class Turn:
    """Threads that write, one after the other, in the order in which they came.

    SQLite lets one write at a time, and who waits for that sleeps, longer and longer, while nobody writes; meanwhile whoever
    comes by goes first. Here each is woken by the one before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # until it is handed on

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Database:
    """One database. Threads share it; a transaction belongs to the thread that opened it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _sqlite(url) if url.startswith("sqlite") else sa.create_engine(url, pool_pre_ping=True)
        self._sessions = orm.sessionmaker(self.engine, expire_on_commit=False)
        self._turn = Turn() if url.startswith("sqlite") else contextlib.nullcontext()

    def __repr__(self) -> str:
        return f"Database({self.engine.url.render_as_string(hide_password=True)})"

    @contextlib.contextmanager
    def transaction(self, *, passing: bool = False) -> Iterator[orm.Session]:
        """A session that commits at the end, or rolls back on an error. `after_commit` calls run once it is durable.

        `passing`: it survives a kill, but a power cut may take it back where nothing durable was written since: for what is
        said or done again anyway. On SQLite that saves waiting for the disk.
        """
        with self._sessions() as session:
            with self._turn, session.begin():
                if passing:
                    session.connection(execution_options={PASSING: True})
                yield session
            for call in session.info.pop("after_commit", ()):
                call()

    @contextlib.contextmanager
    def reading(self) -> Iterator[orm.Session]:
        """A session that only looks: it waits for no writer, and no writer waits for it."""
        with self._sessions() as session, session.begin():
            session.connection(execution_options={READING: True})
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version. May be repeated; two processes at once are serialised."""
        from alembic import command, config  # imported here: a command that only talks to a broker needs none of it

        settings = config.Config()
        settings.set_main_option("script_location", str(MIGRATIONS))
        with self.engine.connect() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def one_at_a_time(session: orm.Session, what: str) -> None:
    """Until this transaction ends, no other that asks for the same goes on. SQLite lets one write at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(what))))


def after_commit(session: orm.Session, call: Callable[[], object]) -> None:
    """Run this once the transaction is durable; never if it rolls back."""
    session.info.setdefault("after_commit", []).append(call)


def _sqlite(url: str) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": 30, "isolation_level": None, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"synchronous={SYNC_LASTING}", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # IMMEDIATE: a reader that turns writer in mid-transaction would otherwise fail at once instead of waiting.
        marks = connection.get_execution_options()
        if marks.get(READING):
            connection.exec_driver_sql("BEGIN")
            return
        connection.exec_driver_sql(f"PRAGMA synchronous={SYNC_PASSING if marks.get(PASSING) else SYNC_LASTING}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
