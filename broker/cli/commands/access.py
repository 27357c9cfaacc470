"""`broker access lint|plan|apply|export`: the access policy file and the broker's copy of it.

The server reads and judges the file. `lint` comes here where the server's
packages are not installed; `entry` runs it locally otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

from broker.cli import answers, findings, paths, server
from broker.cli.command import Command
from broker.cli.failure import Refused, WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, clean_lines, confirm, is_interactive, note
from broker.cli.transport import Answer

MAX_FILE_BYTES = 1024 * 1024
_YAML = {"Content-Type": "application/yaml"}


def configure_lint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="YAML or JSON; - is standard input")


def configure_apply(parser: argparse.ArgumentParser) -> None:
    configure_lint(parser)
    parser.add_argument("--yes", action="store_true", help="apply without asking")


def configure_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="write it there (default: standard output)"
    )


def lint(arguments: argparse.Namespace) -> int:
    """POST /v1/access/lint; 1 where a finding is an error."""
    text = _read(arguments.file)
    session = Session(server.find(), debug=arguments.debug)
    answer = session.send("POST", "/v1/access/lint", body=text, headers=_YAML)
    found = answers.objects(answers.members(answer), "findings")
    findings.show(arguments.file, found)
    if findings.has_errors(found):
        return 1
    print(f"{arguments.file}: no errors")
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """PUT /v1/access?dry_run=true, and nothing else."""
    text = _read(arguments.file)
    session = Session(server.find(), debug=arguments.debug)
    _plan(session, arguments.file, text, _in_force(session))
    return 0


def apply(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and put the file in force, if what was planned on is still in force."""
    text = _read(arguments.file)
    if not arguments.yes and (arguments.file == "-" or not is_interactive()):
        raise WrongUsage("nobody is there to confirm the plan: add --yes")
    session = Session(server.find(), debug=arguments.debug)
    in_force = _in_force(session)
    _plan(session, arguments.file, text, in_force)
    if hashlib.sha256(text).hexdigest() == in_force.sha256:
        note(f"Nothing changes: {arguments.file} is in force.")
        return 0
    if not arguments.yes and not confirm("Apply this?"):
        note("Nothing was changed.")
        return 1
    answer = session.send("PUT", "/v1/access", body=text, headers=_headers(in_force))
    applied = _accepted(arguments.file, answer)
    if answer.status == 202:
        _waiting(applied)
        return 0
    note(f"Applied as version {clean(applied.get('version'), 20)}.")
    return 0


def _waiting(proposed: dict[str, object]) -> None:
    change = clean(proposed.get("change_id") or proposed.get("id"), 80)
    note(f"This gives rights to yourself: it waits as change {change} for another admin.")
    approvers = proposed.get("approvers")
    if isinstance(approvers, list) and approvers:
        note(f"Any of these may approve it: {', '.join(clean(one, 120) for one in approvers)}")
    note(f"    broker access approve {change}")
    if proposed.get("expires_at"):
        note(f"It expires at {clean(proposed['expires_at'], 40)}.")


def export(arguments: argparse.Namespace) -> int:
    """GET /v1/access; what is written is exactly what was applied."""
    value = Session(server.find(), debug=arguments.debug).get("/v1/access")
    text = answers.text(value, "text")
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != value.get("sha256"):
        raise answers.not_a_broker("the policy's hash is not that of its text")
    if arguments.file is not None:
        target = Path(arguments.file).absolute()
        if not target.parent.is_dir():
            raise WrongUsage(f"{arguments.file}: there is no directory {target.parent}")
        paths.write_private(str(target), text.encode("utf-8"))
        note(f"Version {clean(value.get('version'), 20)} is in {arguments.file}.")
    elif sys.stdout.isatty():
        print(clean_lines(text), end="" if text.endswith("\n") else "\n")
    else:
        sys.stdout.buffer.write(text.encode("utf-8"))
    return 0


def _read(name: str) -> bytes:
    """The file as it stands. Raises WrongUsage."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        data.decode("utf-8")
    except OSError as error:
        raise WrongUsage(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{name}: not UTF-8 at byte {error.start}") from None
    if len(data) > MAX_FILE_BYTES:
        raise WrongUsage(f"{name}: larger than {MAX_FILE_BYTES} bytes")
    return data


class _InForce(NamedTuple):
    """What the broker has now; version 0 where there is no policy yet."""

    version: int
    sha256: str | None


def _in_force(session: Session) -> _InForce:
    answer = session.send("GET", "/v1/access")
    if answer.status == 404:
        return _InForce(0, None)
    value = answers.members(answer)
    version = value.get("version")
    if type(version) is not int or version < 1:
        raise answers.not_a_broker("version is not a number")
    return _InForce(version, answers.text(value, "sha256"))


def _headers(in_force: _InForce) -> dict[str, str]:
    """With what must still hold: this version in force, or none at all."""
    if in_force.version == 0:
        return {**_YAML, "If-None-Match": "*"}
    return {**_YAML, "If-Match": f'"{in_force.version}"'}


def _plan(session: Session, name: str, text: bytes, in_force: _InForce) -> None:
    """Show what would change."""
    headers = _headers(in_force)
    answer = session.send("PUT", "/v1/access?dry_run=true", body=text, headers=headers)
    value = _accepted(name, answer)
    findings.show(name, answers.objects(value, "warnings") if "warnings" in value else [])
    told = value.get("rights", value.get("diff"))  # with the people behind them, where told
    lines = told if isinstance(told, list) else []
    for line in lines or ["no difference but in comments and layout"]:
        print(clean(str(line).rstrip("\r\n")))
    findings.show_plan(value.get("plan"))
    _four_eyes(value)


def _four_eyes(value: dict[str, object]) -> None:
    """What the plan gives to the one who applies it."""
    gains = value.get("gains")
    for gain in gains if isinstance(gains, list) else []:
        note(f"broker: this adds to your own rights: {clean(gain)}")
    if value.get("waits") is True:
        note("broker: so it will wait for another admin's approval")
    elif value.get("self_granted") is True:
        note("broker: this gives rights to yourself; the record will say so")


def _accepted(name: str, answer: Answer) -> dict[str, object]:
    """The answer's members; a refusal with findings shows each at its place in the file first."""
    if 200 <= answer.status < 300:
        return answers.members(answer)
    failure = answers.failure_of(answer)
    if isinstance(failure, Refused) and isinstance(failure.members.get("findings"), list):
        findings.show(name, answers.objects(failure.members, "findings"))
    raise failure


COMMANDS = {
    "access lint": Command(
        "Check an access policy file. Each finding names file, line and column, and what to "
        "write instead.",
        "  broker access lint access.yaml",
        configure_lint,
        lint,
    ),
    "access plan": Command(
        "Show what applying an access policy file would change.",
        "  broker access plan access.yaml",
        configure_lint,
        plan,
    ),
    "access apply": Command(
        "Put an access policy file in force: shows the plan, asks, and applies all or nothing. "
        "Refused where somebody applied another version meanwhile.",
        "  broker access apply access.yaml\n  broker access apply access.yaml --yes    # in CI",
        configure_apply,
        apply,
    ),
    "access export": Command(
        "The access policy in force, byte for byte as it was applied.",
        "  broker access export access.yaml\n  broker access export | diff - access.yaml",
        configure_export,
        export,
    ),
}
