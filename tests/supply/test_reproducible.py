"""The wheel and the sdist are the same bytes wherever, whenever and by whomever they are built."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EPOCH = "1790000000"
BUILD = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d"]


def source_files(root: Path) -> list[Path]:
    """What the sdist is told to hold, as far as it is there, without what running leaves behind."""
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    tops = [root / "pyproject.toml", *(root / name.lstrip("/") for name in included)]
    files = [file for top in tops for file in (top, *top.rglob("*")) if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


def copy(root: Path, folder: Path, *, umask: int, seconds: int) -> Path:
    """The files in another order, with other times, and the modes of another person."""
    files = source_files(root)
    random.Random(seconds).shuffle(files)
    for file in files:
        there = folder / file.relative_to(root)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
        there.chmod((0o777 if os.access(file, os.X_OK) else 0o666) & ~umask)
        os.utime(there, (seconds, seconds))
    return folder


def build(source: Path, out: Path, umask: int, **environment: str) -> dict[str, str]:
    """The digests of what is built, by name."""
    subprocess.run(
        [*BUILD, str(out)],
        cwd=source,
        env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": EPOCH, **environment},
        check=True,
        capture_output=True,
        umask=umask,
    )
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in out.iterdir()
        if file.name.endswith((".whl", ".tar.gz"))
    }


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    source = copy(ROOT, tmp_path / "a", umask=0o022, seconds=1_600_000_000)
    first = build(
        source,
        tmp_path / "first",
        0o022,
        PYTHONHASHSEED="1",
        TZ="UTC",
    )
    elsewhere = tmp_path / "at a longer" / "path"
    second = build(
        copy(source, elsewhere, umask=0o077, seconds=1_700_000_000),
        tmp_path / "second",
        0o077,
        PYTHONHASHSEED="2",
        TZ="Asia/Kolkata",
        LC_ALL="C.UTF-8",
    )
    assert len(first) == 2
    assert second == first

    # And whoever has the sdist alone builds the same wheel.
    (sdist,) = (tmp_path / "first").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    third = build(unpacked, tmp_path / "third", 0o022)
    assert {name: d for name, d in third.items() if name.endswith(".whl")}.items() <= first.items()


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "SECURITY.md", "Dockerfile"])
def test_the_sdist_holds_what_the_image_and_its_readers_need(name: str) -> None:
    assert ROOT / name in source_files(ROOT)
