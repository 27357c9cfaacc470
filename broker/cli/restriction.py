"""`--restrict FILE`: Deny statements of one's own, which narrow what is asked for.

The server judges them; here they are only read, and an Allow is refused early,
since a person who writes one expects it to do something.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from broker.cli.failure import WrongUsage

_MAX_BYTES = 64 * 1024


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restrict",
        metavar="FILE",
        help="JSON with Deny statements to add: a statement, a list, or a policy; - is stdin",
    )


def read(name: str | None) -> list[object] | None:
    """The statements; None where no file is named. Raises WrongUsage."""
    if name is None:
        return None
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        value = json.loads(data)
    except OSError as error:
        raise WrongUsage(f"--restrict {name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WrongUsage(f"--restrict {name}: is not JSON") from None
    if len(data) > _MAX_BYTES:
        raise WrongUsage(f"--restrict {name}: is larger than {_MAX_BYTES} bytes")
    if isinstance(value, dict) and "Statement" in value:
        value = value["Statement"]
    statements = value if isinstance(value, list) else [value]
    if not statements:
        raise WrongUsage(f"--restrict {name}: holds no statement")
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") != "Deny":
            raise WrongUsage(
                f'--restrict {name}: each statement must say "Effect": "Deny"; '
                "an Allow would add nothing"
            )
    return statements
