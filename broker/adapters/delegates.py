"""The delegate of this process: an Ed25519 key in memory that signs receipts for a day.

Owns its making, its renewal at half its time, and its end. Does not own the
certificate's form (`broker.audit.delegate`) nor the key that certifies it
(`kms_signing`).

While the log's key can't be asked, the delegate goes on until its certificate
ends; then receipts can't be signed, and so nothing is issued. A new process gets
no delegate then, and does not start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.waiting import is_set_within
from broker.audit.delegate import LONGEST, Certificate, delegate_name
from broker.audit.note import CannotSign, Signer, VerifierKey
from broker.audit.receipt import ReceiptKey

# How far the clock given here and the database's, which dates records, may drift apart.
CLOCKS = timedelta(minutes=5)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _InMemory:
    """Implements `note.Signer`."""

    key: VerifierKey
    _private: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class _Delegate:
    certificate: Certificate
    receipt_key: ReceiptKey


def _now() -> datetime:
    return datetime.now(UTC)


class Delegates:
    """`start` it before anything is issued; `current` never waits."""

    def __init__(
        self,
        origin: str,
        log_key: Signer,
        *,
        now: Callable[[], datetime] = _now,
        poll: float = 30.0,
    ) -> None:
        """`log_key` certifies. `poll`: how often the end is looked at, in seconds."""
        self._origin = origin
        self._log_key = log_key
        self._now = now
        self._poll = poll
        self._delegate: _Delegate | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fault: str | None = None

    async def start(self) -> None:
        """Raises CannotSign where the log's key does not certify one now."""
        self._delegate = await self._certified()
        self._task = asyncio.create_task(self._run(), name="delegates")

    async def aclose(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            self._closing.set()
            await task

    def current(self) -> ReceiptKey:
        """Raises CannotSign where there is none, or its time is over."""
        delegate = self._delegate
        if delegate is None:
            raise CannotSign("no delegate was certified yet")
        if self._now() >= delegate.certificate.ends - CLOCKS:
            raise CannotSign(
                f"the delegate that signs receipts ended, and can't be renewed: {self._fault}"
            )
        return delegate.receipt_key

    @property
    def certificate(self) -> str | None:
        """The signed note of the one that signs now."""
        return None if self._delegate is None else self._delegate.receipt_key.certificate

    @property
    def problems(self) -> tuple[str, ...]:
        """Until when receipts can be signed, where it can't be renewed; why is in the log."""
        if self._fault is None or self._delegate is None:
            return ()
        ends = (self._delegate.certificate.ends - CLOCKS).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (f"signing of receipts, which ends {ends}",)

    async def _run(self) -> None:
        while not await is_set_within(self._closing, self._poll):
            delegate = self._delegate
            if delegate is not None and self._now() < delegate.certificate.begins + LONGEST / 2:
                continue
            try:
                self._delegate = await self._certified()
                self._fault = None
            except CannotSign as fault:
                self._fault = str(fault)
                _log.error("the delegate that signs receipts was not renewed: %s", fault)
            except Exception:  # noqa: BLE001 - renewal that ended would stop issuing within a day
                self._fault = "an unexpected fault, which is in the log"
                _log.exception("the delegate that signs receipts was not renewed")

    async def _certified(self) -> _Delegate:
        private = Ed25519PrivateKey.generate()
        key = VerifierKey(delegate_name(self._origin), private.public_key().public_bytes_raw())
        begins = self._now().replace(microsecond=0) - CLOCKS
        certificate = Certificate(self._origin, key, begins, begins + LONGEST)
        note = await asyncio.to_thread(certificate.signed, self._log_key)
        signer = _InMemory(key, private)
        return _Delegate(certificate, ReceiptKey(self._origin, signer, note))
