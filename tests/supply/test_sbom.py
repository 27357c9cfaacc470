"""tools/sbom.py: the list of parts is the pins, each with its version and address."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

import broker
from tests.image.replay import lay_out
from tools.pinned import canonical, pinned
from tools.sbom import ROOT, describe, faults

PINS = pinned(ROOT / "requirements" / "image.txt")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the server's packages and the broker, as `make sbom` makes it."""
    folder = tmp_path_factory.mktemp("sbom") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    lay_out(PINS, site)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--quiet"]
    install += ["install", "--no-index", "--no-deps", "--no-compile", str(wheel)]
    subprocess.run(install, check=True)
    return folder / "bin" / "python"


@pytest.mark.long  # reads every file of 78 distributions
def test_it_names_every_part_and_no_other(python: Path, tmp_path: Path) -> None:
    described = describe(python, tmp_path / "list.json")
    assert faults(described, PINS) == []
    project = described["metadata"]["component"]
    assert (project["name"], project["version"]) == ("credential-broker", broker.__version__)
    for part in described["components"]:
        name = canonical(part["name"])
        assert part["purl"].startswith(f"pkg:pypi/{name}@{part['version']}")
    (root,) = [d for d in described["dependencies"] if d["ref"] == project["bom-ref"]]
    assert any(ref.startswith("fastapi==") for ref in root["dependsOn"])


def test_a_part_too_many_too_few_or_of_another_version_is_said() -> None:
    parts = [{"name": "Authlib", "version": "1.0"}, {"name": "moto", "version": "5"}]
    wanted = {"authlib": "1.1", "fastapi": "0.1"}
    assert faults({"components": parts}, wanted) == [
        "authlib: pinned 1.1, listed 1.0",
        "fastapi: pinned 0.1, listed not",
        "moto: pinned not, listed 5",
    ]
