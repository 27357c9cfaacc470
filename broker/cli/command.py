"""What a command is: its words, its help, how it reads its arguments, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from broker.cli import cached
from broker.cli.cached import Wanted
from broker.cli.failure import WrongUsage


class Command(NamedTuple):
    """`run` gets the parsed arguments (with `debug`), and returns the exit code."""

    description: str
    examples: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    takes_command: bool = False  # what follows `--` is somebody else's command line
    command_optional: bool = False


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that take none."""


def add_wanted(parser: argparse.ArgumentParser) -> None:
    """The role and what narrows it: the options that `wanted` reads."""
    parser.add_argument("role", metavar="ROLE", help="a role of `broker roles`")
    parser.add_argument(
        "--duration", metavar="TIME", help="how long: 45m, 8h or seconds (default: the role's)"
    )
    parser.add_argument(
        "--set",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the role; may be repeated",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why; kept in the audit log")


def wanted(arguments: argparse.Namespace) -> Wanted:
    """Raises WrongUsage."""
    if not cached.is_role_name(arguments.role):
        raise WrongUsage(
            f"{arguments.role!r} is not a role's name (small letters, digits, `.`, `_`, `-`)"
        )
    try:
        duration = cached.parse_duration(arguments.duration) if arguments.duration else None
    except ValueError as error:
        raise WrongUsage(f"--duration: {error}") from None
    parameters: dict[str, str] = {}
    for given in arguments.parameters:
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise WrongUsage(f"--set {given!r}: write NAME=VALUE")
        if name in parameters:
            raise WrongUsage(f"--set {name}: given twice")
        parameters[name] = value
    return Wanted(arguments.role, duration, parameters, arguments.reason)
