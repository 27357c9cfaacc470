"""A witness over real HTTP that does what C2SP tlog-witness says, and nothing else.

It keeps, for each log, the latest checkpoint that it cosigned; a test may have it
forget nothing, answer wrongly, or be slow.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broker.audit.checkpoint import Checkpoint, unverified
from broker.audit.merkle import BadProof, verify_consistency
from broker.audit.note import BadNote, Note, VerifierKey
from tests.unit.audit.keys import TestWitness

_OLD = re.compile(r"old (0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    kind: str = "text/plain"
    location: str | None = None


class StrictWitness:
    """`logs`: the keys it trusts, by origin. `twist`, where it is set, has the last word on each
    answer; it may block.
    """

    def __init__(self, *keys: VerifierKey, name: str = "witness.test/w1", seed: int = 21) -> None:
        self.signer = TestWitness(name, seed)
        self.logs: dict[str, list[VerifierKey]] = {}
        for key in keys:
            self.logs.setdefault(key.name, []).append(key)
        self.latest: dict[str, Checkpoint] = {}
        self.answered: list[int] = []
        self.twist: Callable[[Answer], Answer] | None = None
        self.clock = 1_790_000_000
        self._lock = threading.Lock()

    def add_checkpoint(self, body: bytes) -> Answer:
        with self._lock:
            answer = self._judge(body)
        if self.twist is not None:
            answer = self.twist(answer)
        self.answered.append(answer.status)
        return answer

    def _judge(self, body: bytes) -> Answer:
        head, empty, note = body.decode("utf-8").partition("\n\n")
        first, *proof = head.split("\n")
        old = _OLD.fullmatch(first)
        if not empty or old is None or len(proof) > 63:
            return Answer(400, b"not a request\n")
        try:
            checkpoint = unverified(note)
            hashes = [base64.b64decode(line, validate=True) for line in proof]
        except ValueError:
            return Answer(400, b"not a checkpoint, or not a proof\n")
        keys = self.logs.get(checkpoint.origin)
        if keys is None:
            return Answer(404, b"unknown log\n")
        try:
            Note.parse(note).signed_by(keys)
        except BadNote:
            return Answer(403, b"not signed by the log\n")
        size = int(old[1])
        if size > checkpoint.size:
            return Answer(400, b"the old size is larger\n")
        seen = self.latest.get(checkpoint.origin)
        seen_size = 0 if seen is None else seen.size
        if size != seen_size:
            return Answer(409, f"{seen_size}\n".encode(), "text/x.tlog.size")
        if seen is not None and size == checkpoint.size and seen.root != checkpoint.root:
            return Answer(409, b"another root at that size\n")
        if not _consistent(seen, checkpoint, hashes):
            return Answer(422, b"inconsistent\n")
        self.latest[checkpoint.origin] = checkpoint
        self.clock += 1
        return Answer(200, self.signer.cosign(checkpoint.text, self.clock).encode())


def _consistent(seen: Checkpoint | None, new: Checkpoint, proof: list[bytes]) -> bool:
    if seen is None or seen.size == 0:
        return not proof
    try:
        verify_consistency(seen.size, new.size, seen.root, new.root, proof)
    except BadProof:
        return False
    return True


@contextmanager
def serving(witness: StrictWitness) -> Iterator[str]:
    """Its submission prefix."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            found = Answer(404, b"not here\n")
            if self.path == "/prefix/add-checkpoint":
                found = witness.add_checkpoint(body)
            self.send_response(found.status)
            self.send_header("content-type", found.kind)
            self.send_header("content-length", str(len(found.body)))
            if found.location is not None:
                self.send_header("location", found.location)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/prefix"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
