import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access.template import (
    PolicyTemplate,
    TemplateRefused,
    TextTemplate,
    ValueRefused,
    value_problem,
)

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:List*"],
            "Resource": ["arn:aws:s3:::{{bucket}}", "arn:aws:s3:::{{bucket}}/{{prefix}}/*"],
            "Condition": {
                "StringLike": {"s3:prefix": ["{{prefix}}/*", "fixed"]},
                "StringEquals": {"aws:PrincipalTag/owner": "{{principal.handle}}"},
                "NumericLessThan": {"s3:max-keys": 10},
                "Bool": {"aws:SecureTransport": True},
            },
        },
        {"Effect": "Deny", "NotAction": "s3:*", "NotResource": "arn:aws:s3:::{{bucket}}"},
    ],
}
TEMPLATE = PolicyTemplate.parse(POLICY)
GOOD = {"bucket": "reports", "prefix": "public", "principal.handle": "ada@example.com"}


def test_placeholders_are_filled_in_leaves_alone():
    rendered = TEMPLATE.render(GOOD)
    text = json.dumps(POLICY)
    for name, value in GOOD.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    assert rendered == json.loads(text)


def test_the_template_is_not_changed_by_rendering():
    before = json.dumps(TEMPLATE.source)
    TEMPLATE.render(GOOD)["Statement"].clear()  # type: ignore[attr-defined]
    assert json.dumps(TEMPLATE.source) == before
    assert TEMPLATE.render(GOOD)["Statement"]


def skeleton(node: object) -> object:
    """The tree with every string leaf that may be filled replaced by its kind."""
    if isinstance(node, dict):
        return {key: skeleton(child) for key, child in node.items()}
    if isinstance(node, list):
        return [skeleton(child) for child in node]
    return type(node).__name__


def render(values: dict[str, str]) -> object:
    try:
        return TEMPLATE.render(values)
    except ValueRefused as refused:
        return refused


# Half plain enough to be accepted often, half anything at all.
_TEXT = st.text(max_size=12) | st.text(
    alphabet=string.ascii_letters + string.digits + "-_./:@=+, *?${}\"'\\\n\0", max_size=12
)


@settings(max_examples=10_000, deadline=None)
@given(name=st.sampled_from(sorted(GOOD)), value=_TEXT)
def test_no_value_changes_the_policy_but_in_its_leaves(name, value):
    values = {**GOOD, name: value}
    bucket, prefix, handle = (values[key] for key in ("bucket", "prefix", "principal.handle"))
    rendered = render(values)
    if value_problem(value) or (name == "principal.handle" and set(value) & set("/:")):
        assert isinstance(rendered, ValueRefused)
        assert rendered.name == name
        return
    # As STS sees it: serialised and read again.
    seen = json.loads(json.dumps(rendered))
    assert skeleton(seen) == skeleton(POLICY)
    first, second = seen["Statement"]
    assert first["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{prefix}/*"]
    assert first["Condition"]["StringLike"]["s3:prefix"] == [f"{prefix}/*", "fixed"]
    assert first["Condition"]["StringEquals"] == {"aws:PrincipalTag/owner": handle}
    assert second["NotResource"] == f"arn:aws:s3:::{bucket}"
    untouched = {key: first[key] for key in ("Sid", "Effect", "Action")}
    assert untouched == {key: POLICY["Statement"][0][key] for key in untouched}  # type: ignore[index]
    assert value
    assert value.isprintable()
    assert not set(value) & set("*?${}\"'\\")


@pytest.mark.parametrize(
    "value",
    [
        *["", "*", "a?b", "${aws:userid}", "$", "{x", "x}", 'a"b', "a'b", "a`b", "a\\b", "a\nb"],
        *["a\0b", "a\u202eb", "a\u2028b", "a\x7fb", "\ud800", "a\u200bb", "\u00a0"],
    ],
)
def test_values_with_a_meaning_of_their_own_are_refused(value):
    with pytest.raises(ValueRefused) as refused:
        TEMPLATE.render({**GOOD, "bucket": value})
    assert refused.value.name == "bucket"
    assert not refused.value.missing
    assert refused.value.problem == value_problem(value)
    assert str(refused.value) == f"bucket {value_problem(value)}"
    if len(value) > 1:
        assert value not in str(refused.value)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_value_denies(name):
    values = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(ValueRefused) as refused:
        TEMPLATE.render(values)
    assert refused.value.name == name
    assert refused.value.missing
    assert str(refused.value) == f"{name} has no value"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is empty"),
        ("a*", "holds one of * ? $ { } quotes or backslash"),
        ("a`b", "holds one of * ? $ { } quotes or backslash"),
        ("a\nb", "holds a control or unprintable character"),
        ("a/b: c", None),
    ],
)
def test_what_a_value_may_not_hold(value, problem):
    assert value_problem(value) == problem


