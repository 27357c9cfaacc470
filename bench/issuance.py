"""How fast one broker process issues credentials, beside two floors, in one run.

Floor A is a bare Starlette route with one durable PostgreSQL insert; floor B is boto3's
assume_role in threads. A real `broker server` on the same PostgreSQL, with its
durability on, asks a stand-in for STS that answers at once or after 30 ms. The three
are measured in turn, several times; a ratio is the median of the rounds' ratios, so
that what else the machine does weighs on both sides alike. Run it on a quiet machine.

    python bench/issuance.py [--quick]
    python bench/issuance.py --profile FOLDER   # where the time goes: an SVG flame graph

Ratios (the gate, and what is aimed for):
  vs_floor_a_c32          rate at 32 callers, of floor A's         at least 0.33 (0.45)
  vs_floor_b_c32          rate at 32 callers, of floor B's         at least 1.5 (3)
  p99_vs_floor_a_c32      99th percentile, of floor A's            at most 3
  cpu_vs_boto3            the server's CPU an issuance, of one boto3 call's   at most 0.5 (0.3)
  p50_c1_30ms_vs_delay    median of a lone caller, of STS's 30 ms  at most 1.2
  rate_c32_30ms_vs_ideal  rate at 32 callers, of 32 / 30 ms        at least 0.7
  cold_128_vs_warm        time to answer 128 callers at once: a server just started, of a warm one
  sqlite_vs_postgresql_c32  rate at 32 callers of a broker on SQLite, of one on PostgreSQL
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage import people
from stage.postgresql import cluster
from stage.processes import HERE, Service, Worker, bare_environment, free_port
from stage.sts import control

CALLERS = 32
CROWD = 128
DELAY_MS = 30.0
RATIOS = (
    "vs_floor_a_c32",
    "vs_floor_b_c32",
    "p99_vs_floor_a_c32",
    "cpu_vs_boto3",
    "p50_c1_30ms_vs_delay",
    "rate_c32_30ms_vs_ideal",
    "cold_128_vs_warm",
    "sqlite_vs_postgresql_c32",
)


@dataclass
class Stage:
    """Everything that takes part. `tokens`: by a broker's port, one a person, for each has a
    limit.
    """

    folder: Path
    load: Worker
    boto3: Worker
    floor: Service
    broker: Service
    on_sqlite: Service
    sts: Service
    tokens: dict[int, list[str]]

    def ask(self, service: Service, callers: int, seconds: float | None) -> dict[str, Any]:
        """What the load saw of `service`, and the CPU seconds of its process an answer."""
        before = service.cpu_seconds
        seen = self.load.ask(
            port=service.port,
            # The floor reads no token, but as many bytes.
            requests=[
                _request(t) for t in self.tokens.get(service.port, self.tokens[self.broker.port])
            ],
            callers=callers,
            seconds=seconds,
        )
        if seen["refused"]:
            raise RuntimeError(f"refused: {seen['refused'][0]}")
        return {**seen, "cpu": (service.cpu_seconds - before) / seen["count"]}

    def ask_boto3(self, callers: int, seconds: float) -> dict[str, Any]:
        return self.boto3.ask(
            port=self.sts.port, callers=callers, seconds=seconds, policy=people.SESSION_POLICY
        )


@dataclass
class Table:
    """The lines for people, in the order measured."""

    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, name: str, seen: dict[str, Any]) -> dict[str, Any]:
        self.rows.append((name, seen))
        print(
            f"{name:34} {seen['rate']:8.0f}/s  p50 {seen['p50'] * 1000:7.2f} ms"
            f"  p99 {seen['p99'] * 1000:7.2f} ms  max {seen['max'] * 1000:7.1f} ms"
            f"  CPU {seen['cpu'] * 1e6:6.0f} us",
            flush=True,
        )
        return seen


def _request(token: str) -> str:
    return (
        "POST /v1/credentials HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(people.REQUEST)}\r\n\r\n{people.REQUEST.decode()}"
    )


@contextmanager
def stage(profile: Path | None = None) -> Iterator[Stage]:
    """Start everything; stop and delete it at the end."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="broker-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgresql = stack.enter_context(cluster())
        url = postgresql.database("broker")
        postgresql.database("floor")
        sts = _service("sts.py", folder)
        floor = _service("floor_row.py", folder, FLOOR_DSN=postgresql.dsn("floor"))
        for service in (sts, floor):
            service.start()
            stack.callback(service.stop)
        broker = _broker(folder / "postgresql", url, sts.port, profile)
        file = f"sqlite+aiosqlite:///{folder}/broker.db"
        on_sqlite = _broker(folder / "sqlite", file, sts.port, None)
        tokens = {
            broker.port: people.admit(url, CROWD),
            on_sqlite.port: people.admit(file, CROWD),
        }
        for service in (broker, on_sqlite):
            service.start()
            stack.callback(service.stop)
        load, boto3 = Worker("load.py"), Worker("floor_boto3.py")
        stack.callback(load.stop)
        stack.callback(boto3.stop)
        yield Stage(folder, load, boto3, floor, broker, on_sqlite, sts, tokens)


