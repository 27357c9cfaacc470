"""What AWS could not be set up for, and what to change: said before anything is written."""

from __future__ import annotations

import pytest

from broker.access.policy import AccessPolicy
from broker.errors import Conflict
from broker.issuance.aws_setup import Choices, aws_setup
from tests.unit.issuance.setup_examples import FAR, HUB, HUB_ARN, arn, by_arn, entry, of

GATE, READER, WRITER = arn("Gate"), arn("data/Reader"), arn("Writer", FAR)


def refusal(policy: AccessPolicy, choices: Choices | None = None) -> str:
    with pytest.raises(Conflict) as caught:
        aws_setup(policy, HUB, choices or Choices())
    return caught.value.detail


def test_an_external_id_that_is_not_made_yet() -> None:
    entries = of(
        entry("a", READER),
        entry("b", READER, external_id="x-1"),
        entry("c", WRITER, external_id={"generate": True}),
    )
    assert refusal(entries) == (
        "the external id of role c is made when the access policy is applied: apply it, and run "
        "this with the server's settings (--config), which lead to the database that keeps it"
    )


def test_the_brokers_own_role_as_one_of_the_policys() -> None:
    said = "names the broker's own role {}: leave it out of via, or write another role_arn"
    assert refusal(of(entry("self", HUB_ARN))) == f"role self {said.format(HUB_ARN)}"
    via = of(entry("through", READER, via=[GATE, HUB_ARN]))
    assert refusal(via) == f"role through {said.format(HUB_ARN)}"


@pytest.mark.parametrize("path", ["aws-reserved/sso.amazonaws.com/", "aws-service-role/x/"])
def test_roles_that_are_awss_own(path: str) -> None:
    own = arn(path + "AWSReservedSSO_Admin_0123")
    assert refusal(of(entry("sso", own))) == (
        f"{own} is AWS's own, whose trust policy nobody can change: name a role of yours in the "
        "access policy"
    )


def test_names_that_an_account_can_have_once() -> None:
    twin = arn("x/READER")
    assert refusal(of(entry("a", READER), entry("b", twin))) == (
        f"{READER} and {twin} can't both exist: an account has a role's name once, whatever its "
        "path or case"
    )
    aws_setup(of(entry("a", READER), entry("b", arn("x/READER", FAR))), HUB, Choices())


def test_hops_that_lead_to_each_other() -> None:
    a, b, c = arn("A"), arn("B"), arn("C")
    said = "{} and {} lead to each other by way of their hops: neither can be made before the other"
    assert refusal(of(entry("ab", b, via=[a]), entry("ba", a, via=[b]))) == said.format(a, b)
    ring = of(entry("ab", b, via=[a]), entry("bc", c, via=[b]), entry("ca", a, via=[c]))
    assert refusal(ring) == said.format(a, c)


def test_more_managed_policies_than_a_role_takes() -> None:
    def policies(count: int) -> AccessPolicy:
        arns = [f"arn:aws:iam::aws:policy/P{number}" for number in range(count)]
        half = count // 2
        return of(
            entry("a", READER, unscoped=False, managed_policies=arns[:half]),
            entry("b", READER, unscoped=False, managed_policies=arns[half:]),
        )

    ten = by_arn(aws_setup(policies(10), HUB, Choices()))[READER]
    assert len(ten.attached) == 10
    assert refusal(policies(11)) == (
        f"{READER} has 11 managed policies by several entries, and AWS attaches 10 to a role: "
        "give one of the entries another role"
    )
