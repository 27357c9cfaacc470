"""Lists that come page by page, read to their end."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from broker.cli import answers
from broker.cli.session import Session

_PAGE = 500


def whole(
    session: Session, target: str, name: str, query: Mapping[str, str]
) -> list[dict[str, object]]:
    """The objects of every page's member `name`. A page that leads nowhere new ends it."""
    found: list[dict[str, object]] = []
    after: str | None = None
    while True:
        asked = {**query, "limit": str(_PAGE), **({} if after is None else {"after": after})}
        answer = session.get(f"{target}?{urlencode(asked)}")
        found += answers.objects(answer, name)
        following = answer.get("next")
        if not isinstance(following, str) or following == after:
            return found
        after = following
