"""`broker credential-process`: what `credential_process` in an AWS profile runs.

A hit of the cache is answered by `entry` before this is imported. Here the miss:
one process asks the broker, the others wait for the lock and read what it kept.
It never asks anything: nobody is looking.
"""

from __future__ import annotations

import argparse
import time
import zlib

from broker.cli import cached, credentials, formats, lock, paths, server
from broker.cli.command import Command, add_wanted, wanted
from broker.cli.session import Session

# Lock files stay, so their number is bounded; two keys that share one only wait for each other.
_LOCKS = 64


def credential_process(arguments: argparse.Namespace) -> int:
    """The cached answer, else POST /v1/credentials by one process at a time."""
    asked = wanted(arguments)
    broker = server.find()
    session = Session(broker, debug=arguments.debug, may_ask=False)
    bucket = zlib.crc32(asked.key(broker.origin).encode("ascii")) % _LOCKS
    with lock.locked(f"{paths.login_directory(broker.origin)}/locks", f"cache-{bucket}"):
        login_id = session.login_id
        answer = cached.read(broker.origin, asked, login_id, time.time())
        if answer is None:
            answer = _fresh(session, asked, login_id)
    cached.write_out(answer)
    return 0


def _fresh(session: Session, asked: cached.Wanted, login_id: str) -> bytes:
    asked_at = time.time()
    issued = credentials.issue(session, asked, client="credential-process")
    answer = f"{formats.as_json(issued)}\n".encode("ascii")
    expires_at = issued.expires_at.timestamp()
    if issued.granted_seconds is not None:
        # Where this machine's clock is behind, the expiry alone would look too far away.
        expires_at = min(expires_at, asked_at + issued.granted_seconds)
    origin = session.server.origin
    cached.prune(origin, asked_at)
    if cached.read_login(origin)[0] == login_id:
        cached.write(origin, asked, login_id, answer, now=asked_at, expires_at=expires_at)
    return answer


COMMANDS = {
    "credential-process": Command(
        "Answer an AWS SDK's credential_process. Answers are kept, in private files, until 15 "
        "minutes before they expire or until `broker logout`.",
        "  in ~/.aws/config:\n"
        "    [profile data-reader]\n"
        "    credential_process = broker credential-process data-reader --set bucket=reports\n"
        "  aws --profile data-reader s3 ls",
        add_wanted,
        credential_process,
    )
}
