"""Write the reference pages; with `--check`, only say which are not what the code says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.reference import (
    commands_page,
    errors_page,
    events_page,
    http_page,
    metrics_page,
    settings_page,
    wrong_settings_page,
)

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page.render,
    "cli.md": commands_page.render,
    "http-api.md": http_page.render,
    "errors.md": errors_page.render,
    "events.md": events_page.render,
    "metrics.md": metrics_page.render,
    "wrong-settings.md": wrong_settings_page.render,
}


def main(words: list[str]) -> int:
    stale = []
    for name, render in PAGES.items():
        path, text = FOLDER / name, render()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in words:
                path.write_text(text, "utf-8")
    print("\n".join(f"{name} changed" for name in stale) or "nothing changed")
    return 1 if stale and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
