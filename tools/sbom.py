"""The list of the server's parts, as CycloneDX JSON.

    python -m tools.sbom PYTHON OUTPUT    PYTHON: with the broker and its pins, nothing else

cyclonedx-py reads the environment; this gives it what pyproject.toml leaves to the build, the
version, and holds what it found to requirements/image.txt: a list that misses a part, or has one
that is not shipped, is worse than none. Exit code 1 then, with a line each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.pinned import canonical, pinned

ROOT = Path(__file__).resolve().parents[1]
_TOOL = Path(sysconfig.get_path("scripts"), "cyclonedx-py")
_ASKS = "from importlib.metadata import version; print(version('credential-broker'))"


def describe(python: Path, output: Path) -> dict[str, Any]:
    """Write the list, and return it. Raises CalledProcessError where the environment can't be
    read, or holds no broker.
    """
    version = subprocess.run(
        [python, "-c", _ASKS], check=True, capture_output=True, text=True
    ).stdout.strip()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "pyproject.toml")
        project.write_text(text.replace('dynamic = ["version"]', f'version = "{version}"', 1))
        subprocess.run(
            [
                *(_TOOL, "environment", "--pyproject", project, "--mc-type", "application"),
                *("--output-reproducible", "--output-format", "JSON"),
                *("--output-file", output, python),
            ],
            check=True,
        )
    described: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return described


def faults(described: dict[str, Any], wanted: dict[str, str]) -> list[str]:
    """A line for each part that is missing, too many, or of another version."""
    listed = {canonical(part["name"]): part["version"] for part in described["components"]}
    return [
        f"{name}: pinned {wanted.get(name, 'not')}, listed {listed.get(name, 'not')}"
        for name in sorted(wanted.keys() | listed.keys())
        if wanted.get(name) != listed.get(name)
    ]


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    # Absolute, and not resolved: an environment's interpreter is a link out of it.
    described = describe(Path(argv[0]).absolute(), Path(argv[1]))
    found = faults(described, pinned(ROOT / "requirements" / "image.txt"))
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{argv[1]}: {len(described['components'])} parts")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
