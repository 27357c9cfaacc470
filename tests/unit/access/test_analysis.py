"""Parliament's findings at their places in the file, and lint where it can't be used."""

from __future__ import annotations

import sys
import time
import warnings

import pytest

from broker.access.analysis import MAX_STATEMENTS, Advice, AnalysisUnavailable
from broker.access.finding import Finding, Level
from broker.access.lint import lint_policy
from broker.adapters import parliament
from tests.unit.access.examples import FILE, PROVIDERS


def findings(text: str) -> list[Finding]:
    found = lint_policy(text, PROVIDERS, parliament.analyse)
    assert all(finding.level is Level.WARNING for finding in found), found
    return [finding for finding in found if "parliament" in finding.message]


def test_a_sound_template_has_none():
    assert findings(FILE) == []


@pytest.mark.parametrize(
    ("old", "new", "marked", "message"),
    [
        ('["s3:GetObject"]', '["s3:GetObject", "s3:GetObjct"]', '"s3:GetObjct"', "unknown action"),
        ('Action: ["s3:GetObject"]', 'Action: "s3:GetObjct"', "Action", "unknown action"),
        ('["s3:GetObject"]', '["nosuch:Get"]', '"nosuch:Get"', "unknown prefix"),
        ("s3:::{{bucket}}/{{prefix}}/*", "s3:::{{bucket}}", "Resource", "resource mismatch"),
        (
            '/{{prefix}}/*"}',
            '/{{prefix}}/*", Condition: {StringEquals: {"s3:no": x}}}',
            "Condition",
            "unknown condition for action",
        ),
    ],
)
def test_a_finding_stands_at_what_it_is_about(old, new, marked, message):
    assert old in FILE
    text = FILE.replace(old, new)
    # The prefix has to stay used.
    text = text.replace('tags: {team: "', 'tags: {p: "{{prefix}}", team: "')
    found = [one for one in findings(text) if message in one.message]
    assert found, findings(text)
    line = text.splitlines()[found[0].line - 1]
    assert line[found[0].column - 1 :].startswith(marked)
    assert found[0].path.startswith("roles.data-reader.session_policy.Statement[0]")


def test_placeholders_are_analysed_as_admissible_values():
    seen: list[str] = []

    def analyse(policy: str) -> tuple[Advice, ...]:
        seen.append(policy)
        return ()

    patterned = FILE.replace(", default: public", "").replace("[a-z0-9-]{1,40}", "[0-9]{8}")
    lint_policy(patterned, PROVIDERS, analyse)
    assert "arn:aws:s3:::reports/12345678/*" in seen[0]
    assert "{{" not in seen[0]


@pytest.mark.parametrize("stop", ["absent", "broken"])
def test_without_it_the_file_is_judged_and_it_says_so(stop, monkeypatch):
    parliament.analyse.cache_clear()
    if stop == "absent":
        monkeypatch.setitem(sys.modules, "parliament", None)
    else:
        monkeypatch.setattr("parliament.analyze_policy_string", lambda policy: 1 / 0)
    found = lint_policy(FILE, PROVIDERS, parliament.analyse)
    parliament.analyse.cache_clear()
    assert {finding.level for finding in found} == {Level.WARNING}
    (said,) = (finding for finding in found if "parliament" in finding.message)
    assert "were not analysed by parliament: " in said.message
    assert {"absent": "ModuleNotFoundError", "broken": "ZeroDivisionError"}[stop] in said.message
    assert "install" in said.instead
    # All else was judged.
    assert any("gives all that its AWS role may do" in finding.message for finding in found)


def test_an_error_is_told_without_asking_it():
    def analyse(policy: str) -> tuple[Advice, ...]:
        raise AnalysisUnavailable("never")

    (finding,) = lint_policy(FILE.replace("version: 1", "version: 2"), PROVIDERS, analyse)
    assert finding.level is Level.ERROR


def test_hostile_globs_take_no_time():
    stars = "s3:" + "*a" * 60 + "b"
    text = FILE.replace('["s3:GetObject"]', f'["{stars}", "s3:GetObject"]')
    began = time.process_time()
    (found,) = findings(text)
    assert time.process_time() - began < 2
    assert "too many wildcards" in found.message


def test_only_so_many_statements_are_analysed():
    asked: list[str] = []

    def analyse(policy: str) -> tuple[Advice, ...]:
        asked.append(policy)
        return ()

    role = (
        '  r{0}: {{account: prod, role_arn: "arn:aws:iam::111122223333:role/R{0}", session_policy: '
        '{{Version: "2012-10-17", Statement: [{{Effect: Allow, Action: "s3:GetObject", '
        'Resource: "*"}}]}}}}\n'
    )
    roles = "".join(role.format(number) for number in range(MAX_STATEMENTS + 5))
    found = lint_policy(FILE.replace("  admin: {acc", f"{roles}  admin: {{acc"), PROVIDERS, analyse)
    assert len(asked) == MAX_STATEMENTS
    assert found


def test_its_import_warns_of_nothing():
    for name in [name for name in sys.modules if name.partition(".")[0] == "parliament"]:
        del sys.modules[name]
    parliament.analyse.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        findings(FILE)
    assert [str(one.message) for one in caught] == []
