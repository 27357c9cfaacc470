"""What PostgreSQL's `unnest` takes: the rows of a group commit as one array a column.

Owns the order of columns, which the statements of `journal_postgresql` and `journal_swap` share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from broker.adapters.store.journal_batch import Move
from broker.adapters.store.records import Row
from broker.audit.merkle import Growth
from broker.audit.record import Attachment
from broker.issuance.journal import Intent

Columns: TypeAlias = tuple[list[Any], ...]


def intent_columns(intents: Sequence[Intent]) -> Columns:
    """For `issuances`: eleven, all but the state and the time."""
    return (
        [i.id for i in intents],
        [i.principal_id for i in intents],
        [i.login_session_id for i in intents],
        [i.grant_id for i in intents],
        [i.role for i in intents],
        [i.role_arn for i in intents],
        [i.account_id for i in intents],
        [i.session_name for i in intents],
        [i.source_identity for i in intents],
        [i.duration_seconds for i in intents],
        [i.policy_sha256 for i in intents],
    )


def move_columns(moves: Sequence[Move]) -> Columns:
    """Seven: which issuance, its new state, and what STS answered."""
    return (
        [m.id for m in moves],
        [m.state.value for m in moves],
        [m.expires_at for m in moves],
        [m.access_key_id for m in moves],
        [m.assumed_role_arn for m in moves],
        [m.assumed_role_id for m in moves],
        [m.sts_request_id for m in moves],
    )


def record_columns(rows: Sequence[Row]) -> Columns:
    """For `audit_records`: seven, all but the time, which a batch shares."""
    return (
        [r.seq for r in rows],
        [r.type for r in rows],
        [r.actor_id for r in rows],
        [r.principal_id for r in rows],
        [r.record for r in rows],
        [r.leaf for r in rows],
        [r.chain for r in rows],
    )


def node_columns(growth: Growth) -> Columns:
    """For `audit_nodes`: three; empty but where a tile was completed."""
    completed = growth.tile_roots()
    return (
        [node.height for node, _ in completed],
        [node.place for node, _ in completed],
        [value for _, value in completed],
    )


def attachment_columns(attachments: Sequence[Attachment]) -> Columns:
    """For `audit_attachments`: two."""
    return [a.sha256 for a in attachments], [a.body for a in attachments]
