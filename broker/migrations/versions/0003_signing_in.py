"""Signing in: people, their logins and sign-ins, tokens, connections and their uses, signing keys"""

import sqlalchemy as sa
from alembic import op

from broker import db

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("ends_at", db.UTC(timezone=True), nullable=False),
        sa.Column("used_at", db.UTC(timezone=True), nullable=True),
        sa.Column("revoked_at", db.UTC(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_tokens_digest")),
    )
    with op.batch_alter_table("api_tokens") as table:
        table.create_index(table.f("ix_api_tokens_person"), ["person"], unique=False)

    op.create_table(
        "connections",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("works", sa.Boolean(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("checked_at", db.UTC(timezone=True), nullable=True),
        sa.Column("ends_at", db.UTC(timezone=True), nullable=True),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("removed_at", db.UTC(timezone=True), nullable=True),
        sa.Column("erased_at", db.UTC(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
    )
    with op.batch_alter_table("connections") as table:
        table.create_index(table.f("ix_connections_person"), ["person"], unique=False)
        table.create_index(
            "uq_connections_target",
            ["person", "target"],
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.create_table(
        "device_logins",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_code", sa.String(length=16), nullable=False),
        sa.Column("asked_from", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("ends_at", db.UTC(timezone=True), nullable=False),
        sa.Column("polled_at", db.UTC(timezone=True), nullable=True),
        sa.Column("person", sa.String(length=255), nullable=True),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_device_logins")),
        sa.UniqueConstraint("user_code", name=op.f("uq_device_logins_user_code")),
    )
    with op.batch_alter_table("device_logins") as table:
        table.create_index(table.f("ix_device_logins_asked_from"), ["asked_from"], unique=False)

    op.create_table(
        "people",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("signed_in_at", db.UTC(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("public", sa.JSON(), nullable=False),
        sa.Column("private", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("signs_at", db.UTC(timezone=True), nullable=False),
        sa.Column("hidden_at", db.UTC(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "logins",
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("person", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("signed_in_at", db.UTC(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name=op.f("fk_logins_person")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_logins")),
    )
    with op.batch_alter_table("logins") as table:
        table.create_index(table.f("ix_logins_person"), ["person"], unique=False)

    op.create_table(
        "sign_ins",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("person", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("sid", sa.String(length=255), nullable=False),
        sa.Column("level", sa.String(length=255), nullable=False),
        sa.Column("authenticated_at", db.UTC(timezone=True), nullable=False),
        sa.Column("created_at", db.UTC(timezone=True), nullable=False),
        sa.Column("seen_at", db.UTC(timezone=True), nullable=False),
        sa.Column("ends_at", db.UTC(timezone=True), nullable=False),
        sa.Column("browser", sa.String(length=200), nullable=False),
        sa.Column("refreshed_at", db.UTC(timezone=True), nullable=False),
        sa.Column("grant", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name=op.f("fk_sign_ins_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("digest", name=op.f("uq_sign_ins_digest")),
    )
    with op.batch_alter_table("sign_ins") as table:
        table.create_index(table.f("ix_sign_ins_person"), ["person"], unique=False)
        table.create_index(table.f("ix_sign_ins_sid"), ["sid"], unique=False)

    op.create_table(
        "uses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", db.UTC(timezone=True), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("connection_id", sa.String(length=12), nullable=True),
        sa.Column("what", sa.String(length=32), nullable=False),
        sa.Column("launch_id", sa.String(length=12), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"], name=op.f("fk_uses_connection_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uses")),
    )
    with op.batch_alter_table("uses") as table:
        table.create_index(table.f("ix_uses_connection_id"), ["connection_id"], unique=False)
        table.create_index(table.f("ix_uses_person"), ["person"], unique=False)

    with op.batch_alter_table("launches") as table:
        table.add_column(sa.Column("connection_id", sa.String(length=12), nullable=True))
        table.add_column(sa.Column("repo_connection_id", sa.String(length=12), nullable=True))

    with op.batch_alter_table("orders") as table:
        table.add_column(sa.Column("connection_id", sa.String(length=12), nullable=True))
        table.create_index(table.f("ix_orders_connection_id"), ["connection_id"], unique=False)
