"""Schemathesis over /openapi.json, signed in: no 5xx, and no status, type or shape undocumented.

Over 2,000 requests; with --long 100,000, by an admin, by somebody without rights, and by nobody.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.devstack.aws import AwsStandIn, seed_demo
from tests.hostile.world import Person, World

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# These would end the session that asks; tests/web and tests/hostile have them.
ENDS_ITSELF = "/v1/me/sessions"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Its own: a fuzzer leaves things behind."""
    with AwsStandIn.start() as aws:
        world = World(tmp_path, aws, seed_demo(aws, hub="user"))
        try:
            world.start()
            yield world
        finally:
            world.close()


def fuzz(world: World, who: Person | None, examples: int) -> int:
    """So many examples an operation, beside the systematic ones; how many requests that made."""
    report = world.folder / "report.json"
    signed_in = [] if who is None else ["--header", f"Authorization: Bearer {who.token}"]
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(f"{world.url}/openapi.json", *signed_in, "--checks", ",".join(CHECKS)),
            *("--max-examples", str(examples), "--phases", "coverage,fuzzing"),
            *("--exclude-path-regex", ENDS_ITSELF, "--max-redirects", "0", "--no-color"),
            *("--warnings", "off", "--generation-database", "none", "--continue-on-failure"),
            *("--no-shrink", "--report-dir", str(world.folder), "--report-json-path", str(report)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=world.folder,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in world.log()
    counted = json.loads(report.read_text("utf-8"))["test_cases"]
    assert counted["errored"] == counted["without_checks"] == 0, counted
    generated: int = counted["generated"]
    return generated


def test_two_thousand_requests(world: World) -> None:
    assert fuzz(world, world.admin, examples=20) >= 2000
    # It goes on serving, and its log is whole.
    assert world.person("afterwards", "analysts").ask().status_code == 200


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_requests(world: World) -> None:
    sent, turn = 0, 0
    while sent < 100_000:
        # Made anew for each part: an access token lives for 15 minutes.
        turn += 1
        somebody = world.person(f"fuzzer-{turn}", "analysts")
        world.forget_steps(world.admin)
        world.admin.log_the_terminal_in()
        sent += sum(fuzz(world, who, 150) for who in (world.admin, somebody, None))
