"""The modes in which agents report."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "agent_modes",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kubernetes_cluster", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("changed_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "kubernetes_cluster", "node", name=op.f("pk_agent_modes")
        ),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("agent_modes")
