"""A job that is supposed from its entry alone: what its claims are, and what was assumed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.access.policy import Role
from broker.access.template import TextTemplate
from broker.identity.presets import CIRCLECI, GITLAB
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.trust import Exactly, Re2
from broker.issuance.supposed_job import UNNAMED, SupposedJob, entry_of, supposed_job
from tests.unit.issuance.job_world import ISSUER, NOW, POLICY, WORKLOAD_IDS

DEPLOY, FORGE = POLICY.workloads["deploy"], POLICY.workloads["forge"]
READER = POLICY.roles["reader"]
KNOWN = Principal(
    id=WORKLOAD_IDS["deploy"],
    kind=PrincipalKind.WORKLOAD,
    issuer="urn:broker:workload",
    subject=f"deploy@{ISSUER}",
    provider="ci",
    handle="an-older-job",
)


def supposed(
    name: str = "deploy", role: Role | None = READER, known: Principal | None = KNOWN
) -> SupposedJob:
    return supposed_job(POLICY.workloads[name], role, known, NOW)


def test_a_job_of_an_entry_begins_now_with_the_claims_that_it_must_have():
    made = supposed()
    principal = made.who.principal
    assert (principal.id, principal.kind) == (KNOWN.id, PrincipalKind.WORKLOAD)
    assert principal.subject == KNOWN.subject
    assert principal.handle == "any-repository-any-run_id-main"
    assert principal.suspended_at is None
    claims = principal.claims
    assert (claims["ref"], claims["repository_id"]) == ("refs/heads/main", "42")
    # What the entry leaves open is known by its name, so that nobody takes it for a real value.
    assert (claims["repository"], claims["environment"]) == ("any-repository", "any-environment")
    assert made.who.auth_time == NOW
    assert made.who.login_session_expires_at == NOW + timedelta(hours=1)
    assert made.who.login_session_id == "none"
    assert made.who.mfa_time is None
    assert made.assumed == (
        "a job of workload deploy that began just now",
        "no client address",
        "claims that the entry leaves open have the value any-NAME",
    )


def test_its_time_is_the_entrys():
    assert supposed("publish").who.login_session_expires_at == NOW + timedelta(hours=2)


def test_an_entry_that_was_never_applied_is_nobody():
    assert UNNAMED == "w-0000000000000000"
    assert supposed(known=None).who.principal.id == UNNAMED


def test_a_suspended_entry_stays_so():
    assert supposed(known=replace(KNOWN, suspended_at=NOW)).who.principal.suspended_at == NOW


@pytest.mark.parametrize(
    ("name", "value", "assumed"),
    [
        (
            "publish",
            "refs/tags/any",
            "ref is 'refs/tags/any': the entry admits the glob 'refs/tags/*'",
        ),
        ("release", "any-ref", "ref is 'any-ref': the entry admits the pattern 'refs/tags/.+'"),
    ],
)
def test_of_what_an_entry_admits_one_value_is_supposed_and_said(name, value, assumed):
    made = supposed(name)
    assert made.who.principal.claims["ref"] == value
    assert made.assumed[2:] == (
        assumed,
        "claims that the entry leaves open have the value any-NAME",
    )


def test_of_several_values_the_first():
    stages = Exactly(("blue", "green"))
    entry = replace(DEPLOY, claims={**DEPLOY.claims, "environment": stages})
    made = supposed_job(entry, READER, KNOWN, NOW)
    assert made.who.principal.claims["environment"] == "blue"
    assert made.assumed[2] == "environment is 'blue': the entry admits 'blue' or 'green'"


def test_claims_of_other_types_have_a_value_of_theirs():
    claims = {"namespace_id": Exactly(("7",)), "project_id": Exactly(("42",))}
    made = supposed_job(replace(DEPLOY, preset=GITLAB, claims=claims), None, None, NOW)
    assert made.who.principal.claims["runner_id"] == "0"
    made = supposed_job(replace(DEPLOY, preset=CIRCLECI, claims={}), None, None, NOW)
    assert made.who.principal.claims["ssh_rerun"] == "true"


def test_without_a_preset_a_roles_templates_say_which_claims_there_are():
    """Which ones the issuer sends is only told by a token."""
    made = supposed("forge", known=None)
    assert made.who.principal.handle == "forge"
    assert made.who.principal.claims == {
        "sub": "project:1",
        "repository": "any-repository",
        "repository_id": "any-repository_id",
    }
    assert supposed("forge", None).who.principal.claims == {"sub": "project:1"}
    plain = replace(READER, session_policy=None)
    assert supposed("forge", plain).who.principal.claims.keys() == {"sub", "repository"}
    other = replace(plain, tags={"who": TextTemplate.parse("{{principal.handle}} {{issuance.id}}")})
    assert supposed("forge", other).who.principal.claims == {"sub": "project:1"}
    # The entry's own value is not covered by a template that names it.
    named = replace(plain, tags={"job": TextTemplate.parse("{{principal.claims.sub}}")})
    assert supposed("forge", named).who.principal.claims == {"sub": "project:1"}
    patterned = replace(FORGE, claims={"sub": Re2("project:.*")})
    assert supposed_job(patterned, named, None, NOW).who.principal.claims == {"sub": "any-sub"}


def test_the_entry_that_a_principal_stands_for():
    assert entry_of(POLICY, KNOWN) is DEPLOY
    assert entry_of(POLICY, replace(KNOWN, subject="deploy@https://other.example.com")) is None
    assert entry_of(replace(POLICY, workloads={}), KNOWN) is None
