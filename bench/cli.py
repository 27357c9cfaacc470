"""How long `broker credential-process` takes, beside what a command can't take less than.

An AWS SDK runs it as a process of its own, often once a call, so start-up is all of it.
Measured in CPU time of the child (wall-clock time is in the table), in turn, and a ratio
is the median of the rounds' ratios. The broker is a real one on SQLite with an STS
stand-in; its time is not counted. Where the environment of the aws CLI is missing
(`make witnesses`), the last ratio is left out, and said so.

    python bench/cli.py [--quick]

Ratios:
  cached_vs_python     an answer from the cache, of `python -c pass`
  uncached_vs_python   an answer from the broker, of `python -c pass`
  cached_vs_aws_cli    an answer from the cache, of `aws --version`
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stage import people
from stage.processes import HERE, ROOT, Service, bare_environment, free_port

from broker.cli import cached, server, tokens

RATIOS = ("cached_vs_python", "uncached_vs_python", "cached_vs_aws_cli")
ROLE = ("data-reader", "--set", "bucket=reports", "--set", "prefix=2026")


@dataclass(frozen=True)
class Took:
    """Seconds of one command."""

    cpu: float
    wall: float


def run(arguments: list[str], environment: dict[str, str]) -> Took:
    """Run a command that must succeed. CPU time in user and system mode, as the kernel counts."""
    started = time.perf_counter()
    child = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    complaint = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.stderr:
        child.stderr.close()
    if child.returncode:
        raise RuntimeError(f"{arguments}: {complaint.decode(errors='replace')}")
    return Took(used.ru_utime + used.ru_stime, wall)


@contextmanager
def logged_in() -> Iterator[dict[str, str]]:
    """The environment of a client that is logged in to a running broker."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="broker-bench-cli-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sts = Service(
            [sys.executable, str(HERE / "sts.py"), str(port := free_port())],
            port,
            folder / "sts.log",
        )
        url = f"sqlite+aiosqlite:///{folder}/broker.db"
        config = folder / "broker.toml"
        own = free_port()
        config.write_text(people.settings(url, own, sts.port, folder / "keys"))
        environment = bare_environment(
            AWS_ACCESS_KEY_ID="AKIAEXAMPLEEXAMPLE00",
            AWS_SECRET_ACCESS_KEY="example",
            AWS_EC2_METADATA_DISABLED="true",
        )
        program = [sys.executable, "-m", "broker.entry"]
        run([*program, "migrate", "--config", str(config)], environment)
        token = people.admit(url, 1)[0]
        broker = Service(
            [*program, "server", "--config", str(config)], own, folder / "broker.log", environment
        )
        for service in (sts, broker):
            service.start()
            stack.callback(service.stop)
        home = folder / "home"
        yield _client(f"http://127.0.0.1:{own}", home, token)


def _client(origin: str, home: Path, token: str) -> dict[str, str]:
    """Keep the login as `broker login` does, with an access token and nothing to refresh it."""
    os.environ["BROKER_HOME"] = str(home)  # where the client's own functions look
    broker = server.Server.parse(origin)
    server.remember(broker)
    tokens.save_login(
        broker,
        tokens.Tokens("bench", token, time.time() + 800, "bkr_none", "/oauth/token", None),
    )
    return {**bare_environment(), "BROKER_HOME": str(home)}


def measure(environment: dict[str, str], rounds: int) -> dict[str, float]:
    """Every ratio that can be measured here, by name, after a table."""
    broker = [str(ROOT / ".venv/bin/broker"), "credential-process", *ROLE]
    aws = ROOT / ".venv-awscli/bin/aws"
    commands: dict[str, Callable[[], Took]] = {
        "python -c pass": lambda: run([sys.executable, "-c", "pass"], environment),
        "cached": lambda: run(broker, environment),
        "uncached": lambda: _uncached(broker, environment),
    }
    if aws.exists():
        commands["aws --version"] = lambda: run([str(aws), "--version"], environment)
    took: dict[str, list[Took]] = {name: [] for name in commands}
    _uncached(broker, environment)
    for _ in range(rounds):
        for name, command in commands.items():
            took[name].append(command())
    for name, times in took.items():
        cpu = statistics.median(one.cpu for one in times) * 1000
        wall = statistics.median(one.wall for one in times) * 1000
        print(f"{name:16} CPU {cpu:7.1f} ms   wall {wall:7.1f} ms   ({len(times)} times)")
    pairs = {
        "cached_vs_python": ("cached", "python -c pass"),
        "uncached_vs_python": ("uncached", "python -c pass"),
        "cached_vs_aws_cli": ("cached", "aws --version"),
    }
    ratios = {}
    for name, (ours, theirs) in pairs.items():
        if theirs not in took:
            print(f"{name}: no aws CLI here; `make witnesses` installs one")
            continue
        each = (a.cpu / b.cpu for a, b in zip(took[ours], took[theirs], strict=True))
        ratios[name] = round(statistics.median(each), 3)
    return ratios


def _uncached(broker: list[str], environment: dict[str, str]) -> Took:
    cached.prune(
        (Path(environment["BROKER_HOME"]) / "server").read_text().strip(), 0, everything=True
    )
    return run(broker, environment)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    arguments = parser.parse_args()
    with logged_in() as environment:
        ratios = measure(environment, 10 if arguments.quick else 50)
    print(json.dumps({"name": "cli", "ratios": ratios}))


if __name__ == "__main__":
    main()
