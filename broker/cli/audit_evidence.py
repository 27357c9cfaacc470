"""What an audit log is held against: keys, checkpoints and receipts, from files or a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from broker.audit.authentic import Evidence
from broker.audit.cosignature import CosignerKey, require_cosigned
from broker.audit.merkle import BadProof
from broker.audit.note import BadNote, VerifierKey
from broker.audit.receipt import BadReceipt, Receipt
from broker.cli import answers
from broker.cli.failure import LocalFailure, WrongUsage
from broker.cli.terminal import clean
from broker.cli.transport import Answer

CHECKPOINT_PATH = "/v1/audit/checkpoint"
_MAX_BYTES = 1024 * 1024


class NotAuthentic(LocalFailure):
    """Something that should be signed by the log's key is not."""


def read_keys(texts: list[str]) -> list[VerifierKey]:
    """Raises WrongUsage."""
    try:
        return [VerifierKey.parse(text.strip()) for text in texts]
    except BadNote as error:
        raise WrongUsage(f"--key: {error}") from None


def read_witnesses(texts: list[str]) -> list[CosignerKey]:
    """Raises WrongUsage."""
    try:
        return [CosignerKey.parse(text.strip()) for text in texts]
    except BadNote as error:
        raise WrongUsage(f"--witness: {error}") from None


def evidence(
    notes: list[str],
    receipt_files: list[str],
    keys: list[VerifierKey],
    witnesses: list[CosignerKey],
) -> Evidence:
    """Raises NotAuthentic for what is not signed by the keys, or not by every witness;
    WrongUsage for what can't be read.
    """
    receipts = [_receipt(name) for name in receipt_files]
    try:
        require_cosigned(notes, witnesses)
        return Evidence.read(notes, receipts, keys)
    except (BadNote, BadProof, BadReceipt) as error:
        raise NotAuthentic(f"not authentic: {clean(str(error))}") from None


def note_file(path: Path) -> str:
    """Raises WrongUsage."""
    return _read(path).decode("utf-8", "replace")


def note_beside(path: Path) -> list[str]:
    """What `audit export` put beside the export, where it is there."""
    beside = path.with_name(f"{path.name}.checkpoint")
    return [note_file(beside)] if beside.is_file() else []


def note_answered(answer: Answer) -> list[str]:
    """The checkpoint that a broker answered with; none where nothing is signed yet."""
    if answer.status == 200:
        return [answer.body.decode("utf-8", "replace")]
    if answer.status == 404:
        return []
    raise answers.failure_of(answer)


def tiles_in(directory: Path) -> Callable[[str], bytes | None]:
    """Reads tiles by their path under `tile/`."""

    def read(path: str) -> bytes | None:
        try:
            return (directory / "tile" / path).read_bytes()
        except FileNotFoundError:
            return None

    return read


def _receipt(name: str) -> Receipt:
    try:
        return Receipt.parse(json.loads(_read(Path(name))))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, BadReceipt) else "not JSON"
        raise WrongUsage(f"--receipt {name}: {reason}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"{path}: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise WrongUsage(f"{path}: too large")
    return data
