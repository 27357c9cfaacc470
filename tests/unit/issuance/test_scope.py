"""The exact AssumeRole input, and that nothing a caller says makes it wider."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.decide import Allowed, Ceiling
from broker.access.policy import Conditions, Entitlement, Group, Mode, Organization, Role
from broker.access.template import PolicyTemplate, TextTemplate
from broker.errors import DurationTooShort, InvalidRequest, NotEntitled, ScopeTooLarge
from broker.identity.principal import Principal
from broker.issuance.request import CredentialRequest
from broker.issuance.scope import Scoped, scope, session_name
from tests.unit.access.examples import NOW, context, person, policy

ISSUANCE = "iss-abcdefghijklmnopqrstuvwxyz"
READER = policy().roles["data-reader"]
ADMIN = policy().roles["admin"]
NO_CHAINING = {
    "Effect": "Deny",
    "Action": ["sts:AssumeRole", "sts:AssumeRoot"],
    "Resource": "*",
}
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
NO_IAM = {"Effect": "Deny", "Action": "iam:*", "Resource": "*"}
NO_DELETE = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}


def scoped(
    role: Role = READER,
    *,
    parameters: Mapping[str, str] | None = None,
    restrict: tuple[Mapping[str, object], ...] = (),
    organization: Organization | None = None,
    who: Principal | None = None,
    duration: int | None = None,
    chained: bool = False,
    session_left: int = 43200,
) -> Scoped:
    if parameters is None:
        parameters = {"bucket": "reports"} if role.parameters else {}
    by = Entitlement(role.name, Group("corp/analysts"), Mode.STANDING, None, Conditions(), 1)
    return scope(
        Allowed(role, by, Ceiling()),
        context(who, session_left=session_left),
        CredentialRequest(role.name, duration, None, parameters, restrict),
        issuance_id=ISSUANCE,
        organization=organization or Organization(),
        chained=chained,
        now=NOW,
    )


def statements(made: Scoped) -> list[object]:
    assert made.call.policy is not None
    return json.loads(made.call.policy)["Statement"]  # type: ignore[no-any-return]


def test_a_whole_call():
    made = scoped(parameters={"bucket": "logs", "prefix": "a-1"}, duration=7200, chained=True)
    call = made.call
    assert (call.partition, call.region) == ("aws", "eu-west-1")
    assert call.role_arn == "arn:aws:iam::111122223333:role/service/DataReader"
    assert call.role_session_name == f"ada@example.com-{ISSUANCE}"
    assert call.source_identity == "p-aaaabbbbccccdddd"
    assert call.external_id == "e-4711"
    assert (call.duration_seconds, made.duration.bound_by) == (3600, "role_chaining")
    assert call.policy_arns == ()
    assert call.tags == (("team", "web"), ("broker:issuance", ISSUANCE))
    assert call.transitive_tag_keys == ("team", "broker:issuance")
    assert call.policy == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],'
        '"Resource":"arn:aws:s3:::logs/a-1/*"},'
        '{"Effect":"Deny","Action":["sts:AssumeRole","sts:AssumeRoot"],"Resource":"*"}]}'
    )
    assert made.policy_sha256 == hashlib.sha256(call.policy.encode()).hexdigest()
    assert "e-4711" not in repr(made)


def test_denials_are_added_and_the_roles_own_statements_stay():
    made = scoped(restrict=(NO_DELETE,), organization=Organization(deny=(NO_IAM,)))
    own, *added = statements(made)
    assert own == {
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": "arn:aws:s3:::reports/public/*",
    }
    assert added == [NO_IAM, NO_CHAINING, NO_DELETE]


def test_a_single_statement_may_stand_without_a_list():
    source = {"Version": "2012-10-17", "Id": "x", "Statement": {**NO_DELETE, "Effect": "Allow"}}
    role = replace(READER, session_policy=PolicyTemplate.parse(source), parameters={})
    assert statements(scoped(role)) == [source["Statement"], NO_CHAINING]


def test_the_names_of_added_statements_cannot_collide_with_the_roles_own():
    own = {**NO_DELETE, "Sid": "Mine", "Effect": "Allow"}
    source = {"Version": "2012-10-17", "Statement": [own]}
    role = replace(READER, session_policy=PolicyTemplate.parse(source), parameters={})
    made = scoped(role, restrict=({**NO_DELETE, "Sid": "Mine"},))
    assert statements(made) == [own, NO_CHAINING, NO_DELETE]


def test_an_unscoped_role_keeps_its_rights_beside_the_denials():
    assert statements(scoped(ADMIN)) == [EVERYTHING, NO_CHAINING]
    made = scoped(ADMIN, restrict=(NO_DELETE,), organization=Organization(deny=(NO_IAM,)))
    assert statements(made) == [EVERYTHING, NO_IAM, NO_CHAINING, NO_DELETE]


def test_an_unscoped_role_that_may_chain_has_no_session_policy_unless_something_is_denied():
    role = replace(ADMIN, may_chain=True)
    made = scoped(role)
    assert made.call.policy is None
    assert made.policy_sha256 is None
    assert statements(scoped(role, restrict=(NO_DELETE,))) == [EVERYTHING, NO_DELETE]


def test_managed_policies_alone_get_denials_alone():
    """Several session policies are OR-ed: an Allow beside them would widen what they leave."""
    arns = ("arn:aws:iam::aws:policy/ReadOnlyAccess",)
    role = replace(ADMIN, unscoped=False, managed_policies=arns)
    made = scoped(role, organization=Organization(deny=(NO_IAM,)))
    assert made.call.policy_arns == arns
    assert statements(made) == [NO_IAM, NO_CHAINING]
    assert scoped(replace(role, may_chain=True)).call.policy is None


def test_a_role_that_may_chain_is_not_kept_from_it():
    assert NO_CHAINING not in statements(scoped(replace(READER, may_chain=True)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "Role data-reader needs parameter bucket: --set bucket=…"),
        ({"bucket": "secrets"}, "Parameter bucket is not one of reports, logs."),
        ({"bucket": "reports", "prefix": "a/b"}, "Parameter prefix does not match"),
        ({"bucket": "reports", "prefix": ""}, "Parameter prefix is empty"),
        ({"bucket": "reports", "prefix": "*"}, "Parameter prefix may hold letters"),
        ({"bucket": "reports", "prefix": "${aws:userid}"}, "Parameter prefix may hold letters"),
        (
            {"bucket": "reports", "size": "1", "colour": "red"},
            "Role data-reader has no parameter colour; it has: bucket, prefix.",
        ),
    ],
)
def test_parameters_that_are_not_the_roles(parameters, message):
    with pytest.raises(InvalidRequest) as caught:
        scoped(parameters=parameters)
    assert caught.value.detail.startswith(message)


def test_a_role_without_parameters_takes_none():
    with pytest.raises(InvalidRequest) as caught:
        scoped(ADMIN, parameters={"bucket": "logs"})
    assert caught.value.detail == "Role admin has no parameter bucket; it has: none."


def test_a_parameters_pattern_may_let_slashes_through():
    wide = replace(READER.parameters["prefix"], pattern="[a-z/]+")
    role = replace(READER, parameters={**READER.parameters, "prefix": wide})
    policy = scoped(role, parameters={"bucket": "logs", "prefix": "a/b"}).call.policy
    assert policy is not None
    assert "arn:aws:s3:::logs/a/b/*" in policy


def test_a_value_that_the_login_lacks_denies():
    with pytest.raises(NotEntitled, match="login's team, which has no value"):
        scoped(who=person(claims={}))
    with pytest.raises(NotEntitled, match="login's team, which holds one of"):
        scoped(who=person(claims={"team": "a*"}))
    with pytest.raises(NotEntitled, match="login's team, which holds a character that AWS"):
        scoped(who=person(claims={"team": "a!"}))
    with pytest.raises(NotEntitled, match="login's team, which is empty"):
        scoped(who=person(claims={"team": ""}))
    own = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::x/{{principal.email}}/*"}
    source = {"Version": "2012-10-17", "Statement": [own]}
    role = replace(READER, session_policy=PolicyTemplate.parse(source), parameters={})
    with pytest.raises(NotEntitled, match="login's email, which has no value"):
        scoped(role, who=person(email=None))
    with pytest.raises(NotEntitled, match="login's email, which holds / or :"):
        scoped(role, who=person(email="a/b@example.com"))
    assert "arn:aws:s3:::x/ada@example.com/*" in str(statements(scoped(role)))


def test_a_caller_never_sets_what_the_login_says():
    """A parameter cannot be named so: names with a dot are the broker's own."""
    with pytest.raises(InvalidRequest):
        CredentialRequest.parse(
            {"role": "data-reader", "parameters": {"principal.claims.team": "admin"}}
        )


