"""Trials of whether a Kubernetes cluster's own policies are enforced."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply."""
    op.add_column("trials", sa.Column("kubernetes_cluster", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("trials", "kubernetes_cluster")
