"""The calls that are made for nobody: what issuing would send, and may do nothing."""

from __future__ import annotations

import json
from dataclasses import replace

from broker.access.template import TextTemplate
from broker.issuance.rehearsal import DENY_EVERYTHING, NOBODY, rehearse, varying_tags
from broker.issuance.request import PLACEHOLDER_ID
from broker.issuance.sts import AssumeRole, Predecessor
from tests.unit.access.examples import policy

READER = policy().roles["data-reader"]
HOP = "arn:aws:iam::999988887777:role/Hop"
CALL = AssumeRole(
    partition="aws",
    region="eu-west-1",
    role_arn=READER.role_arn,
    role_session_name=f"broker-doctor-{PLACEHOLDER_ID}",
    duration_seconds=900,
    policy=DENY_EVERYTHING,
    policy_arns=(),
    tags=(("team", "broker-doctor"), ("broker:issuance", PLACEHOLDER_ID)),
    transitive_tag_keys=("team", "broker:issuance"),
    source_identity="p-0000000000000000",
    external_id="e-4711",
)


def test_a_call_as_issuing_makes_it_whose_credentials_may_do_nothing() -> None:
    scoped = rehearse(READER)
    assert scoped.call == CALL
    assert scoped.hops == ()
    assert json.loads(DENY_EVERYTHING) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}],
    }
    # CloudTrail shows that this was nobody: no id has a zero in it.
    assert NOBODY.id == scoped.source_identity == "p-" + "0" * 16


def test_whatever_the_role_gives_the_rehearsal_gives_nothing() -> None:
    arns = ("arn:aws:iam::aws:policy/AdministratorAccess",)
    wide = replace(READER, managed_policies=arns, unscoped=True, may_chain=True, parameters={})
    assert rehearse(wide).call == CALL
    ungiven = replace(READER, external_id=None, generates_external_id=True)
    assert rehearse(ungiven).call == replace(CALL, external_id=None)


def test_every_hop_is_rehearsed() -> None:
    first, last = rehearse(replace(READER, via=(HOP,))).calls
    assert (first.role_arn, first.duration_seconds) == (HOP, 900)
    assert (first.source_identity, first.after) == (NOBODY.id, None)
    assert last == replace(
        CALL,
        tags=(),
        transitive_tag_keys=(),
        source_identity=None,
        after=Predecessor(HOP, NOBODY.id),
    )


def test_tags_that_nobody_has_a_value_for_are_stood_in_for() -> None:
    texts = {
        "fixed": "blue",
        "who": "{{principal.id}} {{principal.handle}} {{issuance.id}}",
        "bucket": "{{bucket}}",
        "mail": "mail={{principal.email}}",
    }
    tags = {key: TextTemplate.parse(text) for key, text in texts.items()}
    role = replace(READER, tags=tags, transitive_tags=())
    assert dict(rehearse(role).call.tags) == {
        "fixed": "blue",
        "who": f"{NOBODY.id} broker-doctor {PLACEHOLDER_ID}",
        "bucket": "broker-doctor",
        "mail": "broker-doctor",
        "broker:issuance": PLACEHOLDER_ID,
    }
    assert varying_tags(role) == {"who", "bucket", "mail", "broker:issuance"}
