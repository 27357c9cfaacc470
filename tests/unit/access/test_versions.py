"""Ids that the broker makes, and a policy with the external ids it made."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from broker.access.grant import new_grant_id
from broker.access.policy import AccessPolicy
from broker.access.versions import (
    StoredPolicy,
    new_change_id,
    new_external_id,
    with_external_ids,
)
from tests.unit.access.examples import FILE, policy

READER_ARN = "arn:aws:iam::111122223333:role/service/DataReader"


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (new_change_id, "chg-[a-z2-7]{26}"),
        (new_grant_id, "g-[a-z2-7]{26}"),
        # 160 bits, in characters that STS takes as an external id.
        (new_external_id, "broker-[a-z2-7]{32}"),
    ],
)
def test_an_id_is_random_and_fit_for_a_path(make, form):
    made = {make() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(form, one) for one in made)
    # Every character of the random part varies: none is fixed or left out.
    start = len(form.partition("[")[0])
    assert all(len({one[at] for one in made}) > 10 for at in range(start, start + 25))


def external_ids(parsed: AccessPolicy) -> dict[str, str | None]:
    return {name: role.external_id for name, role in parsed.roles.items()}


def test_a_made_external_id_stands_where_the_file_asks_for_one():
    asked = policy(FILE.replace('"e-4711"', "{generate: true}"))
    made = with_external_ids(asked, {READER_ARN: "broker-abc", "arn:of:another": "broker-def"})
    assert external_ids(made) == {"data-reader": "broker-abc", "admin": None}
    assert made.roles["data-reader"].generates_external_id
    # Nothing else changes, and without one there is none.
    assert with_external_ids(made, {}) == asked
    assert external_ids(with_external_ids(asked, {})) == {"data-reader": None, "admin": None}


def test_an_external_id_of_the_file_is_kept():
    written = with_external_ids(policy(), {READER_ARN: "broker-abc"})
    assert external_ids(written) == {"data-reader": "e-4711", "admin": None}
    assert written == policy()


def test_a_stored_policy_shows_no_external_id():
    stored = StoredPolicy(
        1, FILE, "00", datetime(2026, 11, 24, tzinfo=UTC), "p-1", {READER_ARN: "broker-abc"}
    )
    assert "broker-abc" not in repr(stored)
