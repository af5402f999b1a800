"""When something was last told of an alert."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Apply; what is open was told of when it last happened, as far as is known."""
    column = sa.Column("heard_ns", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("alerts", column)
    op.execute("UPDATE alerts SET heard_ns = last_ns")


def downgrade() -> None:
    """Take back."""
    op.drop_column("alerts", "heard_ns")
