"""Access policies that wait for another admin, and external ids that the broker made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "access_changes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("base_version", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("gains", sa.JSON, nullable=False),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", _time()),
        sa.Column("applied_version", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_access_changes"),
    )
    op.create_index("ix_access_changes_created_at_id", "access_changes", ["created_at", "id"])
    op.create_index("ix_access_changes_author_state", "access_changes", ["author", "state"])
    op.create_table(
        "role_external_ids",
        sa.Column("role_arn", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("role_arn", name="pk_role_external_ids"),
    )


def downgrade() -> None:
    op.drop_table("role_external_ids")
    op.drop_table("access_changes")
