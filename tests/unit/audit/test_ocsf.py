"""Every kind of record has its place in OCSF."""

from __future__ import annotations

import pytest

from broker.audit.ocsf import ACTIVITIES, OTHER, OcsfClass, Severity, activity
from broker.audit.record import EventType


@pytest.mark.parametrize("event_type", EventType)
def test_every_event_type_is_mapped(event_type: EventType) -> None:
    assert event_type in ACTIVITIES
    found = activity(event_type.value)
    assert found == ACTIVITIES[event_type]
    assert found.type_uid == found.ocsf_class * 100 + found.id
    assert found.id in range(1, 12) or found.id == OTHER
    # The class is at home in the category that its number names.
    assert found.ocsf_class // 1000 == found.ocsf_class.category[0]


def test_what_an_auditor_looks_for_is_where_it_is_looked_for() -> None:
    expected = {
        EventType.LOGIN_SUCCEEDED: (3002, 1, 300201),
        EventType.SESSION_REVOKED: (3002, 2, 300202),
        EventType.MFA_ENROLLED: (3001, 10, 300110),
        EventType.MFA_LOCKED: (3001, 9, 300109),
        EventType.GRANT_CREATED: (3001, 7, 300107),
        EventType.REVOCATION_REQUESTED: (3001, 5, 300105),
        EventType.ISSUANCE_ISSUED: (6003, 1, 600301),
        EventType.ACCESS_APPLIED: (6003, 3, 600303),
    }
    for event_type, (class_uid, activity_id, type_uid) in expected.items():
        found = ACTIVITIES[event_type]
        assert (found.ocsf_class, found.id, found.type_uid) == (class_uid, activity_id, type_uid)


def test_classes_and_categories_have_the_schemas_names() -> None:
    identity, application = (3, "Identity & Access Management"), (6, "Application Activity")
    assert {one.caption: (one.value, one.category) for one in OcsfClass} == {
        "Account Change": (3001, identity),
        "Authentication": (3002, identity),
        "API Activity": (6003, application),
    }


def test_what_a_later_broker_records_is_not_lost() -> None:
    found = activity("invented.later")
    assert (found.ocsf_class, found.id, found.type_uid) == (OcsfClass.API_ACTIVITY, 99, 600399)
    assert found.severity is Severity.INFORMATIONAL
