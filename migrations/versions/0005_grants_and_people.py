"""How grants end, requests that may be repeated, and people listed by name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OPEN = sa.text("revoked_at IS NULL AND expiry_recorded_at IS NULL")


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_index("ix_principals_handle_id", "principals", ["handle", "id"])
    op.add_column("grants", sa.Column("revoked_by", sa.Text))
    op.add_column("grants", sa.Column("revoked_reason", sa.Text))
    op.add_column("grants", sa.Column("expiry_recorded_at", _time()))
    op.create_index("ix_grants_created_at_id", "grants", ["created_at", "id"])
    op.create_index(
        "ix_grants_open", "grants", ["expires_at"], postgresql_where=_OPEN, sqlite_where=_OPEN
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("result_id", sa.Text, nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint(
            "principal_id", "operation", "key_hash", name="pk_idempotency_keys"
        ),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_index("ix_grants_open", "grants")
    op.drop_index("ix_grants_created_at_id", "grants")
    for column in ("expiry_recorded_at", "revoked_reason", "revoked_by"):
        op.drop_column("grants", column)
    op.drop_index("ix_principals_handle_id", "principals")
