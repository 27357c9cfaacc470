"""Logins that a machine without a browser starts (RFC 8628)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "device_logins",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("device_code_hash", sa.LargeBinary, nullable=False),
        sa.Column("user_code_hash", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("host_name", sa.Text),
        sa.Column("ip", sa.Text),
        sa.Column("user_agent", sa.Text),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("interval_seconds", sa.Integer, nullable=False),
        sa.Column("polled_at", _time()),
        sa.Column("browser_session_id", sa.Text),
        sa.Column("decided_at", _time()),
        sa.Column("mfa_time", _time()),
        sa.Column("login_session_id", sa.Text),
        sa.ForeignKeyConstraint(
            ["browser_session_id"],
            ["login_sessions.id"],
            name="fk_device_logins_browser_session_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_device_logins"),
        sa.UniqueConstraint("device_code_hash", name="uq_device_logins_device_code_hash"),
        sa.UniqueConstraint("user_code_hash", name="uq_device_logins_user_code_hash"),
    )
    op.create_index("ix_device_logins_expires_at", "device_logins", ["expires_at"])
    op.create_index("ix_device_logins_browser_session_id", "device_logins", ["browser_session_id"])


def downgrade() -> None:
    op.drop_table("device_logins")
