"""What a hashed requirements file pins, for the platforms that the image runs on."""

from __future__ import annotations

import re
from pathlib import Path

_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)(?: ; ([^\\\n]+))?", re.MULTILINE)


def pinned(requirements: Path) -> dict[str, str]:
    """Canonical names and versions. The markers in these files tell Windows and other
    interpreters alone; what is for Windows is left out.
    """
    found = _PIN.findall(requirements.read_text("utf-8"))
    return {canonical(name): version for name, version, marker in found if "win32" not in marker}


def canonical(name: str) -> str:
    """A package's name as every index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
