"""What a link asks for: content, resources, BinderHub's words, and a place to wait for"""

import sqlalchemy as sa
from alembic import op

from broker import db

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("launches") as table:
        table.alter_column("commit", existing_type=sa.String(length=64), type_=sa.String(length=128))
        table.add_column(sa.Column("content", sa.JSON(), nullable=False, server_default='{"kind": "git"}'))
        table.add_column(sa.Column("cpu", sa.Double(), nullable=True))
        table.add_column(sa.Column("memory_mb", sa.Integer(), nullable=True))
        table.add_column(sa.Column("disk_gb", sa.Integer(), nullable=True))
        table.add_column(sa.Column("gpu", sa.Integer(), nullable=True))
        table.add_column(sa.Column("asked_from", sa.String(length=8), nullable=False, server_default="api"))
        table.add_column(sa.Column("request", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("build_only", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("image", sa.Text(), nullable=False, server_default=""))
        table.add_column(sa.Column("seated_at", db.UTC(timezone=True), nullable=True))
        table.add_column(sa.Column("followed_at", db.UTC(timezone=True), nullable=True))
    # What was running before there were places has one.
    op.execute("UPDATE launches SET seated_at = created_at WHERE state != 'waiting'")
    with op.batch_alter_table("consents") as table:
        table.alter_column("commit", existing_type=sa.String(length=64), type_=sa.String(length=128))
