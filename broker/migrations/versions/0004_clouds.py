"""Clouds: what a launch may cost and where else it may go, hedges, and how a machine ends itself"""

import sqlalchemy as sa
from alembic import op

from broker import db

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("launches") as table:
        table.add_column(sa.Column("budget", db.Money(), nullable=True))
        table.add_column(sa.Column("currency", sa.String(length=8), nullable=False, server_default="USD"))
        table.add_column(sa.Column("prefer", sa.String(length=16), nullable=False, server_default="price"))
        table.add_column(sa.Column("spot", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("hedged", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("elsewhere", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("orders") as table:
        table.add_column(sa.Column("hedge", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("first_asked_at", db.UTC(timezone=True), nullable=True))
        table.add_column(sa.Column("refused", sa.String(length=16), nullable=False, server_default=""))
        table.add_column(sa.Column("running_at", db.UTC(timezone=True), nullable=True))
        table.add_column(sa.Column("dead_man", sa.LargeBinary(), nullable=True))
        table.drop_index("uq_orders_open")
        table.create_index(
            "uq_orders_open",
            ["launch_id", "hedge"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )
