"""tools/licences.py: what may be shipped, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import licences
from tools.licences import ALLOWED, READ, allows, main


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", True),
        ("(MIT AND GPL-3.0-only) OR Apache-2.0", True),
        # An exception makes another licence of it.
        ("Apache-2.0 WITH LLVM-exception", False),
        ("Apache-2.0 WITH LLVM-exception OR MIT", True),
        ("Proprietary", False),
    ],
)
def test_an_expression_is_met_by_what_is_allowed(expression: str, allowed: bool) -> None:
    assert allows(expression) is allowed


@pytest.mark.parametrize("text", ["MIT OR", "(MIT", "MIT)", "AND MIT", "Apache Licence", ""])
def test_what_is_no_expression_is_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|bracket"):
        allows(text)


def test_all_that_the_image_ships_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0, capsys.readouterr().err


def test_each_licence_and_each_reading_has_its_reason() -> None:
    assert all(ALLOWED.values())
    assert all(reason for _, reason in READ.values())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of distributions, in front of all others."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(licences, "READ", {})
    return tmp_path


def install(folder: Path, name: str, version: str, *lines: str) -> Path:
    """A distribution with this metadata, and a requirements file that pins it at 1.0."""
    info = folder / "site" / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*head, *lines, "", ""]))
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{name}==1.0 \\\n    --hash=sha256:00\n")
    return requirements


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["License-Expression: AGPL-3.0-only"], "AGPL-3.0-only is not on the list"),
        (["License: SSPL"], "SSPL is not on the list"),
        (
            ["License: MIT", "Classifier: License :: OSI Approved :: GNU General Public License"],
            "General Public License",
        ),
        (["License-Expression: MIT OR"], "a licence is missing"),
        ([], "says nothing of its licence"),
        (["Classifier: License :: OSI Approved"], "says nothing of its licence"),
    ],
)
def test_a_package_that_may_not_be_shipped_is_named(
    installed: Path, capsys: pytest.CaptureFixture[str], lines: list[str], said: str
) -> None:
    requirements = install(installed, "hostile", "1.0", *lines)
    assert main([str(requirements)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hostile: ")
    assert said in line


def test_an_old_free_form_licence_counts_beside_its_classifier(installed: Path) -> None:
    classifier = "Classifier: License :: OSI Approved :: MIT License"
    assert main([str(install(installed, "fine", "1.0", "License: MIT", classifier))]) == 0


def test_what_is_installed_must_be_what_is_pinned(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = install(installed, "other", "2.0", "License-Expression: MIT")
    assert main([str(requirements)]) == 1
    assert "pinned at 1.0, installed is 2.0" in capsys.readouterr().err
    requirements.write_text("not-there-at-all==1.0 \\\n")
    assert main([str(requirements)]) == 1
    assert "not-there-at-all: is not installed" in capsys.readouterr().err


def test_a_reading_of_what_is_shipped_no_more_is_to_go(
    installed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(licences, "READ", {"gone": ("MIT", "its LICENSE")})
    assert main([str(install(installed, "fine", "1.0", "License-Expression: MIT"))]) == 1
    assert capsys.readouterr().err.startswith("gone: ")
