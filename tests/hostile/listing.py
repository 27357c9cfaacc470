"""The attacks as a table in docs/reliability.md: `python -m tests.hostile.listing` writes it.

Owns what stands between the two marks; the rest of the file is written by hand. A row is a test:
its name as words, and its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "reliability.md"
BEGIN = "<!-- attacks: written by `python -m tests.hostile.listing`, not by hand -->"
END = "<!-- end of attacks -->"
MODULES = {
    "test_oidc": "Signing in",
    "test_oauth": "OAuth",
    "test_second_factor": "Second factor",
    "test_web": "The web",
    "test_issuance": "Issuance",
    "test_audit": "The audit log",
}


class NoAttack(ValueError):
    """A test whose docstring does not say what the attack is."""


def rows(module: str) -> list[tuple[str, str]]:
    """Name and attack of each test, in the order they stand. Raises NoAttack."""
    tree = ast.parse((HERE / f"{module}.py").read_text("utf-8"))
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = ast.get_docstring(node)
            if not words:
                raise NoAttack(f"{module}.{node.name} does not say what the attack is")
            name = node.name.removeprefix("test_").replace("_", " ")
            found.append((name, re.sub(r"\s+", " ", words).replace("|", "\\|")))
    return found


def table() -> str:
    parts = [BEGIN]
    for module, title in MODULES.items():
        parts += ["", f"### {title}", "", f"`tests/hostile/{module}.py`", ""]
        parts += ["| Case | The attack |", "|---|---|"]
        parts += [f"| {name} | {attack} |" for name, attack in rows(module)]
    return "\n".join([*parts, "", END])


def renewed(document: str) -> str:
    """The document with the table as it is now; with one at its end where it had none."""
    if BEGIN not in document:
        return f"{document.rstrip()}\n\n{table()}\n"
    before, _, rest = document.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text("utf-8")), "utf-8")
    sys.exit(0)
