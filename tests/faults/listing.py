"""The faults as tables in docs/reliability.md: `python -m tests.faults.listing` writes them.

Owns what stands between the two marks, and what each fault has found; the rest of the file is
written by hand. How often each was tried comes from the last long run (`counts`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.faults import counts
from tests.faults.points import POINTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- faults: written by `python -m tests.faults.listing`, not by hand -->"
END = "<!-- end of faults -->"
ANYWHERE = "anywhere"

KILLED = {name: f"The process dies {point.what}." for name, point in POINTS.items()} | {
    ANYWHERE: "The process dies at whatever it does."
}
DATABASE = {
    "line cut": "The line breaks at a message from the server process, whatever it asks.",
    "line cut before COMMIT": "The line breaks when COMMIT is on its way, before it is there.",
    "line cut after COMMIT": "PostgreSQL has committed, and its answer is lost with the line.",
    "disk full at INSERT": "PostgreSQL refuses records: no space left on device (53100).",
    "disk full at COMMIT": "The same, once everything is written, in answer to COMMIT.",
    "statements time out": "Somebody holds the head's lock, and statement_timeout is 250 ms.",
    "nobody is let in": "Every connection is ended, and new ones are refused.",
    "PostgreSQL killed": "PostgreSQL is stopped as by a crash (immediate), and started again.",
}
SQLITE = {
    "EIO": "One system call fails with an I/O error.",
    "ENOSPC": "One system call fails for want of space.",
    "ENOSPC until there is room": "So do all from that one on, until there is room again.",
    "SIGKILL before": "The process dies before the call.",
    "SIGKILL after": "The process dies after the call.",
    "SIGKILL in the middle of a write": "Half of what was to be written is, and the process dies.",
}
RESTARTS = {
    "restarts": "SIGTERM, the end, a new start: one process after another, round and round.",
    "requests": "Asked meanwhile by six people on connections that they keep open.",
    "lost": "Of these, not answered as they should be.",
}
FOUND = {
    "reaper, before COMMIT": "The default left an intent open for up to 65 s. It is 45 s, plus the "
    "reaper's pace.",
    "EIO": "A connection that SQLite gave for reading alone, since opening it failed for a moment, "
    "stayed in the pool, and every login failed until a restart. Such connections are replaced.",
    "lost": "A stopping process reset connections that were kept open, and never told those that "
    "it had just accepted: they went on for 25 s and ended in a bare 500. It drains now.",
}


def _table(title: str, module: str, section: str, faults: Mapping[str, str]) -> Iterable[str]:
    run = counts.read().get(section, {"date": "not yet", "counts": {}})
    yield from ("", f"### {title}", "", f"`{module}`, last run in full: {run['date']}", "")
    yield from ("| Fault | What happens | Times | Found |", "|---|---|---|---|")
    for name, what in faults.items():
        times = run["counts"].get(name, "")
        yield f"| {name} | {what} | {times} | {FOUND.get(name, 'nothing')} |"


def tables() -> str:
    parts = [
        BEGIN,
        *_table("Killed processes", "tests/faults/test_kills.py", "kills", KILLED),
        *_table("A failing PostgreSQL", "tests/faults/test_database.py", "database", DATABASE),
        *_table("SQLite's system calls", "tests/faults/test_sqlite_calls.py", "sqlite", SQLITE),
        *_table(
            "Restarts behind a balancer",
            "tests/faults/test_rolling_restart.py",
            "restarts",
            RESTARTS,
        ),
        "",
        END,
    ]
    return "\n".join(parts)


def renewed(document: str) -> str:
    """The document with the tables as they are now. Raises ValueError where the marks are gone."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} has lost its marks")
    return before + tables() + after


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text("utf-8")), "utf-8")
    sys.exit(0)
