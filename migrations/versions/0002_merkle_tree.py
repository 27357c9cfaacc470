"""The Merkle tree over the audit log, and its signed checkpoints."""

from __future__ import annotations

from hashlib import sha256

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BATCH = 10_000
_TABLES = ("audit_nodes", "audit_checkpoints")

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
    empty = sa.text("''") if op.get_bind().dialect.name == "postgresql" else sa.text("x''")
    op.add_column(
        "audit_head", sa.Column("tree", sa.LargeBinary(), nullable=False, server_default=empty)
    )
    op.create_table(
        "audit_nodes",
        sa.Column("height", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("height", "place", name=op.f("pk_audit_nodes")),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column(
            "size",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoints")),
    )
    op.create_index(op.f("ix_audit_checkpoints_created_at"), "audit_checkpoints", ["created_at"])
    _plant(op.get_bind())
    _make_append_only(op.get_bind())


def _make_append_only(connection: sa.Connection) -> None:
    for table in _TABLES:
        if connection.dialect.name == "sqlite":
            for verb in ("update", "delete"):
                op.execute(_SQLITE_TRIGGER.format(table=table, verb=verb))
        else:
            for statement in _POSTGRESQL_TRIGGERS:
                op.execute(statement.format(table=table))


def _plant(connection: sa.Connection) -> None:
    """The tree over the records that are there already (RFC 6962 section 2.1)."""
    # No server of the version before may append meanwhile.
    connection.execute(sa.text("UPDATE audit_head SET seq = seq WHERE id = 1"))
    edge: list[tuple[int, bytes]] = []
    size = 0
    page = sa.text("SELECT leaf FROM audit_records WHERE seq > :after ORDER BY seq LIMIT :limit")
    while leaves := connection.execute(page, {"after": size, "limit": _BATCH}).scalars().all():
        nodes = []
        for leaf in leaves:
            nodes += _grow(edge, size, leaf)
            size += 1
        if nodes:
            connection.execute(
                sa.text(
                    "INSERT INTO audit_nodes (height, place, hash) VALUES (:height, :place, :hash)"
                ),
                nodes,
            )
    connection.execute(
        sa.text("UPDATE audit_head SET tree = :tree WHERE id = 1"),
        {"tree": b"".join(value for _, value in edge)},
    )


def _grow(edge: list[tuple[int, bytes]], place: int, leaf: bytes) -> list[dict[str, object]]:
    """Add a leaf; the full tiles' hashes that this completes."""
    completed: list[dict[str, object]] = []
    height, current = 0, leaf
    while edge and edge[-1][0] == height:
        current = sha256(b"\x01" + edge.pop()[1] + current).digest()
        height, place = height + 1, place >> 1
        if height % 8 == 0:
            completed.append({"height": height, "place": place, "hash": current})
    edge.append((height, current))
    return completed
