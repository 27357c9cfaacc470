"""The client's side of the `broker` command: finding the command, help, exit codes.

Owns the list of commands; each is a module of `commands` that is imported only
when it is named. Does not own what they do.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module

from broker import __version__
from broker.cli.command import Command
from broker.cli.failure import Failure, SecondFactorNeeded
from broker.cli.terminal import clean, note

# Words of the command -> the module that has it, and a line for the overview.
_COMMANDS = {
    "login": ("login", "log in with your browser"),
    "logout": ("login", "end the login, here and on the broker"),
    "whoami": ("me", "who the broker takes you for"),
    "roles": ("me", "the AWS roles you can have"),
    "why": ("why", "why you may have a role now, or not"),
    "creds": ("creds", "print temporary credentials for a role"),
    "credential-process": ("credential_process", "answer an AWS SDK's credential_process"),
    "exec": ("exec", "run a command with a role's credentials"),
    "ci": ("ci", "credentials in a CI job, by its platform's token"),
    "mfa verify": ("mfa", "verify your second factor again"),
    "mfa reset": ("mfa", "drop a person's second factor (admins)"),
    "enrol-code": ("enrol_code", "a code to enrol a second factor with (admins)"),
    "users": ("users", "who is known (auditors, admins)"),
    "users show": ("users", "one person (auditors, admins)"),
    "users sessions": ("users", "a person's logins (auditors, admins)"),
    "users end-sessions": ("users", "end a person's logins (admins)"),
    "suspend": ("suspend", "stop a person at once (admins)"),
    "reinstate": ("suspend", "let a suspended person back (admins)"),
    "sessions": ("sessions", "your own logins, and ending them"),
    "grant": ("grants", "give a person a role for a time (admins)"),
    "grants": ("grants", "who has which role for a time"),
    "revoke": ("grants", "take a grant back (admins)"),
    "access lint": ("access", "check an access policy file"),
    "access plan": ("access", "what applying an access policy file would change"),
    "access apply": ("access", "put an access policy file in force (admins)"),
    "access changes": ("access_changes", "access policies that wait for another admin"),
    "access approve": ("access_changes", "approve one that another admin proposed (admins)"),
    "access withdraw": ("access_changes", "withdraw one that waits (admins)"),
    "access try": ("access_try", "what the policy makes of a CI job's token"),
    "access export": ("access", "the access policy in force"),
    "access trust-policy": ("trust_policy", "what to paste into AWS for a role (admins)"),
    "audit tail": ("audit", "show the newest audit records"),
    "audit export": ("audit", "the whole audit log, as JSON Lines"),
    "audit verify": ("audit", "verify an exported audit log, offline"),
}
_EXIT_CODES = """exit codes:
  0 done, 1 refused by the broker (its code is on stderr), 2 wrong usage,
  3 not logged in, 4 broker unreachable, 5 second factor needed
"""
_ENVIRONMENT = """environment:
  BROKER_SERVER   the broker's address (default: the one of the last login)
  BROKER_HOME     keep everything in this directory, tokens in a private file
  BROKER_KEYRING  off: keep tokens in a private file
