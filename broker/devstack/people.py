"""The people of `broker dev`: who they are at the stand-in provider."""

from __future__ import annotations

from broker.devstack.oidc import Person

ALICE = Person(
    username="alice",
    password="alice",  # noqa: S106 - printed on the login page of a stand-in on loopback
    subject="alice-0001",
    email="alice@example.com",
    name="Alice, an analyst",
    groups=("analysts",),
)
BOB = Person(
    username="bob",
    password="bob",  # noqa: S106 - as above
    subject="bob-0002",
    email="bob@example.com",
    name="Bob, new, without rights",
)
GRACE = Person(
    username="grace",
    password="grace",  # noqa: S106 - as above
    subject="grace-0003",
    email="grace@example.com",
    name="Grace, an admin",
    groups=("platform", "audit"),
)
PEOPLE = (ALICE, BOB, GRACE)
PROVIDER = "dev"
