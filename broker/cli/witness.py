"""Each client is a witness of the log: it remembers what it saw, and notices another past.

Owns what is kept of a broker's log: its key, pinned at the first login; the last
checkpoint that was found consistent; the receipts of what was issued. And the
checks: at each login, that the log now continues what was seen before; at each
issuance, that the receipt is right.

    <state>/<server>/log/state          JSON: keys, the last checkpoint, what is checked
    <state>/<server>/log/receipts/      one file an issuance, SEQ-ISSUANCE.json

A check that fails stops the command with exit code 1 and names both checkpoints.
Nothing kept is dropped then: it is the evidence.
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from broker.audit.checkpoint import Checkpoint, follow, opened
from broker.audit.delegate import claimed
from broker.audit.merkle import BadProof, verify_consistency
from broker.audit.note import BadNote, VerifierKey
from broker.audit.receipt import BadReceipt, Receipt, hashes
from broker.cli import answers, lock, paths
from broker.cli.failure import LocalFailure, Refused
from broker.cli.server import Server
from broker.cli.terminal import clean, note
from broker.cli.transport import Transport

_VERSION = 1
# Receipts kept, and how many of the new ones a login looks after.
_KEEP = 1000
RECEIPTS_A_LOGIN = 32
# A receipt's head may be newer than the last checkpoint, which is made every few seconds.
_OVERDUE_SECONDS = 300.0
# How wrong this machine's clock may be where a delegate's end is looked at: AWS allows as much.
_CLOCK = timedelta(minutes=5)
_ISSUANCE = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_RECEIPT = re.compile(r"(?P<seq>[0-9]{16})-[A-Za-z0-9-]{1,64}\.json", re.ASCII)


class LogMistrusted(LocalFailure):
    """The log is not the one that was seen before."""


class _State(NamedTuple):
    """`keys` are verifier keys, the last the newest. `checkpoint` is a signed note, or empty;
    `checked` is the number up to which receipts were found in the log.
    """

    keys: list[str]
    checkpoint: str
    checked: int

    @property
    def vkeys(self) -> list[VerifierKey]:
        return [VerifierKey.parse(key) for key in self.keys]


# --- At each issuance ------------------------------------------------------------------------


def keep_receipt(server: Server, value: object, issuance_id: str | None) -> None:
    """Check the receipt that came with credentials, and keep it.

    Raises LogMistrusted: whoever gives out credentials with a false receipt has a log to hide.
    """
    state = _load(server)
    if value is None:
        if state is not None:
            raise LogMistrusted(
                "the broker gave no receipt, though its log was signed when you logged in; "
                "nothing was handed on. Ask its operators"
            )
        return
    try:
        receipt = Receipt.parse(value)
        if state is not None:
            receipt.verify(state.vkeys, at=_in_time(receipt))
        else:
            receipt.unverified()
        subject = receipt.members().get("subject")
    except (BadNote, BadProof, BadReceipt) as error:
        raise LogMistrusted(f"the receipt is false ({clean(str(error))}); keep it") from None
    if not isinstance(subject, dict) or subject.get("issuance") != issuance_id:
        raise LogMistrusted("the receipt is of another issuance than these credentials")
    if issuance_id is None or not _ISSUANCE.fullmatch(issuance_id):
        raise answers.not_a_broker("issuance_id is not one")
    text = json.dumps(receipt.as_json(), ensure_ascii=False)
    name = f"{receipt.seq:016}-{issuance_id}.json"
    paths.write_private(f"{_receipts(server)}/{name}", text.encode("utf-8"))
    for old in _names(server)[:-_KEEP]:
        paths.remove(f"{_receipts(server)}/{old}")


def _in_time(receipt: Receipt) -> datetime:
    """Now, on a clock that may be a little wrong: a delegate that ended, and was stolen since,
    could date its record back.
    """
    now = datetime.now(UTC)
    if receipt.certificate is None:
        return now
    certificate = claimed(receipt.certificate)
    if now >= certificate.ends:
        return now - _CLOCK
    return now + _CLOCK if now < certificate.begins else now


# --- At each login ---------------------------------------------------------------------------


def check(server: Server, *, debug: bool = False) -> None:
    """Pin the log's key the first time; each time, see that the log continues what was seen.

    Raises LogMistrusted.
    """
    with lock.locked(f"{paths.login_directory(server.origin)}/locks", "log"):
        _Check(server, debug=debug).run()


def forget(server: Server) -> str | None:
    """Put aside what is known of the log, as evidence; where it is now. None: nothing was."""
    directory = _directory(server)
    if not os.path.isdir(directory):  # noqa: PTH112 - as elsewhere in the client
        return None
    aside = f"{directory}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    os.replace(directory, aside)  # noqa: PTH105 - as elsewhere in the client
    return aside


class _Check:
    def __init__(self, server: Server, *, debug: bool) -> None:
        self._server = server
        self._transport = Transport(server, debug=debug)
        self._state = _load(server)

    def run(self) -> None:
        published = self._get("/v1/audit/keys")
        if published is None:
            if self._state is not None:
                raise self._mistrusted("it says it has no signed log any more")
            return
        keys = self._keys(published)
        signed = self._checkpoint(keys)
        if signed is None:
            _save(self._server, _State([str(key) for key in keys], "", 0))
            return
        current, text = signed
        if self._state is not None and self._state.checkpoint:
            self._continues(opened(self._state.checkpoint, keys), current)
        checked = self._receipts(keys, current)
        _save(self._server, _State([str(key) for key in keys], text, checked))

    def _keys(self, published: dict[str, object]) -> list[VerifierKey]:
        """The keys to trust: pinned now, or followed from those that are."""
        origin = answers.text(published, "origin")
        given, notes = published.get("keys"), published.get("successions")
        if not isinstance(given, list) or not isinstance(notes, list) or not given:
            raise answers.not_a_broker("the log's keys are not lists")
        try:
            offered = [VerifierKey.parse(str(key)) for key in given]
            if self._state is None:
                note(f"broker: the log's key from now on: {offered[-1]}")
                return offered
            trusted = follow(origin, self._state.vkeys, [str(one) for one in notes])
        except BadNote as error:
            raise self._mistrusted(f"its keys do not read: {clean(str(error))}") from None
        # A replica that was not restarted yet may not know the newest key.
        if offered[-1] not in trusted:
            raise self._mistrusted(
                f"it has a new key that the one you know did not sign: {offered[-1]} "
                f"instead of {trusted[-1]}"
            )
        if len(trusted) > len(self._state.vkeys):
            note(f"broker: the log's key was replaced, signed by the one you know: {trusted[-1]}")
        return trusted

    def _checkpoint(self, keys: list[VerifierKey]) -> tuple[Checkpoint, str] | None:
        answer = self._transport.request("GET", "/v1/audit/checkpoint")
        if answer.status == 404:
            if self._state is not None and self._state.checkpoint:
                raise self._mistrusted("it says that nothing is signed yet")
            return None
        if answer.status != 200:
            raise answers.failure_of(answer)
        text = answer.body.decode("utf-8", "replace")
        try:
            return opened(text, keys), text
        except BadNote as error:
            raise self._mistrusted(f"its checkpoint is false: {clean(str(error))}") from None

    def _continues(self, seen: Checkpoint, current: Checkpoint) -> None:
        """Raises LogMistrusted unless `current` is of a log that begins with what was `seen`."""
        if current.size < seen.size:
            raise self._forked("the log is shorter than it was", seen, current)
        body = None
        if current.size > seen.size > 0:
            body = self._get(f"/v1/audit/proof/consistency?from={seen.size}&to={current.size}")
            if body is None:
                raise self._forked("there is no proof that one continues the other", seen, current)
        try:
            proof = hashes(body["hashes"] if body is not None and "hashes" in body else [])
            sizes_and_roots = (seen.size, current.size, seen.root, current.root)
            verify_consistency(*sizes_and_roots, proof)
        except BadProof as error:
            raise self._forked(clean(str(error)), seen, current) from None

    def _receipts(self, keys: list[VerifierKey], current: Checkpoint) -> int:
        """The number up to which receipts are in the log that was signed as `current`."""
        checked = 0 if self._state is None else self._state.checked
        done = checked
        waiting = [name for name in _names(self._server) if _seq(name) > checked]
        # The oldest, so that none is passed over; and the newest, which shows a rollback at once.
        oldest = waiting[:RECEIPTS_A_LOGIN]
        for name in (*oldest, *waiting[RECEIPTS_A_LOGIN:][-1:]):
            path = f"{_receipts(self._server)}/{name}"
            try:
                receipt = Receipt.parse(json.loads(paths.read_private(path) or b"null"))
                head = receipt.verify(keys)
            except (ValueError, RecursionError) as error:
                raise self._mistrusted(
                    f"the receipt {path} is false: {clean(str(error))}"
                ) from None
            if head.size <= current.size:
                self._continues(head, current)
                done = receipt.seq if name in oldest else done
            else:
                self._not_signed_yet(path, head, current)
        return done

    def _not_signed_yet(self, path: str, head: Checkpoint, current: Checkpoint) -> None:
        """A receipt of the last seconds is newer than the last checkpoint: its log must begin
        with that one, and the next checkpoint is due soon.
        """
        age = time.time() - os.stat(path).st_mtime  # noqa: PTH116 - as elsewhere in the client
        if age > _OVERDUE_SECONDS:
            raise self._forked("the log is shorter than your receipt's", head, current)
        query = f"from={current.size}&to={head.size}"
        body = self._get(f"/v1/audit/proof/consistency?{query}")
        if body is None:
            raise self._forked("the log is shorter than your receipt's", head, current)
        try:
            sizes_and_roots = (current.size, head.size, current.root, head.root)
            verify_consistency(*sizes_and_roots, hashes(body.get("hashes")))
        except BadProof as error:
            raise self._forked(clean(str(error)), head, current) from None

    def _get(self, target: str) -> dict[str, object] | None:
        """None for not_found."""
        try:
            return answers.members(self._transport.request("GET", target))
        except Refused as refusal:
            if refusal.code == "not_found":
                return None
            raise

    def _mistrusted(self, what: str) -> LogMistrusted:
        return LogMistrusted(
            f"THE AUDIT LOG OF {self._server.origin} IS NOT THE ONE SEEN BEFORE: {what}. "
            f"{_ADVICE.format(_directory(self._server))}"
        )

    def _forked(self, what: str, seen: Checkpoint, current: Checkpoint) -> LogMistrusted:
        return self._mistrusted(f"{what}\n  seen: {seen}\n  now:  {current}\nBoth are signed")


_ADVICE = (
    "Tell the auditors, and keep {}. If they explain it (a backup was restored), "
    "`broker login --accept-rollback` goes on and keeps the evidence"
)


# --- Files -----------------------------------------------------------------------------------


def _directory(server: Server) -> str:
    return f"{paths.login_directory(server.origin)}/log"


def _receipts(server: Server) -> str:
    return f"{_directory(server)}/receipts"


def _names(server: Server) -> list[str]:
    """The kept receipts' files, by number."""
    try:
        found = os.listdir(_receipts(server))  # noqa: PTH208 - as elsewhere in the client
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _RECEIPT.fullmatch(name))


def _seq(name: str) -> int:
    return int(name[:16])


def _load(server: Server) -> _State | None:
    """None before the first login. Raises LogMistrusted for a file that does not read: to pin
    anew in silence is what somebody may want.
    """
    path = f"{_directory(server)}/state"
    data = paths.read_private(path)
    if data is None:
        if os.path.lexists(path):
            raise LogMistrusted(f"{path} can be read or written by others: look at it")
        return None
    try:
        value = json.loads(data)
        state = _State(value["keys"], value["checkpoint"], value["checked"])
        if value["version"] == _VERSION and state.vkeys and type(state.checked) is int:
            return state
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise LogMistrusted(f"{path} is damaged: look at it")


def _save(server: Server, state: _State) -> None:
    value = {"version": _VERSION, **state._asdict()}
    paths.write_private(f"{_directory(server)}/state", json.dumps(value, indent=1).encode("ascii"))
