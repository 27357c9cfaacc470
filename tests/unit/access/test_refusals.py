"""What refuses an access policy file: every finding with its place, its fault and its cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.access.document import MAX_FINDINGS
from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from tests.unit.access.examples import FILE, PROVIDERS, policy

# One change in FILE, or a whole file, and all that is said of it.
REFUSED: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("refusals.yaml").read_text("utf-8")
)


def refusal(text: str, providers: frozenset[str] = PROVIDERS) -> PolicyRefused:
    with pytest.raises(PolicyRefused) as refused:
        parse_policy(text, providers=providers)
    return refused.value


def changed(old: str, new: str) -> str:
    assert old in FILE
    return FILE.replace(old, new, 1)


@pytest.mark.parametrize("case", REFUSED, ids=[one["says"][0] for one in REFUSED])
def test_every_refusal_names_place_fault_and_cure(case):
    text = case.get("file") or changed(case["change"], case["to"])
    assert str(refusal(text)).splitlines() == case["says"]


def test_all_findings_come_at_once_in_the_files_order():
    text = FILE.replace("version: 1", "version: 2").replace(": 4h", ": 4x").replace(": 24h", ": x")
    text = text.replace("{group: sre}", "{group: other/sre}").replace("reason: true}", "why: true}")
    assert [finding.line for finding in refusal(text).findings] == [1, 13, 15, 24, 25]


def test_a_finding_as_the_api_answers_it():
    (finding,) = refusal(changed("version: 1", "version: 2")).findings
    assert finding.as_json() == {
        "level": "error",
        "line": 1,
        "column": 10,
        "path": "version",
        "message": "this broker reads version 1",
        "instead": "write version: 1",
    }


@pytest.mark.parametrize(
    ("providers", "said"),
    [
        (frozenset(), "group 'audit': no provider is configured; configure [[oidc]] first"),
        (frozenset(), "group 'corp/platform': no provider is configured; configure [[oidc]] first"),
        (
            frozenset({"lab", "corp"}),
            "group 'audit' is ambiguous with 2 providers; write corp/audit or lab/audit",
        ),
        (
            frozenset({"lab", "hq"}),
            (
                "group 'corp/platform' begins with no configured provider (hq, lab); "
                "write hq/corp/platform, or configure that provider"
            ),
        ),
        (
            frozenset({"lab", "corp"}),
            (
                "user 'Grace@example.com' is ambiguous with 2 providers; "
                "write corp/Grace@example.com or lab/Grace@example.com"
            ),
        ),
    ],
)
def test_a_bare_name_means_the_one_provider_there_is(providers, said):
    found = [f"{one.message}; {one.instead}" for one in refusal(FILE, providers).findings]
    assert said in found


def test_an_unqualified_name_is_repeated_in_part():
    name = "x" * 200
    shown = repr(name[:80])
    text = f"version: 1\nadmins: [{{group: {name}}}]"
    assert str(refusal(text, frozenset())) == (
        f"line 2, column 18 (admins[0].group): group {shown}: no provider is configured; "
        "configure [[oidc]] first"
    )
    assert str(refusal(text, frozenset({"a", "b"}))) == (
        f"line 2, column 18 (admins[0].group): group {shown} is ambiguous with 2 providers; "
        f"write a/{name[:80]} or b/{name[:80]}"
    )


def test_one_more_than_the_limit_of_tags_says_the_limit():
    tags = _numbered("t{}: x", 49)
    (finding,) = refusal(changed('team: "{{', f'{tags}, team: "{{{{')).findings
    assert str(finding) == (
        "line 19, column 11 (roles.data-reader.tags): there are 50 tags; write at most 49"
    )


ARN = "arn:aws:iam::999988887777"


def _numbered(text: str, count: int) -> str:
    return ", ".join(text.format(number) for number in range(count))


# A limit: what is changed to what, at most that many, and what is said of one more.
LIMITS: list[tuple[str, Any, int, str]] = [
    (
        "[{group: corp/platform}]",
        lambda n: f"[{_numbered('{{group: corp/g{}}}', n)}]",
        1000,
        "there are 1001 entries; write 1000 at most, and groups for the rest",
    ),
    (
        "[{group: corp/platform}]",
        lambda n: f"[{{group: {'g' * n}}}]",
        256,
        "this is no name of a group; write group: corp/sre",
    ),
    (
        "    external_id",
        lambda n: f"    via: [{_numbered(f'{ARN}:role/Hub{{}}', n)}]\n    external_id",
        3,
        "there are 4 hops; write 3 at most",
    ),
    (
        "managed_policies: []",
        lambda n: f"managed_policies: [{_numbered('arn:aws:iam::aws:policy/P{}', n)}]",
        10,
        "there are 11 managed policies; AWS takes 10 at most",
    ),
    ('team: "{{', lambda n: f'{_numbered("t{}: x", n - 1)}, team: "{{{{', 49, "there are 50 tags"),
    ('team: "{{', lambda n: f'{"t" * n}: x, team: "{{{{', 128, "is no key of a tag"),
    ('team: "{{', lambda n: f't: {"x" * n}, team: "{{{{', 256, "the value of tag t is none that"),
    ("[reports, logs]", lambda n: f"[reports, {'x' * n}]", 256, "the value is longer than 256"),
    (
        "[a-z0-9-]{1,40}",
        lambda n: f"public{'a?' * 125}{'b' * (n - 256)}",
        256,
        "the pattern is longer than 256 characters; write a shorter one",
    ),
    (
        '"Mon-Fri 08:00-20:00 Europe/Berlin"',
        lambda n: f"[{_numbered('Mon 08:{:02}-20:00 UTC', n)}]",
        32,
        "there are 33 windows; write at most 32",
    ),
    (
        "sre}, mode: standing}",
        lambda n: f"sre}}, mode: on_request, approval: {{from: {{group: x}}, quorum: {n}}}}}",
        5,
        "quorum is 1 to 5; write quorum: 1",
    ),
    (
        "sre}, mode: standing}",
        lambda n: f"sre}}, mode: standing, max_duration: {n}}}",
        3600,
        "max_duration is longer than the 3600 s of role admin",
    ),
    ("  admin: {", lambda n: f"  {'a' * n}: {{{COPY}}}\n  admin: {{", 64, "is no name of a role"),
    ("mfa_within: 8h", lambda n: f"mfa_within: {n}", 2592000, "mfa_within is 2592001 s, outside"),
    ("max_grant: 24h", lambda n: f"max_grant: {n}", 31622400, "max_grant is 31622401 s, outside"),
]
COPY = 'account: test, role_arn: "arn:aws:iam::444455556666:role/Copy", unscoped: true'


@pytest.mark.parametrize(("old", "new", "most", "said"), LIMITS)
def test_a_limit_is_at_most_and_not_below(old, new, most, said):
    assert policy(changed(old, new(most))).roles
    (finding,) = refusal(changed(old, new(most + 1))).findings
    assert said in f"{finding.message}; {finding.instead}"


LONG = "x" * 200


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("  test:", '  LONG: {id: "777788889999"}\n  test:', [80]),
        ("  test:", "  LONG: 1\n  LONG: 1\n  test:", [80, 80]),
        ("partition: aws}", "partition: LONG}", [80]),
        ("region: eu-west-1", "region: LONG", [80]),
        ("revocable: true", "LONG: true", [80]),
        ("revocable: true", "revocable: 1LONG".replace("LONG", "1" * 199), [80, 80]),
        ("[{group: corp/platform}]", "[{workload: LONG}]", [80]),
        ("[{group: corp/platform}]", "[{user: LONG}]", [80]),
        ("[{group: corp/platform}]", "[{group: LONG/}]", [80]),
        ("[{group: corp/platform}]", "[{group: LONG/x}]", [80, 80]),
        ("[{group: corp/platform}]", "[{group: corp/a, accounts: [LONG]}]", [80]),
        ("  admin: {", "  LONG: {}\n  admin: {", [80, 80]),
        ("account: prod\n", "account: LONG\n", [80]),
        ("arn:aws:iam::111122223333:role/service/DataReader", "LONG", [80]),
        ("managed_policies: []", "managed_policies: [LONG]", [80]),
        ('team: "{{', '"LONG!": x, team: "{{', [80]),
        ('team: "{{', '"aws:LONG": x, team: "{{', [76, 76]),
        ('team: "{{', f'LONG: x, {LONG.upper()}: x, team: "{{{{', [80, 80, 80, 80]),
        ('team: "{{', 'a: "{{LONG", team: "{{', [78]),
        ("transitive_tags: [team]", "transitive_tags: [LONG]", [80]),
        ("{{bucket}}", "{{LONG}}", [80]),
        ("bucket: {allowed", "LONG: {pattern: x}, bucket: {allowed", [80, 80, 80]),
        ("bucket: {allowed", "LONG: {}, bucket: {allowed", [80, 80, 80, 80]),
        ("[reports, logs]", "[LONG, LONG]", [80]),
        ("{role: admin, to", "{role: LONG, to", [80]),
        ("sre}, mode: standing}", "sre}, mode: LONG}", [80]),
        ("10.0.0.0/8", "LONG", [80]),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "LONG", [80]),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "LONG 08:00-20:00 UTC", [40]),
        ("[prod, ", "[LONG, ", [80]),
        ("s3:GetObject", "LONG", [79]),
    ],
)
def test_a_long_word_is_repeated_in_part(old, new, shown):
    findings = refusal(changed(old, new.replace("LONG", LONG))).findings
    told = " ".join(f"{finding.message}; {finding.instead}" for finding in findings)
    assert [len(word) for word in re.findall("[xX1]{20,}", told)] == shown


DEEP = "nested deeper than 24 levels; write it flatter"
OBJECT = "version: 1, accounts: ..., roles: ..., entitlements: ..."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: the file is empty; begin with version: 1"),
        ("# nothing", "line 2, column 1: the file is empty; begin with version: 1"),
        ("- a", f"line 1, column 1: here stands an object of keys and values; write {OBJECT}"),
        ("null", f"line 1, column 1: here stands an object of keys and values; write {OBJECT}"),
        ("a: " + "[" * 1000, f"line 1, column 28 (a{'[0]' * 24}): {DEEP}"),
        ("[" * 1_000_000, f"line 1, column 26 ({'[0]' * 25}): {DEEP}"),
        (
            "x" * (1024 * 1024 + 1),
            "line 1, column 1: the file has 1048577 bytes; keep it under 1048576",
        ),
        (
            "é" * (1024 * 512 + 1),
            "line 1, column 1: the file has 1048578 bytes; keep it under 1048576",
        ),
        (
            "a: b\nc: \ud800",
            "line 2, column 4: a lone surrogate is no character; leave it out",
        ),
        (
            "version: 1\nadmins: [" + "x, " * 300_000 + "]",
            "line 2, column 299995: more than 100000 values; write a smaller file",
        ),
        (
            '"\\UFFFFFFFF"',
            (
                "line 1, column 4: this is not YAML: found invalid Unicode character escape code; "
                "check indentation, brackets and quotes here"
            ),
        ),
    ],
)
def test_hostile_files_are_refused_quickly(text, said):
    assert str(refusal(text)) == said


def test_a_file_may_be_as_large_as_the_limit():
    filler = "#" * (1024 * 1024 - len("version: 1\n"))
    assert parse_policy(f"version: 1\n{filler}", providers=frozenset()).number == 0


def test_nesting_is_allowed_up_to_its_limit():
    deep = refusal("version: 1\na: " + "[" * 23 + "]" * 23)
    assert [one.message for one in deep.findings] == ["'a' is unknown here"]


def test_only_so_many_findings_are_told():
    wrong = "\n".join(f"key{number}: x" for number in range(MAX_FINDINGS + 20))
    found = refusal(f"version: 1\n{wrong}").findings
    assert len(found) == MAX_FINDINGS
    assert found[0].message == "'key0' is unknown here"


def test_a_billion_laughs_are_not_laughed():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    refused = refusal("\n".join(lines))
    assert str(refused) == (
        "line 1, column 4 (a): an anchor (&name); leave it out; no aliases are read"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '"\\UFFFFFFFF"',
            "line 1, column 1: an escape names no character; write the character itself",
        ),
        (
            "a: b\nc: \x00",
            (
                "line 2, column 4: a control character may not stand in the file; "
                "leave it out, or write it as an escape in double quotes"
            ),
        ),
    ],
)
def test_pyyamls_own_parser_refuses_as_clearly(text, said, monkeypatch):
    """Where PyYAML was built without libyaml."""
    monkeypatch.setattr("broker.access.document._LOADER", yaml.SafeLoader)
    assert str(refusal(text)) == said
