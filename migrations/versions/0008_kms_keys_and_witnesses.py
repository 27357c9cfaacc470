"""Keys in KMS, and witnesses of the log: its keys' history, wrapped data keys, cosignatures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("audit_cosignatures", "audit_log_keys")

_SQLITE_TRIGGER = """
    CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
_POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$
    """,
    """
    CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {table}_refuse()
    """,
    """
    CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()
    """,
)


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_cosignatures",
        sa.Column(
            "size",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("witness", sa.Text, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("size", "witness", name="pk_audit_cosignatures"),
    )
    op.create_table(
        "audit_log_keys",
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("vkey", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("succession", sa.Text),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_audit_log_keys"),
        sa.UniqueConstraint("vkey", name="uq_audit_log_keys_vkey"),
    )
    op.create_table(
        "sealing_keys",
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_sealing_keys"),
        sa.UniqueConstraint("id", name="uq_sealing_keys_id"),
    )
    for table in _TABLES:
        if op.get_bind().dialect.name == "sqlite":
            for verb in ("update", "delete"):
                op.execute(_SQLITE_TRIGGER.format(table=table, verb=verb))
        else:
            for statement in _POSTGRESQL_TRIGGERS:
                op.execute(statement.format(table=table))


def downgrade() -> None:
    for table in ("sealing_keys", *reversed(_TABLES)):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for table in _TABLES:
            op.execute(f"DROP FUNCTION {table}_refuse()")
