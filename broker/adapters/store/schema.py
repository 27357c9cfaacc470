"""Every table of the entitlement database, as one SQLAlchemy MetaData.

Owns the shapes, for SQLite and PostgreSQL alike. The way there is `migrations/`;
a test holds the two together. Does not own: the verbs, which are in the modules
beside this one, by subject.

Two rules hold throughout:

- Time is UTC, as `utc_time` keeps it.
- `issuances` and the audit tables reference nothing by foreign key. Their
  writer holds the audit head, and a foreign key would make it wait there for
  row locks that other transactions hold while they wait for the head: a
  deadlock.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import Boolean

from broker.adapters.store.utc_time import UtcTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# On SQLite only INTEGER PRIMARY KEY is the row's own key; BIGINT would add an index.
_BigKey = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(naming_convention=NAMING)


# --- Who -------------------------------------------------------------------------------

principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("handle", Text, nullable=False),
    Column("email", Text),
    # The address with ASCII letters lowered: what addresses are compared by.
    Column("email_key", Text),
    Column("email_verified", Boolean, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("claims", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("last_login_at", UtcTime),
    Column("suspended_at", UtcTime),
    Column("suspended_reason", Text),
    Column("pinned_admin_at", UtcTime),
    UniqueConstraint("issuer", "subject"),
    Index(None, "provider", "email_key"),
    Index(None, "handle", "id"),
)

user_bindings = Table(
    "user_bindings",
    metadata,
    # A `user:` name of the access policy as it stands there: provider/e-mail.
    Column("name", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("email_key", Text, nullable=False),
    Column("principal_id", Text, ForeignKey("principals.id")),
    Column("created_at", UtcTime, nullable=False),
    Column("bound_at", UtcTime),
    Index(None, "principal_id"),
    Index(None, "provider", "email_key"),
)


# --- Login -----------------------------------------------------------------------------

login_attempts = Table(
    "login_attempts",
    metadata,
    Column("binding_hash", LargeBinary, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("next_path", Text, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "expires_at"),
)

login_sessions = Table(
    "login_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("client", Text, nullable=False),
    Column("auth_time", UtcTime, nullable=False),
    Column("mfa_time", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ip", Text),
    Column("user_agent", Text),
    Column("may_enrol_until", UtcTime),
    Column("revoked_at", UtcTime),
    # Of a CI job's session: the entry that let it in, and its verified claims, as JSON.
    Column("job", Text),
    Index(None, "principal_id"),
    Index(None, "expires_at"),
)

# CI tokens that were used, until they are refused as expired anyway.
ci_token_ids = Table(
    "ci_token_ids",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "expires_at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column(
        "login_session_id",
        Text,
        ForeignKey("login_sessions.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("role", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    # Refresh tokens alone: the one that this one replaced, when this one was itself
    # replaced, and until when it may be shown once more because the reply may be lost.
    Column("previous_hash", LargeBinary),
    Column("retired_at", UtcTime),
    Column("grace_until", UtcTime),
    Index(None, "login_session_id"),
    Index(None, "expires_at"),
    Index(None, "previous_hash"),
)

oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("code_hash", LargeBinary, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("code_challenge", Text, nullable=False),
    Column(
        "browser_session_id",
        Text,
        ForeignKey("login_sessions.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("spent_at", UtcTime),
    # The session made from it, which ends when the code is shown again.
    Column("login_session_id", Text),
    Index(None, "expires_at"),
    Index(None, "browser_session_id"),
)

# Logins that a machine without a browser started.
device_logins = Table(
    "device_logins",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device_code_hash", LargeBinary, nullable=False),
    Column("user_code_hash", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),  # pending, approved, denied, redeemed
    # Where it was started, and what the machine calls itself.
    Column("host_name", Text),
    Column("ip", Text),
    Column("user_agent", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("interval_seconds", Integer, nullable=False),
    Column("polled_at", UtcTime),
    # The browser session that decided, and when it had last shown its second factor then.
    Column("browser_session_id", Text, ForeignKey("login_sessions.id", ondelete="CASCADE")),
    Column("decided_at", UtcTime),
    Column("mfa_time", UtcTime),
    # The session made from it, which ends when the code is shown again.
    Column("login_session_id", Text),
    UniqueConstraint("device_code_hash"),
    UniqueConstraint("user_code_hash"),
    Index(None, "expires_at"),
    Index(None, "browser_session_id"),
)

throttle_counters = Table(
    "throttle_counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key_hash", LargeBinary, primary_key=True),
    # The number of the fixed window since the epoch, and what was admitted in it.
    Column("window_number", BigInteger, nullable=False),
    Column("admitted", BigInteger, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "expires_at"),
)


# --- The second factor -----------------------------------------------------------------

factors = Table(
    "factors",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("confirmed_at", UtcTime),
    Column("last_step", BigInteger, nullable=False),
    Index(None, "principal_id"),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("principal_id", Text, ForeignKey("principals.id"), primary_key=True),
    Column("code_hash", LargeBinary, primary_key=True),
    Column("created_at", UtcTime, nullable=False),
)

enrolment_codes = Table(
    "enrolment_codes",
    metadata,
    Column("code_hash", LargeBinary, primary_key=True),
    # For a principal, or for whoever logs in with this provider and verified address.
    Column("principal_id", Text, ForeignKey("principals.id")),
    Column("provider", Text),
    Column("email_key", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    CheckConstraint(
        "(principal_id IS NULL) = (provider IS NOT NULL AND email_key IS NOT NULL)", name="target"
    ),
    Index(None, "principal_id"),
    Index(None, "provider", "email_key"),
    Index(None, "expires_at"),
)

mfa_failures = Table(
    "mfa_failures",
    metadata,
    Column("principal_id", Text, ForeignKey("principals.id"), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_failure_at", UtcTime, nullable=False),
)


# --- What they may have ----------------------------------------------------------------

access_policies = Table(
    "access_policies",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("applied_at", UtcTime, nullable=False),
    Column("applied_by", Text, nullable=False),
)

access_changes = Table(
    "access_changes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("author", Text, nullable=False),
    # Why it waits, and the diff of rights, as they were when it was proposed.
    Column("gains", JSON, nullable=False),
    Column("changes", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", UtcTime),
    Column("applied_version", Integer),
    Index(None, "created_at", "id"),
    Index(None, "author", "state"),
)

role_external_ids = Table(
    "role_external_ids",
    metadata,
    Column("role_arn", Text, primary_key=True),
    Column("external_id", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("not_before", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Column("revoked_by", Text),
    Column("revoked_reason", Text),
    # When the log was told that it ran out.
    Column("expiry_recorded_at", UtcTime),
    Index(None, "principal_id", "expires_at"),
    Index(None, "created_at", "id"),
)
# Housekeeping looks for grants that ran out and are not on record so; there are few at any time.
_RAN_ON = grants.c.revoked_at.is_(None) & grants.c.expiry_recorded_at.is_(None)
Index("ix_grants_open", grants.c.expires_at, postgresql_where=_RAN_ON, sqlite_where=_RAN_ON)

# Requests that may be sent again: what was asked under a caller's key, and what came of it.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal_id", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("key_hash", LargeBinary, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("result_id", Text, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "expires_at"),
)


# --- What was given --------------------------------------------------------------------

issuances = Table(
    "issuances",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("login_session_id", Text, nullable=False),
    Column("grant_id", Text),
    Column("role", Text, nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("session_name", Text, nullable=False),
    Column("source_identity", Text, nullable=False),
    Column("duration_seconds", Integer, nullable=False),
    Column("policy_sha256", Text),
    Column("state", Text, nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("concluded_at", UtcTime),
    Column("expires_at", UtcTime),
    Column("access_key_id", Text),
    Column("assumed_role_arn", Text),
    Column("assumed_role_id", Text),
    Column("sts_request_id", Text),
    Index(None, "principal_id", "requested_at", "id"),
    Index(None, "requested_at", "id"),
)
# The reaper looks for intents that have no outcome; there are few at any time.
Index(
    "ix_issuances_open",
    issuances.c.requested_at,
    postgresql_where=issuances.c.state == "requested",
    sqlite_where=issuances.c.state == "requested",
)


# --- The audit log ---------------------------------------------------------------------

audit_records = Table(
    "audit_records",
    metadata,
    Column("seq", _BigKey, primary_key=True, autoincrement=False),
    Column("time", UtcTime, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("principal_id", Text),
    # The exact bytes, their leaf hash and the chain's value after them: never re-made.
    Column("record", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Index(None, "type", "seq"),
    Index(None, "principal_id", "seq"),
    Index(None, "time", "seq"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("time", UtcTime),
    # The Merkle tree's right edge over the first `seq` records: merkle.CompactRange.
    Column("tree", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# The hashes of full tiles, by which proofs and tiles are made without reading the log again:
# one for each 256 records, one for each 256 of those, and so on. Leaves are audit_records.leaf.
audit_nodes = Table(
    "audit_nodes",
    metadata,
    Column("height", Integer, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("size", _BigKey, primary_key=True, autoincrement=False),
    # The signed note, as it is given out.
    Column("note", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "created_at"),
)

# The lines that witnesses gave for checkpoints.
audit_cosignatures = Table(
    "audit_cosignatures",
    metadata,
    Column("size", _BigKey, primary_key=True, autoincrement=False),
    # The witness's verifier key.
    Column("witness", Text, primary_key=True),
    Column("line", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

# Verifier keys of a log whose key is in KMS, oldest first, and the notes between them.
audit_log_keys = Table(
    "audit_log_keys",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("origin", Text, nullable=False),
    Column("vkey", Text, nullable=False),
    # Where the private half is: awskms:ARN or file:PATH.
    Column("reference", Text, nullable=False),
    Column("succession", Text),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("vkey"),
)

# Data keys that KMS wrapped, oldest first; the last seals new secrets.
sealing_keys = Table(
    "sealing_keys",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("id"),
)

audit_attachments = Table(
    "audit_attachments",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# How far each sink of the log has got. A sink that was taken out of the settings keeps its row:
# put back, it goes on where it was.
audit_sinks = Table(
    "audit_sinks",
    metadata,
    Column("name", Text, primary_key=True),
    # Where it delivers to, without secrets, as canonical JSON.
    Column("description", Text, nullable=False),
    # The last record that was delivered, and the end of the batch under way: a repeat, whoever
    # makes it, ends there too.
    Column("position", BigInteger, nullable=False),
    Column("batch_end", BigInteger),
    # The process that delivers, until when it alone may.
    Column("holder", Text),
    Column("held_until", UtcTime),
    Column("failures", Integer, nullable=False),
    Column("failing_since", UtcTime),
    Column("last_error", Text),
    Column("retry_at", UtcTime),
    Column("delivered_at", UtcTime),
    Column("updated_at", UtcTime, nullable=False),
    Column("removed_at", UtcTime),
)
