"""How far each sink of the audit log has got."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_sinks",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("batch_end", sa.BigInteger),
        sa.Column("holder", sa.Text),
        sa.Column("held_until", _time()),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", _time()),
        sa.Column("last_error", sa.Text),
        sa.Column("retry_at", _time()),
        sa.Column("delivered_at", _time()),
        sa.Column("updated_at", _time(), nullable=False),
        sa.Column("removed_at", _time()),
        sa.PrimaryKeyConstraint("name", name="pk_audit_sinks"),
    )


def downgrade() -> None:
    op.drop_table("audit_sinks")
