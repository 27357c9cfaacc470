"""Credentials handed to the rest of a CI job, in each platform's way, masked where it can mask.

Owns: which way is which platform's. Does not own: quoting for shells (`formats`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from broker.cli import formats
from broker.cli.credentials import Credentials
from broker.cli.failure import LocalFailure
from broker.cli.terminal import clean, note

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_REDACT_SECONDS = 30
FORMATS = ("auto", "github", "circleci", *formats.FORMATS)


def hand_over(issued: Credentials, chosen: str, environment: Mapping[str, str]) -> None:
    """Write them where later steps read them (GitHub, CircleCI), else print them for `eval`."""
    way = _of_platform(environment) if chosen == "auto" else chosen
    if environment.get("BUILDKITE") == "true":
        _redact(issued)
    if way == "github":
        _github(issued, environment)
    elif way == "circleci":
        _append(environment.get("BASH_ENV"), "BASH_ENV", formats.as_env(issued))
        note("broker: later steps have the credentials in their environment")
    else:
        print(formats.FORMATS[way](issued))


def _of_platform(environment: Mapping[str, str]) -> str:
    if environment.get("GITHUB_ACTIONS") == "true" and environment.get("GITHUB_ENV"):
        return "github"
    if environment.get("CIRCLECI") == "true" and environment.get("BASH_ENV"):
        return "circleci"
    return "env"


def _github(issued: Credentials, environment: Mapping[str, str]) -> None:
    """Workflow commands: the values are printable ASCII without spaces, so that none of them can
    end its line and begin another command or variable.
    """
    variables = formats.environment(issued)
    for name in _SECRETS:
        print(f"::add-mask::{variables[name]}")
    sys.stdout.flush()
    lines = "\n".join(f"{name}={value}" for name, value in variables.items())
    _append(environment.get("GITHUB_ENV"), "GITHUB_ENV", lines)
    note("broker: later steps have the credentials in their environment")


def _append(path: str | None, name: str, text: str) -> None:
    if not path:
        raise LocalFailure(f"{name} names no file: is this the platform it belongs to?")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalFailure(f"{name}: {clean(path, 200)}: {error.strerror}") from None
    with os.fdopen(descriptor, "a", encoding="ascii") as file:
        file.write(f"{text}\n")


def _redact(issued: Credentials) -> None:
    """Buildkite's agent blanks the values in the job's log; on standard input, not as arguments."""
    if shutil.which("buildkite-agent") is None:
        return
    variables = formats.environment(issued)
    for name in _SECRETS:
        done = subprocess.run(
            ["buildkite-agent", "redactor", "add"],  # noqa: S607 - the platform's own agent
            input=variables[name].encode("ascii"),
            capture_output=True,
            timeout=_REDACT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise LocalFailure("buildkite-agent would not redact the credentials; nothing is shown")
