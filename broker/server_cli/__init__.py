"""The server's side of the `broker` command: server, dev, migrate, doctor and so on.

Owns: reading settings, start and stop of processes, exit codes. Each command is
a module with `register(subparsers)` and a `run(arguments)` that returns the
exit code. Does not own: what the server does (`app`, `web`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from broker.errors import StartupError

_COMMANDS = ("server", "dev", "migrate", "doctor", "recover", "keys", "aws", "sinks")


def main(argv: Sequence[str]) -> int:
    """Run one server command. `argv` starts with its word; returns the exit code."""
    parser = argparse.ArgumentParser(prog="broker", allow_abbrev=False)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    word = argv[0] if argv else ""
    for name in (word,) if word in _COMMANDS else _COMMANDS:
        import_module(f"broker.server_cli.{name}").register(subparsers)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except StartupError as fault:
        for line in str(fault).splitlines():
            print(f"broker: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`, which falls back to BROKER_CONFIG, then to broker.toml here."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings in TOML (default: $BROKER_CONFIG, else broker.toml if there is one)",
    )
