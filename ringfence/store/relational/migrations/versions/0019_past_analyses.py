"""When versions were under analysis that are not any more."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "past_analyses",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.Column("until_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "workspace", "version", "since_ns", name=op.f("pk_past_analyses")
        ),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("past_analyses")