def test_tags_made_of_values():
    tags = {key: TextTemplate.parse(text) for key, text in _TAGS.items()}
    role = replace(READER, tags=tags, transitive_tags=())
    made = scoped(role, who=person(handle="Ada Æ", claims={"team": "a/b"}))
    assert dict(made.call.tags) == {
        "who": "Ada Æ p-aaaabbbbccccdddd",
        "what": "reports",
        "team": "a/b",
        "none": "",
        "broker:issuance": ISSUANCE,
    }
    assert made.call.transitive_tag_keys == ("broker:issuance",)


_TAGS = {
    "who": "{{principal.handle}} {{principal.id}}",
    "what": "{{bucket}}",
    "team": "{{principal.claims.team}}",
    "none": "",
}


def test_a_tag_that_aws_would_refuse():
    role = replace(READER, tags={"team": TextTemplate.parse("{{principal.claims.team}}")})
    scoped(role, who=person(claims={"team": "x" * 256}))
    with pytest.raises(ScopeTooLarge) as refused:
        scoped(role, who=person(claims={"team": "x" * 257}))
    assert refused.value.detail == "Tag team has 257 characters; AWS takes 256."
    assert refused.value.extra == {"characters": 257, "maximum": 256}
    prefix = replace(READER.parameters["prefix"], pattern="[a-z,]+")
    role = replace(
        READER,
        parameters={**READER.parameters, "prefix": prefix},
        tags={"p": TextTemplate.parse("{{prefix}}")},
    )
    with pytest.raises(InvalidRequest, match="Parameter prefix holds a character that AWS takes"):
        scoped(role, parameters={"bucket": "logs", "prefix": "a,b"})


