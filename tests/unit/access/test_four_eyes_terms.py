"""Four eyes: what counts as wider between two entries, and who is alone when it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.access.four_eyes import Alone
from broker.identity.principal import PrincipalKind
from tests.unit.access.examples import policy
from tests.unit.access.test_four_eyes import (
    ADA,
    ADMINS,
    BASE,
    BOB,
    READER,
    REQUEST,
    known,
    verdict,
)

SECOND_READER = READER.replace("max_duration: 2h", "max_duration: 1h") + "}\n  - " + READER


def test_an_entry_is_no_wider_where_one_of_the_old_ones_was_as_wide():
    before = BASE.replace(READER, SECOND_READER)
    assert verdict(BASE, before=before).gains == ()
    assert verdict(before, before=BASE).gains == (
        "group corp/analysts has role data-reader on wider terms",
    )


def test_what_was_without_a_limit_may_get_one():
    """And what had conditions of one kind may not lose those of another."""
    limits = (", max_duration: 2h", "mfa_within: 8h, ", ", reason: true", "max_grant: 8h, ")
    for limit in limits:
        without = BASE.replace(limit, "", 1)
        assert verdict(BASE, before=without).gains == (), limit
        assert verdict(without, before=BASE).gains, limit
    networks = 'networks: [10.0.0.0/8, "2001:db8::/32"], '
    open_to_all = BASE.replace(networks, "")
    assert verdict(BASE, before=open_to_all).gains == ()
    six = BASE.replace(networks, 'networks: ["2001:db8::/32"], ')
    four = BASE.replace(networks, "networks: [10.0.0.0/8], ")
    assert verdict(six, before=BASE).gains == verdict(four, before=BASE).gains == ()
    assert verdict(four, before=six).waits
    assert verdict(six, before=four).waits
    assert verdict(BASE, before=four).waits


def test_fewer_reviews_are_wider_and_more_are_not():
    unreviewed = BASE.replace(", approval: {from: {group: leads}, quorum: 2}", "")
    wider = ("group corp/sre has role admin on wider terms",)
    assert verdict(unreviewed).gains == wider
    # From admins to a group that she is in: other people decide.
    assert verdict(BASE, before=unreviewed).gains == (
        *wider,
        "group corp/leads approves requests for role admin",
    )
    others = BASE.replace("{group: leads}, quorum", "{group: sre-leads}, quorum")
    assert verdict(others, before=unreviewed).gains == wider
    assert verdict(unreviewed, before=unreviewed).gains == ()
    broken = BASE.replace("quorum: 2}}", "quorum: 2}, break_glass: true}")
    assert verdict(BASE, before=broken).gains == ()
    assert verdict(broken, before=broken).gains == ()
    # From at once to on request is narrower, whoever decides.
    standing = BASE.replace(REQUEST, "{role: admin, to: {group: sre}, mode: standing}")
    assert verdict(others, before=standing).gains == ()
    assert verdict(BASE, before=standing).gains == (
        "group corp/leads approves requests for role admin",
    )


def test_a_scope_that_narrows_is_no_gain():
    scoped = BASE.replace(
        "unscoped: true}", "managed_policies: [arn:aws:iam::aws:policy/ReadOnlyAccess]}"
    )
    assert verdict(scoped).gains == ()
    assert verdict(BASE, before=scoped).gains == (
        "role admin may allow more: session_policy, managed_policies or unscoped changes",
    )
    both = scoped.replace("ReadOnlyAccess]", "ReadOnlyAccess, arn:aws:iam::aws:policy/Other]")
    assert verdict(scoped, before=both).gains == ()
    assert verdict(both, before=scoped).waits


def test_an_account_is_another_by_its_id_or_partition():
    moved = BASE.replace("444455556666", "777788889999")
    assert verdict(moved).gains == (
        "role admin may allow more: role_arn changes",
        "role admin may allow more: account changes",
    )
    china = BASE.replace('{id: "444455556666"}', '{id: "444455556666", partition: aws-cn}')
    china = china.replace("arn:aws:iam::444455556666", "arn:aws-cn:iam::444455556666")
    assert verdict(china).gains == verdict(moved).gains


def test_that_one_is_alone_is_judged_again_when_it_counts():
    alone = Alone(policy(BASE), ADA.id)
    assert alone.holds(())
    assert alone.holds((known(ADA), known(replace(BOB, groups=frozenset()))))
    assert not alone.holds((known(ADA), known(BOB)))
    assert not alone.holds((known(BOB),))
    # A name that is not bound yet is nobody who could approve.
    named = Alone(policy(BASE.replace(ADMINS, "admins: [{user: bob@example.com}]")), ADA.id)
    assert named.holds((known(BOB),))


def entries(own: str, other: str, *, issuer: str = "https://ci.example.com") -> str:
    """A policy that the job `deploy` applies, with another entry beside its own."""
    return BASE.replace(ADMINS, ADMINS[:-1] + ", {workload: deploy}]") + (
        "workloads:\n"
        f"  deploy: {{issuer: https://ci.example.com, audience: a, claims: {{{own}}}}}\n"
        f"  other: {{issuer: {issuer}, audience: b, claims: {{{other}}}}}\n"
    )


@pytest.mark.parametrize(
    ("own", "other", "same_jobs"),
    [
        ("sub: x", "sub: x", True),
        ("sub: x", "sub: y", False),
        ("sub: {any_of: [x, y]}", "sub: {any_of: [y, z]}", True),
        ("sub: {any_of: [x, y]}", "sub: {any_of: [z]}", False),
        ("sub: x/y, n: 1", 'sub: {glob: "x/*"}, n: 1', True),
        ("sub: x/y, n: 1", 'sub: {glob: "z/*"}, n: 1', False),
        ('sub: {glob: "x/*"}, n: 1', "sub: x/y, n: 1", True),
        ('sub: {glob: "x/*"}, n: 1', "sub: z/y, n: 1", False),
        # Two patterns can't be shown to have nothing in common.
        ('sub: {glob: "x/*"}, n: 1', 'sub: {re2: "z.+"}, n: 1', True),
        # Of different claims a job may have both; one in common tells them apart.
        ("sub: x", "ref: y", True),
        ("sub: x, ref: y", "ref: z, n: 1", False),
    ],
)
def test_which_entries_could_let_in_the_job_that_applies(own, other, same_jobs):
    text = entries(own, other)
    subject = policy(text).workloads["deploy"].subject
    job = replace(
        ADA,
        id="w-aaaabbbbccccdddd",
        kind=PrincipalKind.WORKLOAD,
        subject=subject,
        email=None,
        groups=frozenset(),
    )
    entitled = text.replace(
        READER, "{role: admin, to: {workload: other}, mode: standing}\n  - " + READER
    )
    gains = verdict(entitled, before=text, applier=job, people=(known(BOB),)).gains
    assert gains == (("workload other gains role admin",) if same_jobs else ())
    # Another issuer's jobs are never the same ones.
    elsewhere = entries(own, other, issuer="https://ci.test")
    entitled = elsewhere.replace(
        READER, "{role: admin, to: {workload: other}, mode: standing}\n  - " + READER
    )
    assert verdict(entitled, before=elsewhere, applier=job, people=(known(BOB),)).gains == ()


def test_an_addition_to_oneself_and_to_an_entry_of_the_same_jobs_are_both_told():
    text = entries("sub: x", "sub: x")
    job = replace(
        ADA,
        kind=PrincipalKind.WORKLOAD,
        subject=policy(text).workloads["deploy"].subject,
        email=None,
        groups=frozenset(),
    )
    entitled = text.replace(
        READER,
        "{role: admin, to: {workload: deploy}, mode: standing}\n"
        "  - {role: admin, to: {workload: other}, mode: standing}\n  - " + READER,
    )
    assert verdict(entitled, before=text, applier=job, people=(known(BOB),)).gains == (
        "workload deploy gains role admin",
        "workload other gains role admin",
    )


def test_a_parameter_that_comes_is_told_by_what_it_stands_in():
    """Alone it changes nothing; the policy or tag that takes it has changed as well."""
    after = BASE.replace("parameters: {bucket", "parameters: {unit: {pattern: a}, bucket").replace(
        'tags: {team: "', 'tags: {team: "{{unit}}'
    )
    assert verdict(after).gains == ("role data-reader may allow more: tags changes",)


def test_what_is_for_others_hides_nothing_that_stands_after_it():
    first_others = BASE.replace(
        READER,
        "{role: admin, to: {group: others}, mode: standing}\n"
        "  - {role: admin, to: {group: analysts}, mode: standing}\n  - " + READER,
    )
    assert verdict(first_others).gains == ("group corp/analysts gains role admin",)
    delegated = BASE.replace(
        "{group: corp/leads, accounts: [test]}",
        "{group: corp/others, accounts: [test]}, {group: corp/leads, accounts: [test, prod]}",
    )
    assert verdict(delegated).gains == ("group corp/leads becomes a delegated admin, or of more",)
