"""Workloads that are cut off."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "quarantines",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kubernetes_cluster", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("allow", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger()),
        sa.PrimaryKeyConstraint(
            "tenant", "kubernetes_cluster", "workload", name=op.f("pk_quarantines")
        ),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("quarantines")
