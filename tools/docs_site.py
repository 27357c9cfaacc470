"""What mkdocs can't say in its YAML; hooks of `mkdocs.yml`.

Owns: that an entry of the menu which ends in `/` stands for the pages of that folder, and that no
page of the site fetches anything from elsewhere, as fonts, scripts and pictures may.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|embed|object)\b[^>]*?\b(?:src|data)=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|next|prev))[^>]*?\bhref=["']?(?:https?:)?//"""
)
_NAV = list[Any]


def on_config(config: Any) -> Any:
    """Fill the folders of the menu in."""
    config.nav = _filled(config.nav, Path(config.docs_dir))
    return config


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Raises PluginError for a page that asks another host for something."""
    found = _FETCHED.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_path} fetches from elsewhere: {found.group()}")
    return output


def _filled(nav: _NAV, docs: Path) -> _NAV:
    return [_entry(entry, docs) for entry in nav]


def _entry(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, target),) = entry.items()
    if isinstance(target, list):
        return {title: _filled(target, docs)}
    if target.endswith("/"):
        pages = sorted((docs / target).glob("*.md"))
        return {title: [str(page.relative_to(docs)) for page in pages]}
    return entry
