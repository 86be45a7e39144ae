"""Peers: other hubs, and every try at one"""

import sqlalchemy as sa
from alembic import op

from broker import db

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "peers",
        sa.Column("name", sa.String(length=31), nullable=False),
        sa.Column("setting", sa.JSON(), nullable=True),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("standing", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("providers", sa.JSON(), nullable=False),
        sa.Column("added_at", db.UTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_peers")),
    )
    op.create_table(
        "forwards",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("launch_id", sa.String(length=12), nullable=False),
        sa.Column("peer", sa.String(length=31), nullable=False),
        sa.Column("connection_id", sa.String(length=12), nullable=True),
        sa.Column("opened_at", db.UTC(timezone=True), nullable=False),
        sa.Column("asked_at", db.UTC(timezone=True), nullable=True),
        sa.Column("heard_at", db.UTC(timezone=True), nullable=True),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("way_in", sa.LargeBinary(), nullable=True),
        sa.Column("ready_at", db.UTC(timezone=True), nullable=True),
        sa.Column("looked_at", db.UTC(timezone=True), nullable=True),
        sa.Column("silent_at", db.UTC(timezone=True), nullable=True),
        sa.Column("closing_at", db.UTC(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("closed_at", db.UTC(timezone=True), nullable=True),
        sa.Column("lease", sa.String(length=16), nullable=True),
        sa.Column("lease_until", db.UTC(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["launch_id"], ["launches.id"], name=op.f("fk_forwards_launch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forwards")),
    )
    with op.batch_alter_table("forwards") as table:
        table.create_index(table.f("ix_forwards_launch_id"), ["launch_id"], unique=False)
        table.create_index(
            "uq_forwards_open",
            ["launch_id"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )
