"""Workspaces with the policies of Kubernetes clusters, and clusters of which those are enforced."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply."""
    op.add_column("workspaces", sa.Column("kubernetes_cluster", sa.Text()))
    op.create_table(
        "enforced_kubernetes_clusters",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kubernetes_cluster", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "kubernetes_cluster", name=op.f("pk_enforced_kubernetes_clusters")
        ),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("enforced_kubernetes_clusters")
    op.drop_column("workspaces", "kubernetes_cluster")
