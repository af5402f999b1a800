"""Which versions were analysed, and what each change is about."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "analysed_versions",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "workspace", "version", name=op.f("pk_analysed_versions")
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "workspace", "version"],
            [
                "workspace_versions.tenant",
                "workspace_versions.workspace",
                "workspace_versions.version",
            ],
            name=op.f("fk_analysed_versions_workspace_versions"),
        ),
    )
    # What is there already is about nothing that could be looked for.
    op.add_column("changes", sa.Column("object", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Take back."""
    op.drop_column("changes", "object")
    op.drop_table("analysed_versions")
