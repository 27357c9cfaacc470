"""atheris, one target: `python -m tests.fuzz.coverage_guided NAME [libFuzzer's options]`.

Coverage of the broker's own modules guides it. Ends with a trace and the input in a file
`crash-...` where a target raises.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=["broker"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
