"""parliament's judgement of session policies: it knows AWS's actions, resources and conditions.

Owns: importing it only where it is needed (a fifth of a second), and keeping its
faults and its slow cases away from the rest of lint. It asks nothing of AWS.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from broker.access.analysis import Advice, AnalysisUnavailable

# Its globs become regular expressions that backtrack: a hostile file must not hold the process.
_MAX_WILDCARDS = 12
_WILDCARDS = re.compile(rf'"(?:[^"*?]*[*?]){{{_MAX_WILDCARDS + 1}}}')
_importing = threading.Lock()


@lru_cache(maxsize=2048)
def analyse(policy: str) -> tuple[Advice, ...]:
    """What parliament finds in a whole policy, as JSON. Slow at first: call it in a thread.

    Raises AnalysisUnavailable.
    """
    if _WILDCARDS.search(policy):
        return (Advice("TOO_MANY_WILDCARDS", f"over {_MAX_WILDCARDS} wildcards in one text", None),)
    try:
        found = _analyser()(policy).findings
        return tuple(_advice(finding) for finding in found)
    except Exception as error:  # it fails in many ways on policies that AWS takes
        raise AnalysisUnavailable(f"{type(error).__name__}: {str(error)[:200]}") from error


def _analyser() -> Callable[[str], Any]:
    with _importing, warnings.catch_warnings():
        # It finds its data by pkg_resources, which warns of its own end, and leaves files open.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        warnings.filterwarnings("ignore", category=ResourceWarning)
        import parliament  # noqa: PLC0415 - a fifth of a second that start-up does without

    analyse_policy: Callable[[str], Any] = parliament.analyze_policy_string
    return analyse_policy


def _advice(finding: Any) -> Advice:  # noqa: ANN401 - parliament has no types
    detail = finding.detail
    shown = ", ".join(map(str, detail)) if isinstance(detail, list | tuple) else str(detail)
    place = finding.location.get("string") if isinstance(finding.location, dict) else None
    return Advice(str(finding.issue), shown[:300], place if isinstance(place, str) else None)
