"""Until when a set was in force at some nodes alone; what was found, by time."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Apply."""
    column = sa.Column("staged_until_ns", sa.BigInteger(), nullable=True, server_default="0")
    op.add_column("enforcement", column)
    op.execute(
        "UPDATE enforcement SET staged_until_ns = NULL WHERE EXISTS (SELECT 1 FROM trials WHERE "
        "trials.tenant = enforcement.tenant AND trials.revision = enforcement.revision "
        "AND trials.threshold IS NOT NULL)"
    )
    op.create_index("ix_verdicts_tenant_start_ns", "verdicts", ["tenant", "start_ns"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_verdicts_tenant_start_ns", "verdicts")
    op.drop_column("enforcement", "staged_until_ns")
