"""The console script `broker`: client or server, by the first word, importing only that side.

Owns that choice, and how an interrupted process ends. Does not own any command.
A cached answer of `credential-process` is given from here, before anything else
is imported.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import os
import sys

SERVER_COMMANDS = {
    "server": "run the broker",
    "dev": "run everything on this machine, to try it out",
    "migrate": "bring the database to this version's schema",
    "doctor": "check what a first run gets wrong",
    "keys": "rotate the broker's keys",
    "recover": "an enrolment code for a first or new admin",
    "aws": "what AWS needs for an access policy, as code",
    "sinks": "how far the audit log's sinks are, and moving them",
}
# Enough of an extra to tell that it is there.
_SERVER_PACKAGES = ("fastapi", "sqlalchemy", "msgspec", "pydantic_settings", "yaml")
_PACKAGES = {"server": _SERVER_PACKAGES, "dev": (*_SERVER_PACKAGES, "moto", "flask")}
_LINT_PACKAGES = ("msgspec", "pydantic_settings", "re2", "yaml")
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(words: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if words is None else words
    _open_missing_streams()
    try:
        try:
            code = _run(words)
        except SystemExit as stop:  # argparse, after help or a complaint
            code = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read the output has left
        _abandon_output()
        return _BROKEN_PIPE
    except OSError as error:  # a full disk
        _abandon_output()
        print(f"broker: the output was not written: {error.strerror}", file=sys.stderr)  # noqa: T201 - the command line
        return 1
    return code


def _open_missing_streams() -> None:
    """A caller may have closed them; then what is said goes nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - pathlib costs start-up time
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - pathlib costs start-up time


def _abandon_output() -> None:
    """Or the interpreter tries again at exit, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(words: list[str]) -> int:
    first = words[0] if words else ""
    if first == "credential-process":
        from broker.cli import cached

        answer = cached.answer(words[1:])
        if answer is not None:
            cached.write_out(answer)
            return 0
    if first in SERVER_COMMANDS:
        return _serve(words)
    if words[:2] == ["access", "lint"] and _installed(_LINT_PACKAGES):
        _drop_client_variables()
        from broker.server_cli.access_lint import main as lint

        return lint(words[2:])
    from broker.cli.main import main as client

    return client(words, SERVER_COMMANDS)


def _serve(words: list[str]) -> int:
    extra = "dev" if words[0] == "dev" else "server"
    if not _installed(_PACKAGES[extra]):
        print(  # noqa: T201 - this is the command line
            f"broker: `broker {words[0]}` needs more packages: "
            f"pip install 'credential-broker[{extra}]'",
            file=sys.stderr,
        )
        return 2
    _drop_client_variables()
    from broker.server_cli import main as server

    return server(words)


def _drop_client_variables() -> None:
    """The client's variables share their prefix with the server's settings: an exported
    BROKER_SERVER would be read as its section `[server]`, and stop it.
    """
    if os.environ.get("BROKER_SERVER", "").lower().startswith("http"):
        del os.environ["BROKER_SERVER"]
    for name in ("BROKER_HOME", "BROKER_KEYRING"):
        os.environ.pop(name, None)


def _installed(packages: tuple[str, ...]) -> bool:
    from importlib.util import find_spec

    return all(find_spec(package) is not None for package in packages)


if __name__ == "__main__":
    sys.exit(main())