def _service(script: str, folder: Path, **environment: str) -> Service:
    port = free_port()
    return Service(
        [sys.executable, str(HERE / script), str(port)],
        port,
        folder / f"{script}.log",
        bare_environment(**environment),
    )


def _broker(folder: Path, url: str, sts_port: int, profile: Path | None) -> Service:
    """Not started yet, but with its keys and a migrated database."""
    port = free_port()
    folder.mkdir()
    config = folder / "broker.toml"
    config.write_text(people.settings(url, port, sts_port, folder / "keys"))
    program = ["-m", "broker.entry"]
    if profile is not None:
        program = [str(HERE / "sampled.py"), str(profile)]
    environment = bare_environment(
        AWS_ACCESS_KEY_ID="AKIAEXAMPLEEXAMPLE00",
        AWS_SECRET_ACCESS_KEY="example",
        AWS_EC2_METADATA_DISABLED="true",
    )
    subprocess.run(
        [sys.executable, "-m", "broker.entry", "migrate", "--config", str(config)],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    arguments = [sys.executable, *program, "server", "--config", str(config)]
    return Service(arguments, port, folder / "broker.log", environment)


def measure(on: Stage, table: Table, *, rounds: int, seconds: float) -> dict[str, float]:
    """Every ratio, by name."""
    cold = table.add(f"broker, {CROWD} at once, cold", on.ask(on.broker, CROWD, None))
    on.ask(on.broker, CALLERS, seconds)
    on.ask(on.floor, CALLERS, seconds)
    warm = table.add(f"broker, {CROWD} at once, warm", on.ask(on.broker, CROWD, None))
    ratios: dict[str, list[float]] = {name: [] for name in RATIOS}
    ratios["cold_128_vs_warm"].append(cold["seconds"] / warm["seconds"])
    for _ in range(rounds):
        a = table.add(f"A (row), {CALLERS} callers", on.ask(on.floor, CALLERS, seconds))
        own = table.add(f"broker, {CALLERS} callers", on.ask(on.broker, CALLERS, seconds))
        b = table.add(f"B (boto3), {CALLERS} callers", on.ask_boto3(CALLERS, seconds))
        ratios["vs_floor_a_c32"].append(own["rate"] / a["rate"])
        ratios["p99_vs_floor_a_c32"].append(own["p99"] / a["p99"])
        ratios["vs_floor_b_c32"].append(own["rate"] / b["rate"])
        ratios["cpu_vs_boto3"].append(own["cpu"] / b["cpu"])
    on.ask(on.on_sqlite, CALLERS, seconds)
    for _ in range(rounds):
        own = table.add(f"broker, {CALLERS} callers", on.ask(on.broker, CALLERS, seconds))
        other = table.add(
            f"broker on SQLite, {CALLERS} callers", on.ask(on.on_sqlite, CALLERS, seconds)
        )
        ratios["sqlite_vs_postgresql_c32"].append(other["rate"] / own["rate"])
    for callers in (1, CROWD):
        table.add(f"A (row), {callers} callers", on.ask(on.floor, callers, seconds))
        table.add(f"broker, {callers} callers", on.ask(on.broker, callers, seconds))
        table.add(f"B (boto3), {callers} callers", on.ask_boto3(callers, seconds))
    control(on.sts.port, delay_ms=DELAY_MS)
    try:
        for callers in (1, CALLERS, CROWD):
            name = f"broker, {callers} callers, STS {DELAY_MS:.0f} ms"
            seen = table.add(name, on.ask(on.broker, callers, seconds))
            if callers == 1:
                ratios["p50_c1_30ms_vs_delay"].append(seen["p50"] / (DELAY_MS / 1000))
            elif callers == CALLERS:
                ideal = CALLERS / (DELAY_MS / 1000)
                ratios["rate_c32_30ms_vs_ideal"].append(seen["rate"] / ideal)
    finally:
        control(on.sts.port)
    return {name: round(statistics.median(values), 3) for name, values in ratios.items()}


def profile(folder: Path, seconds: float) -> None:
    """Sample a server under 32 callers, and draw what its samples say."""
    folder.mkdir(parents=True, exist_ok=True)
    with stage(folder.resolve()) as on:
        on.ask(on.broker, CALLERS, seconds)
    print(f"{folder}/flame.svg: width is CPU time; {folder}/stacks.txt: folded stacks")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="draw a flame graph instead")
    arguments = parser.parse_args()
    if arguments.profile is not None:
        profile(arguments.profile, 20)
        return
    began = time.monotonic()
    with stage() as on:
        print(f"{os.cpu_count()} CPUs, ready after {time.monotonic() - began:.0f} s")
        rounds, seconds = (3, 1.5) if arguments.quick else (7, 5.0)
        ratios = measure(on, Table(), rounds=rounds, seconds=seconds)
    print(json.dumps({"name": "issuance", "ratios": ratios}))


if __name__ == "__main__":
    main()