"""


def main(words: list[str], server_commands: Mapping[str, str]) -> int:
    """Run one client command; returns the exit code. Raises KeyboardInterrupt and
    BrokenPipeError alone.
    """
    # A name that the terminal's encoding lacks is escaped, never a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    debug = words[:1] == ["--debug"]
    try:
        return _dispatch(words[1:] if debug else words, server_commands, debug=debug)
    except Failure as failure:
        note(f"broker: {failure}")
        if isinstance(failure, SecondFactorNeeded):
            note("broker: run `broker mfa verify` in a terminal, or `broker login`")
        return failure.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{clean(error.filename)}: " if error.filename else ""
        note(f"broker: {place}{error.strerror or type(error).__name__}")
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: a line, never a traceback
        _explain_fault(error, debug=debug or "--debug" in words)
        return 1


def _dispatch(words: list[str], server_commands: Mapping[str, str], *, debug: bool) -> int:
    if not words or words[0] in ("-h", "--help") or words == ["help"]:
        print(_overview(server_commands))
        return 0
    if words[0] == "--version":
        print(f"broker {__version__}")
        return 0
    if words[0] == "help":
        if words[1] in server_commands:
            print(f"broker {words[1]}: {server_commands[words[1]]}; see `broker {words[1]} --help`")
            return 0
        words = [*words[1:], "--help"]
    name = _find(words)
    if name is None:
        return _unknown(words, server_commands)
    command: Command = import_module(f"broker.cli.commands.{_COMMANDS[name][0]}").COMMANDS[name]
    rest = words[len(name.split()) :]
    arguments = _parse(name, command, rest)
    arguments.debug = arguments.debug or debug
    return command.run(arguments)


def _find(words: list[str]) -> str | None:
    for name in (" ".join(words[:2]), words[0]):
        if name in _COMMANDS:
            return name
    return None


def _parse(name: str, command: Command, words: list[str]) -> argparse.Namespace:
    """argparse exits by itself for --help (0) and for wrong usage (2)."""
    theirs: list[str] | None = None
    if command.takes_command and "--" in words:
        place = words.index("--")
        words, theirs = words[:place], words[place + 1 :]
    parser = argparse.ArgumentParser(
        prog=f"broker {name}",
        usage=_usage(name, command),
        description=command.description,
        epilog=f"examples:\n{command.examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(parser)
    parser.add_argument(
        "--debug", action="store_true", help="say more on stderr; never anything secret"
    )
    arguments = parser.parse_args(words)
    if command.takes_command:
        if not theirs and (theirs is not None or not command.command_optional):
            parser.error("the command to run stands after `--`")
        arguments.command = theirs
    return arguments


def _usage(name: str, command: Command) -> str | None:
    if not command.takes_command:
        return None
    theirs = "-- COMMAND [ARGUMENT ...]"
    return f"broker {name} [options] ROLE {f'[{theirs}]' if command.command_optional else theirs}"


def _overview(server_commands: Mapping[str, str]) -> str:
    client = "\n".join(f"  {name:<20}{summary}" for name, (_, summary) in _COMMANDS.items())
    server = "\n".join(f"  {name:<20}{summary}" for name, summary in server_commands.items())
    return (
        "usage: broker COMMAND ...\n\n"
        "Temporary AWS credentials for people, CI jobs and admins.\n\n"
        f"commands:\n{client}\n\non the server:\n{server}\n\n"
        "`broker help COMMAND` shows a command's options, with examples.\n\n"
        f"{_ENVIRONMENT}\n{_EXIT_CODES}"
    )


def _unknown(words: list[str], server_commands: Mapping[str, str]) -> int:
    group = [name for name in _COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        asked = len(words) > 1 and words[1] in ("-h", "--help")
        lines = "\n".join(f"  broker {name:<16}{_COMMANDS[name][1]}" for name in group)
        print(
            f"usage: broker {words[0]} COMMAND ...\n\n{lines}", file=None if asked else sys.stderr
        )
        return 0 if asked else 2
    from difflib import get_close_matches

    near = get_close_matches(words[0], [*_COMMANDS, *server_commands], n=1, cutoff=0.5)
    hint = f"did you mean `broker {near[0]}`?" if near else "see `broker --help`"
    note(f"broker: there is no command {clean(words[0], 60)!r}; {hint}")
    return 2


def _explain_fault(error: Exception, *, debug: bool) -> None:
    """Where it happened; not the values, which may be secret."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    note(f"broker: this should not happen: {type(error).__name__} at {where}; please report it")
    if debug:
        for frame in frames:
            note(f"broker: debug: {frame.filename}:{frame.lineno} in {frame.name}")
