"""A server of one's own: the offer that a launch was told to run on, where nothing is bought for it"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("launches") as table:
        table.add_column(sa.Column("offer", sa.Text(), nullable=False, server_default=""))
