"""`broker access lint FILE`, where the server's packages are installed: no login needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.access.lint import lint_policy
from broker.adapters import parliament
from broker.errors import StartupError
from broker.server_cli.configuration import find_config
from broker.settings import load

MAX_FILE_BYTES = 1024 * 1024


def main(argv: Sequence[str]) -> int:
    """Lint one file; the exit code is 1 where a finding is an error."""
    parser = argparse.ArgumentParser(
        prog="broker access lint",
        allow_abbrev=False,
        description="Check an access policy file, offline.",
        epilog="example: broker access lint access.yaml --provider corp",
    )
    parser.add_argument("file", help="YAML or JSON; - for standard input")
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME",
        help="a configured OpenID provider (default: those of the settings file)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the server's settings")
    arguments = parser.parse_args(argv)
    try:
        text = _read(arguments.file)
    except (OSError, UnicodeDecodeError) as fault:
        print(f"broker: {arguments.file}: can't be read: {fault}", file=sys.stderr)
        return 2
    try:
        providers = frozenset(arguments.provider) or _configured_providers(arguments.config)
    except StartupError as fault:
        print(f"broker: {fault}", file=sys.stderr)
        return 2
    findings = lint_policy(text, providers, parliament.analyse)
    for finding in findings:
        print(
            f"{arguments.file}:{finding.line}:{finding.column}: {finding.level}: {finding.message}"
        )
        if finding.instead:
            print(f"    instead: {finding.instead}")
    if any(finding.level == "error" for finding in findings):
        return 1
    print(f"{arguments.file}: no errors")
    return 0


def _read(name: str) -> str:
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if name == "-" else Path(name).read_bytes()
    return data.decode("utf-8")


def _configured_providers(config: Path | None) -> frozenset[str]:
    path = find_config(config)
    if path is None:
        return frozenset({"corp"})
    return frozenset(provider.name for provider in load(path).oidc)
