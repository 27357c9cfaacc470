"""access plan, apply, export and lint against the broker."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import CODE, POLICY, FakeBroker, Reply
from tests.cli.terminals import type_on_terminal

FINDING = {
    "level": "error",
    "line": 7,
    "column": 3,
    "path": "roles.x.tag",
    "message": "unknown key \x1b[31mtag",
    "instead": "tags",
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "access.yaml"
    path.write_text("version: 1\nroles: {}  # ü\n")
    return path


def puts(broker: FakeBroker) -> list[tuple[str, str | None]]:
    return [
        (request.query.get("dry_run", ""), request.headers.get("if-match"))
        for request in broker.seen
        if request.method == "PUT"
    ]


def test_plan_changes_nothing(cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path):
    done = cli("access", "plan", str(policy))
    assert done.code == 0
    assert "+  new: role" in done.out
    assert "roles added:\n    new" in done.out
    assert "roles removed" not in done.out
    assert puts(broker) == [("true", '"3"')]


def test_apply_sends_the_exact_bytes_and_the_version_it_was_planned_on(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    done = cli("access", "apply", str(policy), "--yes")
    assert done.code == 0
    assert "Applied as version 4" in done.err
    assert puts(broker) == [("true", '"3"'), ("", '"3"')]
    last = broker.last("/v1/access")
    assert last.body == policy.read_bytes()
    assert last.headers["content-type"] == "application/yaml"


def test_the_first_policy_is_applied_only_where_there_is_none(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    broker.policy_version = 0
    assert cli("access", "apply", str(policy), "--yes").code == 0
    assert broker.last("/v1/access").headers["if-none-match"] == "*"


def test_without_a_terminal_and_without_yes_nothing_is_even_planned(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    assert cli("access", "apply", str(policy)).code == 2
    assert cli("access", "apply", "-", stdin=b"version: 1").code == 2
    assert broker.seen == []
    assert cli("access", "apply", "-", "--yes", stdin=b"version: 1").code == 0


@pytest.mark.parametrize(("typed", "applied"), [(b"y\n", 1), (b"n\n", 0), (b"\n", 0), (b"yo\n", 0)])
def test_a_person_is_asked(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path, typed: bytes, applied: int
):
    code, _ = type_on_terminal(cli, ["access", "apply", str(policy)], [(b"[y/N] ", typed)])
    assert code == (0 if applied else 1)
    assert puts(broker).count(("", '"3"')) == applied


def test_a_stale_factor_is_asked_for_between(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    broker.needs_factor = "mfa_stale"
    typed = [(b"authenticator: ", f"{CODE}\n".encode()), (b"[y/N] ", b"yes\n")]
    code, shown = type_on_terminal(cli, ["access", "apply", str(policy)], typed)
    assert code == 0, shown
    assert broker.policy_version == 4


def test_no_difference_is_not_applied(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    policy.write_text(POLICY)
    broker.diff = []
    done = cli("access", "apply", str(policy), "--yes")
    assert done.code == 0
    assert "Nothing changes" in done.err
    assert puts(broker) == [("true", '"3"')]


def test_a_change_of_comments_alone_is_applied(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    """What is in force stays equal to the file in its repository."""
    broker.diff = []
    done = cli("access", "apply", str(policy), "--yes")
    assert done.code == 0
    assert "comments" in done.out
    assert broker.policy_version == 4


def test_a_version_that_moved_meanwhile_is_refused(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    broker.replies["/v1/access"] = lambda request: (
        Reply.of({"version": 2, "sha256": ""})
        if request.method == "GET"
        else broker._put_access(request)
    )
    done = cli("access", "apply", str(policy), "--yes")
    assert done.code == 1
    assert "precondition_failed" in done.err
    assert broker.policy_version == 3


def test_a_change_that_waits_for_four_eyes_is_told(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    def answer(request):
        if request.method == "GET":
            return Reply.of({"version": 3, "sha256": ""})
        if request.query.get("dry_run"):
            return Reply.of({"plan": {}, "diff": ["+x"], "warnings": []})
        return Reply.of({"change_id": "chg-7"}, 202)

    broker.replies["/v1/access"] = answer
    done = cli.inside("access", "apply", str(policy), "--yes")
    assert done.code == 0
    assert "chg-7" in done.err


def test_findings_name_the_place_and_what_to_write_instead(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    broker.replies["/v1/access"] = lambda request: (
        Reply.of({"version": 3, "sha256": ""})
        if request.method == "GET"
        else Reply.problem(422, "invalid_request", "The policy is refused.", findings=[FINDING])
    )
    done = cli.inside("access", "plan", str(policy))
    assert done.code == 1
    assert done.out == (f"{policy}:7:3: error: unknown key \\x1b[31mtag\n    instead: tags\n")
    assert "invalid_request" in done.err


def test_warnings_are_shown_and_stop_nothing(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    warning = {**FINDING, "level": "warning"}
    broker.replies["/v1/access"] = lambda request: (
        Reply.of({"version": 3, "sha256": ""})
        if request.method == "GET"
        else Reply.of({"plan": {}, "diff": ["+x"], "warnings": [warning], "version": 4})
    )
    done = cli.inside("access", "apply", str(policy), "--yes")
    assert done.code == 0
    assert ":7:3: warning: unknown key" in done.out


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (1024 * 1024 + 1)])
def test_a_file_that_can_not_be_sent_is_wrong_usage(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path, content: bytes | None
):
    path = tmp_path / "policy"
    if content is not None:
        path.write_bytes(content)
    done = cli.inside("access", "plan", str(path))
    assert done.code == 2
    assert str(path) in done.err
    assert broker.seen == []


def test_export_is_byte_for_byte(cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path):
    assert cli("access", "export").out == POLICY
    target = tmp_path / "out.yaml"
    assert cli("access", "export", str(target)).code == 0
    assert target.read_text() == POLICY
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_an_export_that_was_changed_on_the_way_is_refused(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    changed = {**broker._policy(), "text": "version: 2\n"}
    broker.replies["/v1/access"] = Reply.of(changed)
    done = cli("access", "export")
    assert (done.code, done.out) == (4, "")


def lint_by_broker(cli: Cli, path: Path) -> tuple[int, str]:
    """As without the server's packages: straight to the client."""
    code = (
        "import sys; from broker.cli.main import main;"
        f"sys.exit(main(['access', 'lint', {str(path)!r}], {{}}))"
    )
    done = subprocess.run(
        [cli.argv()[0], "-c", code],
        env=cli.environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.decode()


def test_lint_through_the_broker(cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path):
    assert lint_by_broker(cli, policy) == (0, f"{policy}: no errors\n")
    assert broker.last("/v1/access/lint").body == policy.read_bytes()
    broker.replies["/v1/access/lint"] = Reply.of({"findings": [FINDING]})
    code, out = lint_by_broker(cli, policy)
    assert code == 1
    assert f"{policy}:7:3: error: " in out


def test_enrol_code_and_mfa_reset(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    done = cli.inside("enrol-code", "corp/grace@example.com")
    assert (done.code, done.out) == (0, "ABCD-EFGH\n")
    assert "ABCD" not in done.err
    asked = broker.last("/v1/enrolment-codes").json()
    assert asked == {"provider": "corp", "email": "grace@example.com"}
    person = "p-abcdefghij234567"
    cli.inside("enrol-code", person)
    assert broker.last("/v1/enrolment-codes").json() == {"principal": person}
    path = f"/v1/users/{person}/mfa/reset"
    broker.replies[path] = Reply.of({"reset": True})
    assert cli.inside("mfa", "reset", person).code == 2  # nobody is there to confirm
    assert broker.count(path) == 0
    assert cli.inside("mfa", "reset", person, "--yes").code == 0
    assert broker.count(path) == 1


@pytest.mark.parametrize("person", ["grace@example.com", "corp/", "p-../../x", "corp/a@b/c", "p-1"])
def test_a_person_that_is_none_is_wrong_usage(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, person: str
):
    assert cli.inside("enrol-code", person).code == 2
    if "/" in person:  # what has none may be somebody's handle, which the broker knows
        assert cli.inside("mfa", "reset", person, "--yes").code == 2
    assert broker.seen == []


CHANGE = {
    "id": "chg-abc",
    "state": "pending",
    "base_version": 3,
    "outdated": False,
    "author": "p-1",
    "author_handle": "bob@example.com\x1b[2J",
    "gains": ["group corp/sre gains role admin"],
    "changes": [
        {"kind": "right", "change": "added", "name": "admin", "subject": "group corp/sre"},
        {
            "kind": "role",
            "change": "changed",
            "name": "x",
            "field": "tags",
            "before": "a",
            "after": "b",
        },
    ],
    "expires_at": "2026-12-01T00:00:00Z",
}


def waiting(broker: FakeBroker, **changes: object) -> None:
    whole = CHANGE | changes
    broker.replies["/v1/access/changes/chg-abc"] = lambda _: Reply.of(whole)
    broker.replies["/v1/access/changes/chg-abc/approve"] = lambda _: Reply.of({"version": 4})
    broker.replies["/v1/access/changes/chg-abc/withdraw"] = lambda _: Reply.of(
        whole | {"state": "withdrawn"}
    )


def test_waiting_changes_are_listed_page_by_page(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    def page(request):
        if "after" in request.query:
            return Reply.of({"changes": [CHANGE | {"id": "chg-old"}], "next": None})
        return Reply.of({"changes": [CHANGE | {"outdated": True}], "next": "chg-abc"})

    broker.replies["/v1/access/changes"] = page
    done = cli("access", "changes")
    assert done.code == 0
    assert "chg-abc  pending, but another version was applied since  by bob@" in done.out
    assert "waits because: group corp/sre gains role admin" in done.out
    assert "chg-old" in done.out
    assert "\x1b" not in done.out


def test_an_approval_shows_what_it_approves(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    waiting(broker)
    assert cli("access", "approve", "chg-abc").code == 2  # nobody there to look
    done = cli("access", "approve", "chg-abc", "--yes")
    assert done.code == 0
    assert "+ right group corp/sre admin" in done.out
    assert "~ role x tags: a -> b" in done.out
    assert "Approved: applied as version 4" in done.err


@pytest.mark.parametrize(("typed", "approved"), [(b"y\n", True), (b"n\n", False)])
def test_a_person_is_asked_before_an_approval(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, typed: bytes, approved: bool
):
    waiting(broker)
    code, _ = type_on_terminal(cli, ["access", "approve", "chg-abc"], [(b"[y/N] ", typed)])
    assert code == (0 if approved else 1)
    sent = [one for one in broker.seen if one.path.endswith("/approve")]
    assert bool(sent) is approved


def test_ones_own_change_is_refused_with_its_code(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    waiting(broker)
    broker.replies["/v1/access/changes/chg-abc/approve"] = lambda _: Reply.problem(
        403, "self_approval"
    )
    done = cli("access", "approve", "chg-abc", "--yes")
    assert done.code == 1
    assert "self_approval" in done.err


def test_a_change_is_withdrawn(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    waiting(broker)
    done = cli("access", "withdraw", "chg-abc")
    assert done.code == 0
    assert "Withdrawn: chg-abc" in done.err
    assert cli("access", "withdraw", "../../users").code == 2


def test_a_plan_names_the_people_and_says_that_it_waits(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, policy: Path
):
    broker.replies["/v1/access"] = lambda request: Reply.of(
        {"version": 3, "sha256": ""}
        if request.method == "GET"
        else {
            "diff": ["+ plain"],
            "rights": ["! + admin group corp/ops  [2 known: a, b]"],
            "gains": ["group corp/ops becomes an admin"],
            "waits": True,
            "self_granted": False,
            "plan": {},
        }
    )
    done = cli("access", "plan", str(policy))
    assert done.code == 0
    assert "! + admin group corp/ops  [2 known: a, b]" in done.out
    assert "+ plain" not in done.out
    assert "adds to your own rights: group corp/ops becomes an admin" in done.err
    assert "wait for another admin" in done.err