def test_what_a_person_can_set_at_their_provider_never_spans_parts_of_an_arn():
    for value in ("other/secret", "x:y"):
        with pytest.raises(ValueRefused) as refused:
            TEMPLATE.render({**GOOD, "principal.handle": value})
        assert not refused.value.missing
        assert str(refused.value) == (
            "principal.handle holds / or :, which may not stand in a session policy"
        )
        assert TEMPLATE.render({**GOOD, "prefix": value})


def _statement(**changes: object) -> dict[str, object]:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::x"}
    return {"Version": "2012-10-17", "Statement": {**statement, **changes}}


@pytest.mark.parametrize(
    ("document", "path", "message", "instead"),
    [
        (
            _statement(Action="s3:{{x}}"),
            ("Statement", "Action"),
            "a placeholder outside of Resource, NotResource and Condition values",
            "write the text itself, or one role for each case",
        ),
        (
            _statement(Effect="{{x}}"),
            ("Statement", "Effect"),
            "a placeholder outside of Resource, NotResource and Condition values",
            "write the text itself, or one role for each case",
        ),
        (
            _statement(Sid="{{x}}"),
            ("Statement", "Sid"),
            "a placeholder outside of Resource, NotResource and Condition values",
            "write the text itself, or one role for each case",
        ),
        (
            _statement(Condition={"StringEquals": {"aws:PrincipalTag/{{x}}": "y"}}),
            ("Statement", "Condition", "StringEquals", "aws:PrincipalTag/{{x}}"),
            "a placeholder in a key",
            "put it in a Resource or Condition value",
        ),
        (
            _statement(Resource="arn:aws:s3:::${{{x}}}"),
            ("Statement", "Resource"),
            "'arn:aws:s3:::${{{x}}}' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
        (
            _statement(Resource="arn:aws:s3:::${aws:PrincipalTag/{{x}}}"),
            ("Statement", "Resource"),
            "'arn:aws:s3:::${aws:PrincipalTag/{{x}}}' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
        (
            _statement(Resource=["a", "arn:aws:s3:::{{x y}}"]),
            ("Statement", "Resource", 1),
            "'arn:aws:s3:::{{x y}}' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
        (
            _statement(Resource="{{x"),
            ("Statement", "Resource"),
            "'{{x' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
        (
            _statement(Resource="x}}"),
            ("Statement", "Resource"),
            "'x}}' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
        (
            _statement(Resource="{{}}"),
            ("Statement", "Resource"),
            "'{{}}' holds braces that are no placeholder",
            "write {{name}}, apart from any ${...}",
        ),
    ],
)
def test_placeholders_where_none_may_stand_are_refused(document, path, message, instead):
    with pytest.raises(TemplateRefused) as refused:
        PolicyTemplate.parse(document)
    assert refused.value.fault.path == path
    assert (refused.value.fault.message, refused.value.fault.instead) == (message, instead)
    assert str(refused.value) == f"{message}; {instead}"


def test_policy_variables_of_iam_stay_as_they_are():
    document = _statement(Resource="arn:aws:s3:::{{x}}/${aws:PrincipalTag/team}/{{ x }}")
    rendered = PolicyTemplate.parse(document).render({"x": "a"})
    assert rendered["Statement"]["Resource"] == "arn:aws:s3:::a/${aws:PrincipalTag/team}/a"  # type: ignore[index]


def test_a_text_template():
    template = TextTemplate.parse("team-{{principal.claims.team}}-{{x}}")
    assert template.placeholders == {"principal.claims.team", "x"}
    assert template.render({"principal.claims.team": "a/b", "x": "1"}) == "team-a/b-1"
    with pytest.raises(ValueRefused):
        template.render({"principal.claims.team": "a"})
    assert TextTemplate.parse("").render({}) == ""
