"""Files that are made from the code: written, or with `--check` only compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def renew(files: Mapping[Path, Callable[[], str]], words: list[str]) -> int:
    """Say which are stale, and write those unless `words` hold `--check`. The exit code."""
    stale = []
    for path, render in files.items():
        text = render()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if "--check" not in words:
                path.write_text(text, "utf-8")
    print("\n".join(f"{name} changed" for name in stale) or "nothing changed")
    return 1 if stale and "--check" in words else 0
