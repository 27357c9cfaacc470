"""That the tables of faults in the docs are those of the tests."""

from __future__ import annotations

from tests.faults import counts, listing
from tests.faults.test_sqlite_calls import KINDS


def test_the_document_is_current() -> None:
    text = listing.DOCUMENT.read_text("utf-8")
    assert text == listing.renewed(text), "run: python -m tests.faults.listing"


def test_each_fault_was_tried_in_the_last_long_run() -> None:
    tried = {section: set(run["counts"]) for section, run in counts.read().items()}
    assert tried == {
        "kills": set(listing.KILLED),
        "database": set(listing.DATABASE),
        "sqlite": set(listing.SQLITE),
        "restarts": set(listing.RESTARTS),
    }
    assert set(KINDS) == set(listing.SQLITE)