def test_of_a_tag_with_a_wrong_character_the_parameter_is_blamed_before_the_login():
    """Whoever asks can change that."""
    wide = replace(READER.parameters["prefix"], pattern="[a-z,]+")
    role = replace(READER, parameters={**READER.parameters, "zone": wide})
    said = " holds a character that AWS takes in no tag."
    for text in ("{{principal.id}} {{zone}}", "{{zone}} {{principal.id}}"):
        tagged = replace(role, tags={"p": TextTemplate.parse(text)})
        with pytest.raises(InvalidRequest) as caught:
            scoped(tagged, parameters={"bucket": "logs", "zone": "a,b"})
        assert caught.value.detail == "Parameter zone" + said
    of_login = replace(role, tags={"p": TextTemplate.parse("{{principal.claims.team}}")})
    with pytest.raises(NotEntitled) as denied:
        scoped(of_login, who=person(claims={"team": "a,b"}))
    assert denied.value.detail == (
        "This role's scope is made of your login's team, "
        "which holds a character that AWS takes in no tag."
    )


def padded(characters: int) -> tuple[Mapping[str, object], ...]:
    """Deny statements that make the whole policy exactly this long."""
    bare = scoped(restrict=({**NO_DELETE, "Resource": "arn:aws:s3:::"},))
    assert bare.call.policy is not None
    missing = characters - len(bare.call.policy)
    return ({**NO_DELETE, "Resource": "arn:aws:s3:::" + "x" * missing},)


def test_the_session_policys_size_at_its_edge():
    made = scoped(restrict=padded(2048))
    assert made.call.policy is not None
    assert len(made.call.policy) == 2048
    said = "The session policy has 2049 characters; AWS takes 2048: {}."
    with pytest.raises(ScopeTooLarge) as refused:
        scoped(restrict=padded(2049))
    assert refused.value.extra == {"characters": 2049, "maximum": 2048}
    assert refused.value.detail == said.format("shorten --restrict")
    with pytest.raises(ScopeTooLarge) as refused:
        scoped(organization=Organization(deny=padded(2049)))
    assert refused.value.detail == said.format("ask an admin for a narrower role, or fewer values")
    # Managed policies count with it.
    arns = ("arn:aws:iam::aws:policy/ReadOnlyAccess",)
    with pytest.raises(ScopeTooLarge):
        scoped(replace(READER, managed_policies=arns), restrict=padded(2048))


def test_characters_beyond_those_that_sts_takes_are_escaped():
    statement = {**NO_DELETE, "Resource": "arn:aws:s3:::世界"}
    policy_text = scoped(restrict=(statement,)).call.policy
    assert policy_text is not None
    assert policy_text.isascii()
    assert json.loads(policy_text)["Statement"][-1] == statement


