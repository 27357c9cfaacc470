"""What PostgreSQL's `unnest` takes: the rows of a group commit as one array a column.

Owns the order of columns, which the statements of `journal_postgresql` and `journal_swap` share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

from broker.adapters.store.journal_batch import Move
from broker.adapters.store.records import Row
from broker.audit.merkle import Growth
from broker.audit.record import Attachment
from broker.issuance.journal import Intent

Columns: TypeAlias = tuple[list[Any], ...]
_Getters: TypeAlias = tuple[Callable[[Any], Any], ...]


def _of(*names: str) -> _Getters:
    return tuple(attrgetter(name) for name in names)


_INTENT = _of(
    "id",
    "principal_id",
    "login_session_id",
    "grant_id",
    "role",
    "role_arn",
    "account_id",
    "session_name",
    "source_identity",
    "duration_seconds",
    "policy_sha256",
)
_MOVE = _of(
    "id",
    "state.value",
    "expires_at",
    "access_key_id",
    "assumed_role_arn",
    "assumed_role_id",
    "sts_request_id",
)
_RECORD = _of("seq", "type", "actor_id", "principal_id", "record", "leaf", "chain")
_ATTACHMENT = _of("sha256", "body")


def intent_columns(intents: Sequence[Intent]) -> Columns:
    """For `issuances`: eleven, all but the state and the time."""
    return _columns(intents, _INTENT)


def move_columns(moves: Sequence[Move]) -> Columns:
    """Seven: which issuance, its new state, and what STS answered."""
    return _columns(moves, _MOVE)


def record_columns(rows: Sequence[Row]) -> Columns:
    """For `audit_records`: seven, all but the time, which a batch shares."""
    return _columns(rows, _RECORD)


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
    return _columns(attachments, _ATTACHMENT)


def _columns(rows: Iterable[Any], getters: _Getters) -> Columns:
    return tuple(list(map(get, rows)) for get in getters)
