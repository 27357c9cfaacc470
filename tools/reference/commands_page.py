"""`reference/cli.md`: every command of `broker`, by the parsers that read its arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from broker import server_cli
from broker.cli import main as client
from broker.cli.command import Command
from broker.entry import SERVER_COMMANDS
from tools.reference.markdown import block, code, page, table

_INTRODUCTION = """
`broker help COMMAND` shows the same. Commands of the client need nothing but Python; those of the server need the
extra `server`, and read [the settings](settings.md). `--debug` says more on stderr, and never anything secret.

Exit codes: 0 done, 1 refused by the broker (its [code](errors.md) is on stderr) or, of a server's command, failed;
2 wrong usage, 3 not logged in, 4 broker unreachable, 5 second factor needed.
"""
_ENVIRONMENT = {
    "BROKER_SERVER": "the broker's address (default: the one of the last login)",
    "BROKER_HOME": "keep everything of the client in this directory, tokens in a private file",
    "BROKER_KEYRING": "`off`: keep tokens in a private file",
    "BROKER_CI_TOKEN": "`broker ci`: the job's OIDC token",
    "BROKER_CI_TOKEN_FILE": "`broker ci`: a file with it",
    "BROKER_CONFIG": "the server's commands: the settings file",
}


@dataclass(frozen=True)
class Described:
    """One command: how it is called, and the parser that says so."""

    name: str
    summary: str
    parser: argparse.ArgumentParser
    examples: str = ""


def render() -> str:
    environment = table(
        ["Variable", "What it is for"], ([code(name), said] for name, said in _ENVIRONMENT.items())
    )
    parts = [f"## Environment\n\n{environment}", "## The client\n"]
    parts += [_section(one) for one in client_commands()]
    parts += ["## The server\n", *(_section(one) for one in server_commands())]
    return page("Commands", _INTRODUCTION, *parts)


def client_commands() -> Iterator[Described]:
    for name, (where, summary) in client._COMMANDS.items():
        command: Command = import_module(f"broker.cli.commands.{where}").COMMANDS[name]
        parser = _parser(name, usage=client._usage(name, command))
        parser.description = command.description
        command.configure(parser)
        yield Described(name, summary, parser, command.examples)


def server_commands() -> Iterator[Described]:
    for name, summary in SERVER_COMMANDS.items():
        subparsers = argparse.ArgumentParser(prog="broker").add_subparsers()
        import_module(f"{server_cli.__name__}.{name}").register(subparsers)
        yield from _with_inner(name, summary, subparsers.choices[name])


def _with_inner(name: str, summary: str, parser: argparse.ArgumentParser) -> Iterator[Described]:
    """The command, or in its place those it is made of."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield Described(name, summary, parser)
    for action in inner:
        for word, one in action.choices.items():
            yield from _with_inner(f"{name} {word}", one.description or summary, one)


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each argument as it is written, and what is said of it."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        value = _value(action)
        if action.option_strings:
            written = ", ".join(f"{flag} {value}".strip() for flag in action.option_strings)
        else:
            written = value
        yield written, _said(action)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return str(action.metavar)
    if action.choices:
        return "|".join(str(choice) for choice in action.choices)
    return action.dest.upper()


def _said(action: argparse.Action) -> str:
    said = (action.help or "").replace("%%", "%")
    if action.required and action.option_strings:
        said = f"{said} (required)"
    if action.choices and action.metavar is not None:
        said = f"{said}: {', '.join(str(choice) for choice in action.choices)}"
    return said


def _section(one: Described) -> str:
    title = f"### `broker {one.name}` {{ #{one.name.replace(' ', '-')} }}\n"
    said = " ".join((one.parser.description or f"{one.summary}.").split())
    parts = [title, f"{said[0].upper()}{said[1:]}\n", block(_usage(one))]
    rows = [[code(written), said] for written, said in options(one.parser)]
    if rows:
        parts.append(table(["Argument", "What it does"], rows))
    notes, lines = _notes_and_examples(one.parser.epilog or "")
    examples = one.examples or lines
    if notes:
        parts.append(f"{notes}\n")
    if examples:
        parts.append(block(_outdented(examples), "sh"))
    return "\n".join(parts)


def _usage(one: Described) -> str:
    """Not argparse's: how it folds and orders depends on Python's version."""
    if one.parser.usage is not None:
        return one.parser.usage
    options = [action for action in one.parser._actions if action.option_strings]
    words = [f"broker {one.name}", *(["[OPTIONS]"] if len(options) > 1 else [])]
    for action in one.parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            value = _value(action)
            words.append(f"[{value}]" if action.nargs == "?" else value)
    return " ".join(words)


def _notes_and_examples(epilog: str) -> tuple[str, str]:
    """The server's commands have them in one text, with spaces between examples."""
    notes, *rest = re.split("[Ee]xamples?: ?", epilog, maxsplit=1)
    lines = [one.strip() for one in re.split(r"\s{2,}", "".join(rest)) if one.strip()]
    return " ".join(notes.split()), "\n".join(lines)


def _outdented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.splitlines())


def _parser(name: str, usage: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"broker {name}", usage=usage, allow_abbrev=False)
