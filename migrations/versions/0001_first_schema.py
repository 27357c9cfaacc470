"""The first schema: people, sessions, factors, access policies, issuances, the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The log is append-only in the database as well: whoever tampers must first drop these,
# which needs the owner's rights and shows in the schema. The chain finds the rest.
_SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER audit_records_no_update BEFORE UPDATE ON audit_records
    BEGIN SELECT RAISE(ABORT, 'audit_records is append-only'); END
    """,
    """
    CREATE TRIGGER audit_records_no_delete BEFORE DELETE ON audit_records
    BEGIN SELECT RAISE(ABORT, 'audit_records is append-only'); END
    """,
)
_POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION audit_records_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'audit_records is append-only'; END $$
    """,
    """
    CREATE TRIGGER audit_records_no_change BEFORE UPDATE OR DELETE ON audit_records
    FOR EACH ROW EXECUTE FUNCTION audit_records_refuse()
    """,
    """
    CREATE TRIGGER audit_records_no_truncate BEFORE TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION audit_records_refuse()
    """,
)


def _time() -> TypeEngine[object]:
    """As utc_time.UtcTime is today: a migration does not change when the code does."""
    return sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def _big_key() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_tables()
    op.execute(
        sa.text("INSERT INTO audit_head (id, seq, chain) VALUES (1, 0, :zero)").bindparams(
            sa.bindparam("zero", b"\x00" * 32, sa.LargeBinary)
        )
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE_TRIGGERS if sqlite else _POSTGRESQL_TRIGGERS:
        op.execute(statement)


def _create_tables() -> None:
    op.create_table(
        "access_policies",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("applied_at", _time(), nullable=False),
        sa.Column("applied_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_access_policies")),
    )
    op.create_table(
        "audit_attachments",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_audit_attachments")),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("time", _time(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_records",
        sa.Column("seq", _big_key(), autoincrement=False, nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=True),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_records")),
    )
    op.create_index(
        op.f("ix_audit_records_principal_id_seq"),
        "audit_records",
        ["principal_id", "seq"],
        unique=False,
    )
    op.create_index(
        op.f("ix_audit_records_time_seq"), "audit_records", ["time", "seq"], unique=False
    )
    op.create_index(
        op.f("ix_audit_records_type_seq"), "audit_records", ["type", "seq"], unique=False
    )
    op.create_table(
        "issuances",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("login_session_id", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("session_name", sa.Text(), nullable=False),
        sa.Column("source_identity", sa.Text(), nullable=False),
        sa.Column("duration_seconds", sa.Integer(), nullable=False),
        sa.Column("policy_sha256", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("requested_at", _time(), nullable=False),
        sa.Column("concluded_at", _time(), nullable=True),
        sa.Column("expires_at", _time(), nullable=True),
        sa.Column("access_key_id", sa.Text(), nullable=True),
        sa.Column("assumed_role_arn", sa.Text(), nullable=True),
        sa.Column("assumed_role_id", sa.Text(), nullable=True),
        sa.Column("sts_request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issuances")),
    )
    op.create_index(
        "ix_issuances_open",
        "issuances",
        ["requested_at"],
        unique=False,
        postgresql_where=sa.text("state = 'requested'"),
        sqlite_where=sa.text("state = 'requested'"),
    )
    op.create_index(
        op.f("ix_issuances_principal_id_requested_at_id"),
        "issuances",
        ["principal_id", "requested_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_issuances_requested_at_id"), "issuances", ["requested_at", "id"], unique=False
    )
    op.create_table(
        "login_attempts",
        sa.Column("binding_hash", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("next_path", sa.Text(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("binding_hash", name=op.f("pk_login_attempts")),
    )
    op.create_index(
        op.f("ix_login_attempts_expires_at"), "login_attempts", ["expires_at"], unique=False
    )
    op.create_table(
        "principals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("email_key", sa.Text(), nullable=True),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("last_login_at", _time(), nullable=True),
        sa.Column("suspended_at", _time(), nullable=True),
        sa.Column("suspended_reason", sa.Text(), nullable=True),
        sa.Column("pinned_admin_at", _time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principals")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_principals_issuer_subject")),
    )
    op.create_index(
        op.f("ix_principals_provider_email_key"),
        "principals",
        ["provider", "email_key"],
        unique=False,
    )
    op.create_table(
        "throttle_counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("window_number", sa.BigInteger(), nullable=False),
        sa.Column("admitted", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("name", "key_hash", name=op.f("pk_throttle_counters")),
    )
    op.create_index(
        op.f("ix_throttle_counters_expires_at"), "throttle_counters", ["expires_at"], unique=False
    )
    op.create_table(
        "enrolment_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("email_key", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.CheckConstraint(
            "(principal_id IS NULL) = (provider IS NOT NULL AND email_key IS NOT NULL)",
            name=op.f("ck_enrolment_codes_target"),
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_enrolment_codes_principal_id")
        ),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_enrolment_codes")),
    )
    op.create_index(
        op.f("ix_enrolment_codes_expires_at"), "enrolment_codes", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_enrolment_codes_principal_id"), "enrolment_codes", ["principal_id"], unique=False
    )
    op.create_index(
        op.f("ix_enrolment_codes_provider_email_key"),
        "enrolment_codes",
        ["provider", "email_key"],
        unique=False,
    )
    op.create_table(
        "factors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("confirmed_at", _time(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_factors_principal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_factors")),
    )
    op.create_index(op.f("ix_factors_principal_id"), "factors", ["principal_id"], unique=False)
    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("not_before", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("revoked_at", _time(), nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_grants_principal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(
        op.f("ix_grants_principal_id_expires_at"),
        "grants",
        ["principal_id", "expires_at"],
        unique=False,
    )
    op.create_table(
        "login_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("auth_time", _time(), nullable=False),
        sa.Column("mfa_time", _time(), nullable=True),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("may_enrol_until", _time(), nullable=True),
        sa.Column("revoked_at", _time(), nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_login_sessions_principal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_sessions")),
    )
    op.create_index(
        op.f("ix_login_sessions_expires_at"), "login_sessions", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_login_sessions_principal_id"), "login_sessions", ["principal_id"], unique=False
    )
    op.create_table(
        "mfa_failures",
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_failure_at", _time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_mfa_failures_principal_id")
        ),
        sa.PrimaryKeyConstraint("principal_id", name=op.f("pk_mfa_failures")),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("principal_id", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_recovery_codes_principal_id")
        ),
        sa.PrimaryKeyConstraint("principal_id", "code_hash", name=op.f("pk_recovery_codes")),
    )
    op.create_table(
        "user_bindings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Text(), nullable=True),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("bound_at", _time(), nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_user_bindings_principal_id")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_user_bindings")),
    )
    op.create_index(
        op.f("ix_user_bindings_principal_id"), "user_bindings", ["principal_id"], unique=False
    )
    op.create_index(
        op.f("ix_user_bindings_provider_email_key"),
        "user_bindings",
        ["provider", "email_key"],
        unique=False,
    )
    op.create_table(
        "oauth_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.Text(), nullable=False),
        sa.Column("browser_session_id", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("spent_at", _time(), nullable=True),
        sa.Column("login_session_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["browser_session_id"],
            ["login_sessions.id"],
            name=op.f("fk_oauth_codes_browser_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_oauth_codes")),
    )
    op.create_index(
        op.f("ix_oauth_codes_browser_session_id"),
        "oauth_codes",
        ["browser_session_id"],
        unique=False,
    )
    op.create_index(op.f("ix_oauth_codes_expires_at"), "oauth_codes", ["expires_at"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("login_session_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=True),
        sa.Column("retired_at", _time(), nullable=True),
        sa.Column("grace_until", _time(), nullable=True),
        sa.ForeignKeyConstraint(
            ["login_session_id"],
            ["login_sessions.id"],
            name=op.f("fk_tokens_login_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_expires_at"), "tokens", ["expires_at"], unique=False)
    op.create_index(
        op.f("ix_tokens_login_session_id"), "tokens", ["login_session_id"], unique=False
    )
    op.create_index(op.f("ix_tokens_previous_hash"), "tokens", ["previous_hash"], unique=False)
