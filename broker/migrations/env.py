"""Runs the migrations on the connection it is handed; nothing here opens one."""

from alembic import context
from sqlalchemy import text

from broker import models  # noqa: F401  the tables register themselves
from broker.db import Table

LOCK = 7_230_141  # any number of our own: two processes that start at once migrate one after the other


def run() -> None:
    """Bring the connection's database to the asked-for version, in one transaction."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
        transaction_per_migration=False,
    )
    with connection.begin(), context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        context.run_migrations()


run()
