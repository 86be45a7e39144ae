"""The first tables"""

import sqlalchemy as sa
from alembic import op

from broker import db

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "consents",
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("repo_url", sa.String(length=1024), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("at", db.UTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person", "repo_url", "commit", name=op.f("pk_consents")),
    )
    op.create_table(
        "launches",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("repo_url", sa.Text(), nullable=False),
        sa.Column("web_url", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("backend", sa.String(length=64), nullable=False),
        sa.Column("hours", sa.Double(), nullable=False),
        sa.Column("idle_minutes", sa.Double(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "waiting",
                "placed",
                "authorized",
                "starting",
                "ready",
                "stopping",
                "stopped",
                name="state",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "phase",
            sa.Enum(
                "waiting",
                "fetching",
                "building",
                "pushing",
                "built",
                "launching",
                "ready",
                "failed",
                name="phase",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("stop_wanted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("entered_at", db.UTC(timezone=True), nullable=False),
        sa.Column("ready_at", db.UTC(timezone=True), nullable=True),
        sa.Column("stopped_at", db.UTC(timezone=True), nullable=True),
        sa.Column("deadline_at", db.UTC(timezone=True), nullable=False),
        sa.Column("last_activity_at", db.UTC(timezone=True), nullable=True),
        sa.Column("due_at", db.UTC(timezone=True), nullable=True),
        sa.Column("lease", sa.String(length=16), nullable=True),
        sa.Column("lease_until", db.UTC(timezone=True), nullable=True),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_launches")),
    )
    with op.batch_alter_table("launches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_launches_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_launches_person"), ["person"], unique=False)
        batch_op.create_index(batch_op.f("ix_launches_state"), ["state"], unique=False)
        batch_op.create_index(
            "uq_launches_running_name",
            ["person", "name"],
            unique=True,
            sqlite_where=sa.text("state != 'stopped'"),
            postgresql_where=sa.text("state != 'stopped'"),
        )

    op.create_table(
        "events",
        sa.Column("launch_id", sa.String(length=12), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", db.UTC(timezone=True), nullable=False),
        sa.Column(
            "phase",
            sa.Enum(
                "waiting",
                "fetching",
                "building",
                "pushing",
                "built",
                "launching",
                "ready",
                "failed",
                name="phase",
                native_enum=False,
                length=16,
            ),
            nullable=True,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "waiting",
                "placed",
                "authorized",
                "starting",
                "ready",
                "stopping",
                "stopped",
                name="state",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("more", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["launch_id"], ["launches.id"], name=op.f("fk_events_launch_id")),
        sa.PrimaryKeyConstraint("launch_id", "number", name=op.f("pk_events")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("launch_id", sa.String(length=12), nullable=False),
        sa.Column("backend", sa.String(length=64), nullable=False),
        sa.Column("offer", sa.JSON(), nullable=False),
        sa.Column("until", db.UTC(timezone=True), nullable=False),
        sa.Column("promised", db.Money(), nullable=False),
        sa.Column("settled", db.Money(), nullable=True),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("asked_at", db.UTC(timezone=True), nullable=True),
        sa.Column("instance", sa.Text(), nullable=True),
        sa.Column("closing_at", db.UTC(timezone=True), nullable=True),
        sa.Column("closed_at", db.UTC(timezone=True), nullable=True),
        sa.Column("enrolled_at", db.UTC(timezone=True), nullable=True),
        sa.Column("agent_hash", sa.LargeBinary(), nullable=True),
        sa.Column("agent_seen_at", db.UTC(timezone=True), nullable=True),
        sa.Column("agent_events", sa.Integer(), nullable=False),
        sa.Column("server", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=True),
        sa.Column("tunnelled_at", db.UTC(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["launch_id"], ["launches.id"], name=op.f("fk_orders_launch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_orders_launch_id"), ["launch_id"], unique=False)
        batch_op.create_index(
            "uq_orders_open",
            ["launch_id"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_orders_open", sqlite_where=sa.text("closed_at IS NULL"), postgresql_where=sa.text("closed_at IS NULL")
        )
        batch_op.drop_index(batch_op.f("ix_orders_launch_id"))

    op.drop_table("orders")
    op.drop_table("events")
    with op.batch_alter_table("launches", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_launches_running_name",
            sqlite_where=sa.text("state != 'stopped'"),
            postgresql_where=sa.text("state != 'stopped'"),
        )
        batch_op.drop_index(batch_op.f("ix_launches_state"))
        batch_op.drop_index(batch_op.f("ix_launches_person"))
        batch_op.drop_index(batch_op.f("ix_launches_due_at"))

    op.drop_table("launches")
    op.drop_table("consents")
