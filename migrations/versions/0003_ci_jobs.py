"""CI jobs: tokens that were used, and what a job's session was let in for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ci_token_ids",
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("key_hash", name="pk_ci_token_ids"),
    )
    op.create_index("ix_ci_token_ids_expires_at", "ci_token_ids", ["expires_at"])
    op.add_column("login_sessions", sa.Column("job", sa.Text))


def downgrade() -> None:
    op.drop_column("login_sessions", "job")
    op.drop_table("ci_token_ids")
