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
from tools.renew import renew

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
    return renew({FOLDER / name: render for name, render in PAGES.items()}, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