def test_a_duration_that_is_too_short_is_told_before_anything_else():
    with pytest.raises(DurationTooShort):
        scoped(session_left=600)


def test_an_issuance_id_that_could_be_guessed_is_a_fault_of_the_caller():
    said = r"^an issuance id is 20 to 40 letters, digits, - and _$"
    for bad in ("", "1", "a b" * 8, "x" * 41):
        with pytest.raises(ValueError, match=said):
            scope(
                Allowed(READER, _any_entry(), Ceiling()),
                context(),
                CredentialRequest("data-reader"),
                issuance_id=bad,
                organization=Organization(),
                chained=False,
                now=NOW,
            )


def _any_entry() -> Entitlement:
    return Entitlement("x", Group("corp/x"), Mode.STANDING, None, Conditions(), 1)


@given(handle=st.text(max_size=80))
def test_session_names_are_legal_whatever_people_are_called(handle):
    name = session_name(handle, ISSUANCE)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", name)
    assert name.endswith(f"-{ISSUANCE}")
    assert session_name(handle, "iss-" + "b" * 26) != name


def test_session_names_are_readable_and_as_long_as_aws_takes():
    assert session_name("Ada Æ", ISSUANCE) == f"Ada---{ISSUANCE}"
    assert session_name("x" * 80, ISSUANCE) == f"{'x' * 33}-{ISSUANCE}"


_PARAMETERS = st.dictionaries(
    st.sampled_from(["bucket", "prefix"]), st.text(max_size=6) | st.sampled_from(["logs", "a-1"])
)


@given(parameters=_PARAMETERS)
def test_no_parameter_reaches_beyond_the_roles_resource(parameters):
    try:
        made = scoped(parameters=parameters)
    except InvalidRequest:
        return
    own, *added = statements(made)
    assert added == [NO_CHAINING]
    assert isinstance(own, dict)
    resource = own.pop("Resource")
    assert re.fullmatch(r"arn:aws:s3:::(reports|logs)/[a-z0-9-]{1,40}/\*", resource)
    assert own == {"Effect": "Allow", "Action": ["s3:GetObject"]}


HUB, SECOND, THIRD = (f"arn:aws:iam::999988887777:role/{name}" for name in ("Hub", "2nd", "3rd"))
GOING_ON = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]


@pytest.mark.parametrize("via", [(HUB,), (HUB, SECOND), (HUB, SECOND, THIRD)])
def test_hops_set_identity_and_transitive_tags_once_and_may_only_go_on(via):
    role = replace(READER, via=via, tags={**READER.tags, "kind": TextTemplate.parse("x")})
    made = scoped(role, duration=7200)
    path = (*via, role.role_arn)
    assert tuple(call.role_arn for call in made.calls) == path
    for place, hop in enumerate(made.hops):
        assert (hop.partition, hop.region) == ("aws", "eu-west-1")
        assert hop.role_session_name == made.call.role_session_name
        assert hop.duration_seconds == 900
        assert hop.external_id is None
        assert hop.policy_arns == ()
        assert json.loads(hop.policy or "") == {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": GOING_ON, "Resource": path[place + 1]}],
        }
    first, *later = made.calls
    assert first.source_identity == made.source_identity == "p-aaaabbbbccccdddd"
    assert first.after is None
    assert first.tags == (("team", "web"), ("broker:issuance", ISSUANCE))
    assert first.transitive_tag_keys == ("team", "broker:issuance")
    for place, call in enumerate(later):
        assert call.source_identity is None
        assert call.transitive_tag_keys == ()
        assert call.after is not None
        assert (call.after.role_arn, call.after.source_identity) == (
            path[place],
            "p-aaaabbbbccccdddd",
        )
        assert call.tags == ((("kind", "x"),) if call is made.call else ())
    # The last is what it would be without hops, but for what the session carries on already.
    assert made.call.policy == scoped(role).call.policy
    assert made.call.external_id == "e-4711"
    assert (made.call.duration_seconds, made.duration.bound_by) == (3600, "role_chaining")
    assert made.duration.chained


def test_an_external_id_that_was_not_filled_in_stops_the_call():
    unfilled = r"^the role's external id was not filled in from the store$"
    with pytest.raises(ValueError, match=unfilled):
        scoped(replace(READER, external_id=None, generates_external_id=True))
    filled = scoped(replace(READER, external_id="e-generated", generates_external_id=True))
    assert filled.call.external_id == "e-generated"
