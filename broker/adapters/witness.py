"""A witness of the log, as C2SP tlog-witness: it cosigns each head that continues the last.

Owns the one call, `add-checkpoint`, and what its answers mean. Does not own the
cosignature's form (`broker.audit.cosignature`), where it is kept
(`store/checkpoints`), nor when a witness is asked (`copying`, `rollback`).

The witness may be broken or hostile. All that is taken from it is a line that its
configured key has signed, and the size that it says it has seen.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Sequence

import httpx

from broker.audit.checkpoint import Checkpoint, unverified
from broker.audit.cosignature import CosignerKey, cosigned_by
from broker.audit.note import BadNote

TOTAL_SECONDS = 10.0
_MAX_BYTES = 64 * 1024
_SIZE = re.compile(r"(0|[1-9][0-9]{0,15})\n", re.ASCII)
# The first says how far the witness is, the second proves it, the third is for another process
# of this broker that came between.
_TRIES = 3

# (old, new) -> the consistency proof between two sizes of this log (RFC 9162).
Prove = Callable[[int, int], Awaitable[Sequence[bytes]]]


class WitnessFailed(OSError):
    """No cosignature: out of reach, refused, or an answer that can't be used. Says which."""


class WitnessDisagrees(WitnessFailed):
    """It has seen `size` records of this log, and not as a beginning of the checkpoint."""

    def __init__(self, size: int, what: str) -> None:
        super().__init__(what)
        self.size = size


class TlogWitness:
    """One witness; `url` is its submission prefix."""

    def __init__(self, url: str, key: CosignerKey, client: httpx.AsyncClient, prove: Prove) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self._client = client
        self._prove = prove
        # How far it is, as far as it said so.
        self._size: int | None = None

    @property
    def name(self) -> str:
        return f"witness:{self.url}"

    async def cosign(self, note: str) -> str:
        """The witness's line for that checkpoint, which the log has signed.

        Raises WitnessFailed; WitnessDisagrees where it has seen more, or another log.
        """
        checkpoint = unverified(note)
        old = checkpoint.size if self._size is None else min(self._size, checkpoint.size)
        for _ in range(_TRIES):
            answer = await self._ask(old, checkpoint, note)
            if answer.status_code == 200:
                line = self._verified(note, answer)
                self._size = checkpoint.size
                return line
            if answer.status_code == 422:
                raise WitnessDisagrees(old, f"of {old} records, it has seen another log")
            if answer.status_code != 409:
                raise WitnessFailed(_refusal(answer))
            seen = _seen(answer)
            if seen is None or seen == old:
                # Its roots at that size differ: it says so without a size, or with the same.
                raise WitnessDisagrees(old, f"of {old} records, it has seen another log")
            if seen > checkpoint.size:
                raise WitnessDisagrees(
                    seen, f"it has seen {seen} records, and this is a checkpoint of fewer"
                )
            old = self._size = seen
        raise WitnessFailed("it goes on saying that it has seen another number of records")

    async def _ask(self, old: int, checkpoint: Checkpoint, note: str) -> httpx.Response:
        proof = await self._prove(old, checkpoint.size) if 0 < old < checkpoint.size else ()
        lines = [f"old {old}", *(base64.b64encode(one).decode("ascii") for one in proof)]
        body = "\n".join([*lines, "", note])
        try:
            return await self._client.post(
                f"{self.url}/add-checkpoint",
                content=body.encode("utf-8"),
                headers={"Content-Type": "text/plain; charset=utf-8", "Accept": "*/*"},
            )
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise WitnessFailed(f"no answer ({type(fault).__name__}: {fault})") from fault

    def _verified(self, note: str, answer: httpx.Response) -> str:
        if len(answer.content) > _MAX_BYTES:
            raise WitnessFailed("its answer is too long")
        try:
            found = cosigned_by(note + answer.content.decode("utf-8"), self.key)
            # What is kept must be good without what else it sent: an empty line makes another text.
            return cosigned_by(note + found.line, self.key).line
        except (BadNote, UnicodeDecodeError) as fault:
            raise WitnessFailed(f"its answer is no cosignature: {fault}") from fault


def _seen(answer: httpx.Response) -> int | None:
    """The size in a conflict; None where it names none."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/x.tlog.size":
        return None
    match = _SIZE.fullmatch(answer.content[:32].decode("ascii", "replace"))
    if match is None:
        raise WitnessFailed("it answered a conflict with what is no size")
    return int(match[1])


def _refusal(answer: httpx.Response) -> str:
    meanings = {
        403: "it does not know the log's key",
        404: "it does not know the log's origin, or this is not its address",
    }
    meaning = meanings.get(answer.status_code, "no cosignature")
    return f"it answered {answer.status_code}: {meaning}"
