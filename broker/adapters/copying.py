"""Taking each signed head to the places outside: witnesses first, then the copies.

Owns what was pushed where, and what is said of a place that fails: it is tried
again, ever more rarely, and never holds up the others for longer than its own
time-outs. Does not own the places (`checkpoint_copies`, `witness`) nor when a head
is signed (`checkpoints`).

Witnesses come first so that copies hold their cosignatures too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.witness import TlogWitness, WitnessDisagrees
from broker.audit.checkpoint import unverified
from broker.errors import AuditUnavailable

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0  # seconds until a place that fails is tried again


class CheckpointCopy(Protocol):
    """A place outside the database that keeps the newest checkpoint. Both methods raise OSError
    where it can't be reached.
    """

    @property
    def name(self) -> str: ...

    async def push(self, note: str) -> None: ...

    async def latest(self) -> str | None:
        """The last note that was pushed; None where there was none."""
        ...


@dataclass(slots=True)
class _Place:
    """`pushed` is the text of the checkpoint that it has."""

    name: str
    pushed: str | None = None
    failures: int = 0
    retry_at: float = 0.0


class Copying:
    """One a process: of several, each takes every head everywhere, which harms nobody."""

    def __init__(
        self,
        checkpoints: SqlCheckpoints,
        copies: Sequence[CheckpointCopy] = (),
        witnesses: Sequence[TlogWitness] = (),
        *,
        retry_after: float = 1.0,
        on_copy: Callable[[str, bool], None] = lambda _name, _failing: None,
    ) -> None:
        """`retry_after`: how long a place that failed once is left alone, in seconds; doubled
        with each further failure. `on_copy` is told the name of each place that was tried, and
        whether that failed.
        """
        self._checkpoints = checkpoints
        self._copies = copies
        self._witnesses = witnesses
        self._retry_after = retry_after
        self._on_copy = on_copy
        names = [*(one.name for one in witnesses), *(one.name for one in copies)]
        self._places = {name: _Place(name) for name in names}
        self._busy = asyncio.Lock()

    @property
    def failing(self) -> tuple[str, ...]:
        """The kinds of the places that failed when they were last tried: their addresses are for
        the log and the metrics.
        """
        kinds = (p.name.partition(":")[0] for p in self._places.values() if p.failures)
        return tuple(f"checkpoint copy ({kind})" for kind in sorted(kinds))

    async def push(self) -> None:
        """Take the newest checkpoint to every place that does not have it and is due.

        Raises AuditUnavailable.
        """
        if not self._places:
            return
        async with self._busy:
            note = await self._checkpoints.latest()
            if note is None:
                return
            await self._all(note, [(one.name, self._cosign(one, note)) for one in self._witnesses])
            if self._witnesses:
                note = await self._checkpoints.latest() or note
            await self._all(note, [(one.name, _push(one, note)) for one in self._copies])

    async def _all(
        self, note: str, pushes: Sequence[tuple[str, Callable[[], Awaitable[None]]]]
    ) -> None:
        text = _text(note)
        now = time.monotonic()
        due = [
            self._one(place, text, push)
            for place, push in ((self._places[name], push) for name, push in pushes)
            if place.pushed != text and place.retry_at <= now
        ]
        for fault in await asyncio.gather(*due, return_exceptions=True):
            if isinstance(fault, BaseException):
                raise fault

    async def _one(self, place: _Place, text: str, push: Callable[[], Awaitable[None]]) -> None:
        try:
            await push()
        except OSError as fault:
            _log.error("the checkpoint could not be copied to %s: %s", place.name, fault)
            self._failed(place)
        except AuditUnavailable:
            raise  # the database's fault, not the place's
        except Exception:  # noqa: BLE001 - whatever is wrong with one, the others get theirs
            _log.exception("the checkpoint could not be copied to %s", place.name)
            self._failed(place)
        else:
            place.failures, place.retry_at = 0, 0.0
            place.pushed = text
            self._on_copy(place.name, False)

    def _failed(self, place: _Place) -> None:
        place.failures += 1
        wait = min(_LONGEST_WAIT, self._retry_after * 2.0 ** min(place.failures - 1, 10))
        place.retry_at = time.monotonic() + wait
        self._on_copy(place.name, True)

    def _cosign(self, witness: TlogWitness, note: str) -> Callable[[], Awaitable[None]]:
        async def push() -> None:
            size = unverified(note).size
            try:
                line = await witness.cosign(note)
            except WitnessDisagrees as fault:
                newest = await self._checkpoints.latest()
                if newest is not None and unverified(newest).size >= fault.size > size:
                    return  # another process of this broker was there with a newer one
                raise
            await self._checkpoints.add_cosignature(size, str(witness.key), line)

        return push


def _push(copy: CheckpointCopy, note: str) -> Callable[[], Awaitable[None]]:
    async def push() -> None:
        await copy.push(note)

    return push


def _text(note: str) -> str:
    """Without the signatures: a note that gained a cosignature is no new checkpoint."""
    return note.rpartition("\n\n")[0]


async def push_quietly(copying: Copying) -> None:
    """As `push`; a database that is out is for the next time."""
    try:
        await copying.push()
    except AuditUnavailable as fault:
        _log.warning("checkpoints are not copied now: %s", fault.log_detail)
    except Exception:  # noqa: BLE001 - a task that ended would copy nothing any more
        _log.exception("checkpoints are not copied now")
