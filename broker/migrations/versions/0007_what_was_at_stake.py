"""What was at stake: a consent says what it was given for"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Until now only what runs as the person was asked about: whoever agreed has agreed to all of it.
EVERYTHING = "actions corrupt credentials leak network waste"


def upgrade() -> None:
    with op.batch_alter_table("consents") as table:
        table.add_column(sa.Column("threats", sa.Text(), nullable=False, server_default=EVERYTHING))
