"""What `make mutants` found: how many changes of the pure core the unit tests noticed.

Reads mutmut's results and prints a table by module, which docs/reliability.md holds, then the
names of those that survived (`mutmut show NAME` shows one). Ends with 1 where a package is below
the limit or was not tried whole.

    python -m tools.mutants [FOLDER]     # mutmut's own folder, `mutants`
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

LIMIT = 0.85
_KILLED = frozenset({1, 3})
_SURVIVED = frozenset({0})
_UNTESTED = frozenset({5, 33})
_TIMEOUT = frozenset({24, 36, -24, 152})  # it went round for ever, which somebody would notice


def outcome(code: int | None) -> str:
    """Of one mutant, by the exit code of its tests. Raises ValueError for one unheard of."""
    if code is None:
        return "not tried"
    for name, codes in (
        ("killed", _KILLED | _TIMEOUT),
        ("survived", _SURVIVED),
        ("untested", _UNTESTED),
    ):
        if code in codes:
            return name
    raise ValueError(f"mutmut's exit code {code} is not known here")


def read(folder: Path) -> dict[str, dict[str, str]]:
    """By module (`access/decide`), the outcome of each mutant by its name."""
    core = folder / "broker"
    found = {}
    for file in sorted(core.rglob("*.py.meta")):
        codes: dict[str, int | None] = json.loads(file.read_text("utf-8"))["exit_code_by_key"]
        if codes:
            module = str(file.relative_to(core)).removesuffix(".py.meta")
            found[module] = {name: outcome(code) for name, code in codes.items()}
    return found


def share(counts: Counter[str]) -> float:
    return counts["killed"] / counts.total()


def row(name: str, counts: Counter[str]) -> str:
    return f"| {name} | {counts.total()} | {counts['killed']} | {share(counts):.1%} |"


def table(found: dict[str, dict[str, str]]) -> tuple[str, dict[str, Counter[str]]]:
    """By module, with a line for each package before its own; and the packages' counts."""
    modules = {name: Counter(mutants.values()) for name, mutants in found.items()}
    packages: dict[str, Counter[str]] = {}
    for name, counts in modules.items():
        packages.setdefault(name.partition("/")[0], Counter()).update(counts)
    rows = ["| Module | Mutants | Killed | |", "|---|---|---|---|"]
    for package, counts in packages.items():
        rows.append(row(f"**{package}**", counts))
        rows += [row(f"`{m}`", modules[m]) for m in modules if m.startswith(f"{package}/")]
    return "\n".join(rows), packages


def main(words: Sequence[str]) -> int:
    found = read(Path(words[0] if words else "mutants"))
    text, packages = table(found)
    print(text)
    for mutants in found.values():
        for name, what in mutants.items():
            if what != "killed":
                print(f"{what}: {name}", file=sys.stderr)
    whole = all(counts["not tried"] == 0 for counts in packages.values())
    enough = all(share(counts) >= LIMIT for counts in packages.values())
    return 0 if packages and whole and enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
