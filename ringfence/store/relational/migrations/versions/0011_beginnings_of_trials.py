"""When trials began, also those of a Kubernetes cluster's own policies."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply; the set on trial was enforced when its trial began."""
    op.add_column(
        "trials", sa.Column("began_ns", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE trials SET began_ns = coalesce((SELECT since_ns FROM enforcement"
        " WHERE enforcement.tenant = trials.tenant"
        " AND enforcement.revision = trials.revision), 0)"
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("trials", "began_ns")
