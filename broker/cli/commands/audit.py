"""`broker audit tail|export|verify`: reading the log, taking it away, checking it offline."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO
from urllib.parse import urlencode

from broker.audit.authentic import Evidence, verify_tiles
from broker.audit.verify import Problem
from broker.audit.verify import verify as verify_export
from broker.cli import answers, audit_evidence, audit_source, cached, server
from broker.cli.command import Command
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, clean_lines, note

_POLL_SECONDS = 2.0
_PAGE = 100


def configure_tail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", action="store_true", help="go on as records are written")
    parser.add_argument(
        "--since", metavar="AGE", default="1h", help="how far back: 30m, 8h, 7d (default: 1h)"
    )
    parser.add_argument("--type", metavar="TYPE", help="records of this type alone")
    parser.add_argument("--principal", metavar="ID", help="records of this principal alone")
    parser.add_argument("--json", action="store_true", help="one record a line, as JSON")


def configure_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, mode 0600")
    parser.add_argument(
        "--after", type=int, default=0, metavar="SEQ", help="only records after this number"
    )


def configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="FILE|URL|DIR",
        help="an export, a broker's address, a directory of tiles, or - for stdin",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="VKEY",
        help="a verifier key of the log, from a place you trust; may be repeated",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="a signed checkpoint (default: FILE.checkpoint, or the broker's)",
    )
    parser.add_argument(
        "--receipt",
        action="append",
        default=[],
        metavar="FILE",
        help="a receipt of an issuance; may be repeated",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="VKEY",
        help="a witness that must have cosigned every checkpoint; may be repeated",
    )


def tail(arguments: argparse.Namespace) -> int:
    """GET /v1/audit/records page by page; with --follow until interrupted."""
    try:
        age = timedelta(seconds=cached.parse_duration(arguments.since))
        since = datetime.now(UTC) - age
    except (ValueError, OverflowError) as error:
        raise WrongUsage(f"--since: {error}") from None
    session = Session(server.find(), debug=arguments.debug)
    query: dict[str, str | int] = {"limit": _PAGE, "since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if arguments.type:
        query["type"] = arguments.type
    if arguments.principal:
        query["principal"] = arguments.principal
    while True:
        page = session.get(f"/v1/audit/records?{urlencode(query)}")
        records = answers.objects(page, "records")
        for record in records:
            print(json.dumps(record) if arguments.json else _line(record))
            query["after"] = _sequence(record)
        sys.stdout.flush()
        # `next` is also there after a page that a filter left empty.
        following = page.get("next")
        if type(following) is int:
            query["after"] = following
        elif arguments.follow:
            time.sleep(_POLL_SECONDS)
        else:
            return 0


def _sequence(record: dict[str, object]) -> int:
    seq = record.get("seq")
    if type(seq) is not int:
        raise answers.not_a_broker("a record without its number")
    return seq


def _line(record: dict[str, object]) -> str:
    """`seq time type outcome who what`: the rest is in --json."""
    actor = record.get("actor")
    who = actor.get("handle") or actor.get("id") if isinstance(actor, dict) else None
    parts = [record.get("seq"), record.get("time"), record.get("type"), record.get("outcome"), who]
    what = []
    for member in ("subject", "detail"):
        value = record.get(member)
        if isinstance(value, dict):
            what += [
                f"{name}={item}"
                for name, item in value.items()
                if isinstance(item, str | int) and item != ""
            ]
    return clean("  ".join(str(part) for part in [*parts, " ".join(what)] if part), 400)


def export(arguments: argparse.Namespace) -> int:
    """GET /v1/audit/export. A file appears under its name only when it is whole."""
    session = Session(server.find(), debug=arguments.debug)
    # The checkpoint first: then the export holds at least what it covers.
    notes: list[str] = []
    if arguments.output is not None and arguments.after <= 0:
        notes = audit_evidence.note_answered(session.send("GET", audit_evidence.CHECKPOINT_PATH))
    pieces = session.stream(f"/v1/audit/export?{urlencode({'after': max(arguments.after, 0)})}")
    if arguments.output is None:
        _to_stdout(pieces)
        return 0
    with _whole_file(Path(arguments.output)) as file:
        for piece in pieces:
            file.write(piece)
    note(f"The audit log is in {arguments.output}.")
    for signed in notes:
        with _whole_file(Path(f"{arguments.output}.checkpoint")) as file:
            file.write(signed.encode("utf-8"))
        note(f"The signed checkpoint over it is in {arguments.output}.checkpoint.")
    return 0


def _to_stdout(pieces: Iterable[bytes]) -> None:
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            print(clean_lines(line.decode("utf-8", "replace")))


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A private file that takes its name at the end, and leaves nothing behind a failure."""
    directory = path.absolute().parent
    # mkstemp's files are created with mode 0600 and O_EXCL.
    with NamedTemporaryFile(dir=directory, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file  # type: ignore[misc]
            file.flush()
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise


def verify(arguments: argparse.Namespace) -> int:
    """By `broker.audit`, in one pass; 1 where it is broken, naming the first bad record."""
    keys = audit_evidence.read_keys(arguments.key)
    witnesses = audit_evidence.read_witnesses(arguments.witness)
    given = [audit_evidence.note_file(Path(name)) for name in arguments.checkpoint]
    notes = given or audit_source.checkpoint(arguments.source, debug=arguments.debug)
    evidence = audit_evidence.evidence(notes, arguments.receipt, keys, witnesses)
    if keys and not evidence.checkpoints:
        raise WrongUsage("nothing signed to check the key with: give --checkpoint FILE")
    if witnesses and not (keys and notes):
        raise WrongUsage("--witness asks for a checkpoint, and for the log's --key")
    if arguments.source != "-" and Path(arguments.source).is_dir():
        return _verify_tiles(Path(arguments.source), evidence)
    with audit_source.opened(arguments.source, debug=arguments.debug) as chunks:
        found = verify_export(chunks, sizes=evidence.sizes, numbers=evidence.numbers)
    problem = found.problem or evidence.problem(found.head.seq, found.roots, found.leaves)
    if problem is not None:
        return _broken(problem)
    what = f"{found.count} records"
    if found.count:
        what += f", seq {found.first}..{found.head.seq}, head chain {found.head.chain.hex()}"
    return _good(what, found.head.seq, evidence)


def _verify_tiles(directory: Path, evidence: Evidence) -> int:
    if not evidence.checkpoints:
        raise WrongUsage(f"{directory}: has no file `checkpoint`, and none was given")
    found = verify_tiles(
        audit_evidence.tiles_in(directory),
        evidence.covered,
        sizes=evidence.sizes,
        numbers=evidence.numbers,
    )
    problem = found.problem or evidence.problem(found.records, found.roots, found.leaves)
    if problem is not None:
        return _broken(problem)
    return _good(f"{found.records} records in tiles", found.records, evidence)


def _broken(problem: Problem) -> int:
    print(f"broken at seq {problem.seq}: {clean(problem.what)}")
    return 1


def _good(what: str, records: int, evidence: Evidence) -> int:
    """One line. Only what a trusted key has signed is called authentic."""
    if not evidence.checkpoints:
        print(f"internally consistent: {what}; not checked against a signed checkpoint")
    elif not evidence.signed:
        print(
            f"internally consistent: {what}; agrees with a checkpoint of {evidence.covered} "
            "records whose signature was not checked (give --key)"
        )
    else:
        rest = records - evidence.covered
        after = f"; the last {rest} are not signed yet, and internally consistent" if rest else ""
        print(f"authentic: {what}; signed up to {evidence.covered}{after}")
    return 0


COMMANDS = {
    "audit tail": Command(
        "Show the newest audit records (auditors and admins).",
        "  broker audit tail --since 8h --type issuance.issued\n"
        "  broker audit tail --follow --json | jq .subject",
        configure_tail,
        tail,
    ),
    "audit export": Command(
        "The whole audit log as JSON Lines, each with its leaf and chain hash. With -o FILE, the "
        "log's signed checkpoint is put beside it, as FILE.checkpoint.",
        "  broker audit export -o audit.jsonl\n  broker audit export | broker audit verify -",
        configure_export,
        export,
    ),
    "audit verify": Command(
        "Verify an exported audit log. A file needs no server and no login. It names the first "
        "bad record and exits 1. With the log's key it says whether the log is authentic, "
        "without it only that it is consistent in itself.",
        "  broker audit verify audit.jsonl\n"
        "  broker audit verify audit.jsonl --key broker.example.com+1b2c3d4e+AbCd...\n"
        "  broker audit verify https://broker.example.com --key VKEY --receipt receipt.json\n"
        "  broker audit verify audit.jsonl --key VKEY --witness witness.example.com+5a6b7c8d+BA...",
        configure_verify,
        verify,
    ),
}
