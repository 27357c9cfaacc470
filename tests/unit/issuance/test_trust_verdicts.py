"""Whole verdicts on trust policies: every sentence that an operator reads, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from broker.issuance.trust_judgement import Judgement, Level, Verdict
from tests.unit.issuance.trust_examples import (
    ACCOUNT,
    ALL,
    EXTERNAL_ID,
    HUB,
    PASTE,
    SESSION,
    USER,
    document,
    good,
    judged,
    statement,
    with_external_id,
    without_external_id,
    written,
)

OWN = "the broker's own policies"
OTHER = "arn:aws:iam::444455556666:role/Other"
DELETED = "AROAEXAMPLEEXAMPLE01"
MFA = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
A_USER = {"StringEquals": {"aws:PrincipalType": "User"}}
NAMES_NOBODY = f"the trust policy does not name the broker, {HUB}"
GONE = f"{NAMES_NOBODY}; {DELETED} stands for a principal that was deleted since"
ANYBODY = "the trust policy lets anybody in, of any AWS account: {} without a condition on who asks"
BY_DENY = "a Deny statement of the trust policy refuses {} to the broker"
EXCEPT = "remove it, or except the broker from it"


def fail(message: str, cure: str = PASTE) -> Judgement:
    return Judgement(Level.FAIL, message, cure)


def warn(message: str, cure: str = PASTE) -> Judgement:
    return Judgement(Level.WARN, message, cure)


def refused_by(condition: str, action: str) -> Judgement:
    message = f"the trust policy's condition {condition} on {action} refuses the broker"
    return fail(message, f"drop it, or {PASTE}")


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        (document(), NAMES_NOBODY),
        (document(statement(principal=[])), NAMES_NOBODY),
        (good([OTHER, DELETED]), GONE),
        (good([OTHER] * 4), f"{NAMES_NOBODY}; it names {OTHER}, {OTHER}, {OTHER}"),
        # Only who may assume is named.
        (
            document(
                statement(ALL[1:], HUB),
                statement("sts:AssumeRole", OTHER),
                statement("sts:AssumeRole", DELETED, effect="Deny"),
                statement("sts:TagSession", DELETED),
            ),
            f"{NAMES_NOBODY}; it names {OTHER}",
        ),
    ],
)
def test_the_broker_is_not_named(trust: Any, said: str) -> None:
    """Then there is nothing else to say of it."""
    assert judged(trust) == Verdict((fail(said),), ())


@pytest.mark.parametrize(
    ("members", "judgement"),
    [
        ({"principal": "*"}, fail(ANYBODY.format('Principal "*"'))),
        (
            {"Principal": ..., "NotPrincipal": {"AWS": OTHER}},
            fail(ANYBODY.format("NotPrincipal")),
        ),
        (
            {
                "principal": "*",
                "condition": {
                    "StringEquals": {"aws:PrincipalOrgID": "o-1", "sts:ExternalId": "e-4711"},
                    "Bool": {"aws:SecureTransport": "true"},
                },
            },
            warn(
                'the trust policy says Principal "*", limited only by aws:PrincipalOrgID, '
                "sts:ExternalId",
                f"name the broker as the principal: {HUB}",
            ),
        ),
    ],
)
def test_everybody_is_let_in(members: dict[str, Any], judgement: Judgement) -> None:
    verdict = judged(document(*good()["Statement"], statement(**members)))
    assert verdict.judgements[0] == judgement


def test_the_account_or_one_session_is_named() -> None:
    account = warn(
        f"the trust policy names the whole account {ACCOUNT}: whoever its policies let assume "
        "roles gets in",
        f"name the broker as the principal: {HUB}",
    )
    assert judged(good(ACCOUNT)) == Verdict((account,), (OWN,))
    session = warn(
        "the trust policy names the broker's present session alone, whose name may change with "
        "the next start",
        f"name the role behind it: {HUB}",
    )
    assert judged(good(SESSION.arn)) == Verdict((session,), (OWN,))
    # Named exactly somewhere else: that is enough.
    both = document(*good(ACCOUNT)["Statement"], *good()["Statement"])
    assert judged(both) == Verdict((), (OWN,))


def test_external_ids() -> None:
    cure = f"write the trust policy's as the role's external_id in the access policy, or {PASTE}"
    other = {"StringEquals": {"sts:ExternalId": "guess"}}
    trust = document(statement("sts:AssumeRole", HUB, other), statement(ALL[1:]))
    said = "the trust policy asks for another ExternalId than the access policy has"
    assert judged(trust) == Verdict((fail(said, cure),), (OWN,))
    none = "the trust policy asks for an ExternalId, and the access policy has none"
    assert judged(good(), role=without_external_id()) == Verdict((fail(none, cure),), (OWN,))
    unasked = "the trust policy does not ask for the ExternalId that the access policy has"
    assert judged(document(statement())) == Verdict((warn(unasked),), (OWN,))


def test_a_condition_that_fails_several_actions_is_told_once_and_others_beside_it() -> None:
    one = refused_by("Bool aws:MultiFactorAuthPresent", "sts:AssumeRole")
    assert judged(document(statement(ALL, HUB, MFA))).judgements == (one,)
    by_turns = document(
        statement("sts:AssumeRole", HUB, with_external_id(MFA)),
        statement("sts:TagSession", HUB, A_USER),
        statement("sts:SetSourceIdentity", HUB, MFA),
    )
    other = refused_by("StringEquals aws:PrincipalType", "sts:TagSession")
    assert judged(by_turns).judgements == (one, other)


def test_actions_that_no_statement_allows_are_told_one_by_one() -> None:
    missing = [
        fail(f"the trust policy does not allow {action} to the broker") for action in ALL[1:]
    ]
    assumed = document(statement("sts:AssumeRole", HUB, EXTERNAL_ID))
    assert judged(assumed).judgements == tuple(missing)


def test_the_statement_that_comes_nearest_says_which_condition_fails() -> None:
    far = statement(ALL[0], HUB, with_external_id({**MFA, "Null": {"sts:SourceIdentity": "true"}}))
    near = statement(ALL[0], HUB, with_external_id({"StringEquals": A_USER["StringEquals"]}))
    for both in ([far, near], [near, far]):
        verdict = judged(document(*both, statement(ALL[1:])))
        assert verdict.judgements == (
            refused_by("StringEquals aws:PrincipalType", "sts:AssumeRole"),
        )


def test_a_deny_statement_is_named_whether_or_not_another_allows() -> None:
    denies = statement("sts:TagSession", HUB, effect="Deny")
    by_deny = fail(BY_DENY.format("sts:TagSession"), EXCEPT)
    assert judged(document(*good()["Statement"], denies)).judgements == (by_deny,)
    kept = [statement(ALL[0], HUB, EXTERNAL_ID), statement(ALL[2])]
    assert judged(document(*kept, denies)).judgements == (by_deny,)
    mfa = statement("sts:TagSession", HUB, MFA)
    assert judged(document(*kept, mfa, denies)).judgements == (by_deny,)
    # One that does not hold for the broker is not to blame.
    elsewhere = statement("sts:TagSession", HUB, MFA, effect="Deny")
    assert judged(document(*kept, elsewhere)).judgements == (
        fail("the trust policy does not allow sts:TagSession to the broker"),
    )


def test_everybody_but_the_broker_is_not_the_broker() -> None:
    excepted = statement("sts:*", effect="Deny", Principal=..., NotPrincipal={"AWS": [HUB]})
    assert judged(document(*good()["Statement"], excepted)) == Verdict((), (OWN,))


@pytest.mark.parametrize(
    ("trust", "open_questions"),
    [
        (written(USER), ()),
        (good(USER.arn), ()),
        # Everybody of the account: it is for its policies to say.
        (good(ACCOUNT), (OWN,)),
        (
            document(statement(ALL, USER.arn, with_external_id(MFA))),
            (*(f"the condition Bool aws:MultiFactorAuthPresent on {action}" for action in ALL),),
        ),
        # Nothing lets it in: its own policies would have to, and can't.
        (document(statement(ALL, USER.arn, {"Null": {"sts:SourceIdentity": "true"}})), (OWN,)),
    ],
)
def test_what_reading_cannot_settle_for_a_user(trust: Any, open_questions: tuple[str, ...]) -> None:
    assert judged(trust, USER).open == open_questions


@pytest.mark.parametrize(
    ("trust", "why"),
    [
        (None, "it has no Statement"),
        ([], "it has no Statement"),
        ({}, "it has no Statement"),
        ({"Statement": "Allow"}, "a statement has no Effect"),
        ({"Statement": ["Allow"]}, "a statement has no Effect"),
        (document(statement(effect="Maybe")), "a statement has no Effect"),
        (document(statement(Action=...)), "a statement has no Action"),
        (document(statement(Principal=...)), "a statement has no Principal"),
        (document(statement(Principal=HUB)), "Principal is not an object"),
        (document(statement(Principal={"AWS": 7})), "a name is not a string"),
        (document(statement([7])), "a name is not a string"),
        (document(statement(condition=[])), "Condition is not an object"),
        (document(statement(condition={"Bool": "x"})), "Bool is not an object"),
        (document(statement(condition={"Bool": {"x": {}}})), "a value is not a string"),
    ],
)
def test_what_is_no_trust_policy_is_said_with_where(trust: Any, why: str) -> None:
    assert judged(trust) == Verdict((fail(f"the trust policy can't be read: {why}"),), ())
