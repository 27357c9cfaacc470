"""`reference/wrong-settings.md`: the table of `wrong_settings`, for people."""

from __future__ import annotations

from collections.abc import Iterator

from tools.reference.markdown import code, page, table
from tools.reference.wrong_settings import AT_START, IN_DOCTOR, Wrong, toml_value

_INTRODUCTION = """
Each of these stops `broker server` before it listens, with one line on stderr that begins with `broker: ` (where there
are several faults, one for each) and exit code 1. `broker migrate`, `broker keys` and `broker recover` say the same.
`broker doctor` reports each as a failure with its cure, beside all that it finds at once.
"""
_DOCTOR = """
With these the broker starts: some pass by themselves, and those who need nothing of it are served meanwhile. `broker
doctor` fails, with exit code 1. While a provider or STS can't be reached, `GET /readyz` answers 200 with
`{"status": "degraded", "detail": "provider corp, STS aws"}`, so that a load balancer keeps the process, and the log
has a line when it is lost and when it is back.
"""
_HEAD = ["What is wrong", "It says", "What to do"]


def render() -> str:
    parts = []
    for title, cases in AT_START.items():
        parts += [f"## {title}\n", table(_HEAD, map(_row, cases))]
    parts += ["## What doctor finds\n", _DOCTOR.strip() + "\n", table(_HEAD, map(_row, IN_DOCTOR))]
    return page("Wrong settings", _INTRODUCTION, *parts)


def _row(case: Wrong) -> list[str]:
    written = [code(one) for one in (*_lines(case), *_variables(case))]
    what = case.what if not written else f"{case.what}: {' '.join(written)}"
    return [what, code(case.says.strip()), case.cure]


def _lines(case: Wrong) -> Iterator[str]:
    for section, value in case.settings.items():
        for one in value if isinstance(value, list) else [value]:
            for key, item in one.items():
                if item is not None:
                    yield f"{section}.{key} = {toml_value(item)}"


def _variables(case: Wrong) -> Iterator[str]:
    for name, value in case.environment.items():
        yield f"{name}={value}"
