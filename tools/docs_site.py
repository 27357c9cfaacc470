"""What mkdocs can't say in its YAML: decisions find their own place in the menu.

A hook of `mkdocs.yml`. A nav entry that ends in `/` stands for the pages of that folder, by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# mkdocs-material announces on each build what a later mkdocs will be.
_NAV = list[Any]


def on_config(config: Any) -> Any:
    """Fill in the folders, and hide that announcement's cause from strict builds."""
    config.nav = _filled(config.nav, Path(config.docs_dir))
    return config


def _filled(nav: _NAV, docs: Path) -> _NAV:
    return [_entry(entry, docs) for entry in nav]


def _entry(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, target),) = entry.items()
    if isinstance(target, list):
        return {title: _filled(target, docs)}
    if target.endswith("/"):
        return {
            title: [str(page.relative_to(docs)) for page in sorted((docs / target).glob("*.md"))]
        }
    return entry
