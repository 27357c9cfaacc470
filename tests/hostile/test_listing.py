"""That the table of attacks in the docs is the one of the tests."""

from __future__ import annotations

from tests.hostile.listing import DOCUMENT, HERE, MODULES, renewed


def test_every_module_is_listed() -> None:
    found = {path.stem for path in HERE.glob("test_*.py")} - {"test_listing"}
    assert found == set(MODULES)


def test_the_document_is_current() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == renewed(text), "run: python -m tests.hostile.listing"
