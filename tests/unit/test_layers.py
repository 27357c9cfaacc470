"""The import contracts hold, and would be seen to break: each case plants one violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_contracts(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
    )


@pytest.fixture
def tree(tmp_path):
    """A copy of the package and its contracts, to be spoilt."""
    shutil.copytree(
        ROOT / "broker", tmp_path / "broker", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_as_it_stands_keeps_its_contracts(tree):
    outcome = run_contracts(tree)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "0 broken" in outcome.stdout


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("broker/access/planted.py", "import broker.web"),
        ("broker/identity/planted.py", "import sqlalchemy"),
        ("broker/web/planted.py", "import broker.adapters"),
        ("broker/cli/planted.py", "import broker.issuance"),
        ("broker/audit/planted.py", "import broker.identity"),
    ],
)
def test_a_planted_violation_is_caught(tree, module, planted):
    (tree / module).write_text(f'"""Planted."""\n\n{planted}\n')
    outcome = run_contracts(tree)
    assert outcome.returncode == 1
    assert Path(module).with_suffix("").as_posix().replace("/", ".") in outcome.stdout
