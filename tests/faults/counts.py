"""What long runs have tried, and how often: kept in counts.json, for docs/reliability.md.

Owns that file. Does not own the table that is made of it (`listing`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

FILE = Path(__file__).with_name("counts.json")


def record(section: str, counts: Mapping[str, int]) -> None:
    """The newest run of that section takes the last one's place."""
    run = {"date": datetime.now(UTC).date().isoformat(), "counts": dict(counts)}
    with FileLock(Path(tempfile.gettempdir()) / "broker-tests-fault-counts.lock"):
        kept = read()
        kept[section] = run
        FILE.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return kept
