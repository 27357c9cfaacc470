"""A real PgBouncer before PostgreSQL, in both of its modes: the schema, logins, issuances at once.

What docs/operations/postgresql.md says of it. Wrong is one thing alone: transaction mode without
`?pgbouncer=true`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.adapters.migrations import migrate
from broker.audit.verify import verify
from tests.conftest import PostgresCluster, run_apart
from tests.e2e.processes import Process, free_port, until
from tests.missing import missing
from tests.web.conftest import Running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA

CALLERS = 40


@contextmanager
def pgbouncer(cluster: PostgresCluster, mode: str) -> Iterator[int]:
    """The port at which it answers. Few server connections, so that clients share them."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("pgbouncer is missing: Debian's package of that name has it")
    folder = Path(tempfile.mkdtemp(prefix="broker-pgbouncer-"))
    folder.chmod(0o755)  # it gives up root
    uri = urlsplit(cluster.server.get_uri(database="postgres"))
    host = parse_qs(uri.query).get("host", [uri.hostname])[0]
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={host} port={uri.port or 5432} user={uri.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 12\nmax_client_conn = 200\n"
        "ignore_startup_parameters = jit,lock_timeout\n"
    )
    # As root neither of the two runs: it may look into the folder of PostgreSQL's socket.
    user = ["-u", cluster.server.system_user] if os.geteuid() == 0 else []
    log = folder / "log"
    process = Process([program, *user, str(config)], log, dict(os.environ), folder)
    try:

        def listens() -> bool:
            assert process.child.poll() is None, process.output()
            return "process up" in process.output()

        until(listens, "pgbouncer listens", seconds=60)
        yield port
    finally:
        process.child.kill()
        process.child.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["session", "transaction"])
def broker_url(request: pytest.FixtureRequest, postgresql: PostgresCluster) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    postgresql.execute(f"CREATE DATABASE {name}")
    try:
        with pgbouncer(postgresql, request.param) as port:
            wanted = "?pgbouncer=true" if request.param == "transaction" else ""
            url = f"postgresql+asyncpg://broker@127.0.0.1:{port}/{name}{wanted}"
            run_apart(migrate(url))
            yield url
    finally:
        postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_broker_behind_it_issues_and_its_log_is_whole(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    applied = await admin.api.put(
        "/v1/access", content=POLICY, headers={**bearer(admin), "if-none-match": "*"}
    )
    assert applied.status_code == 200, applied.text
    ada = await logged_in_person(broker, ADA)
    asked = {"role": "data-reader", "parameters": {"bucket": "reports"}, "reason": "look"}
    calls = [
        ada.api.post("/v1/credentials", json=asked, headers=bearer(ada)) for _ in range(CALLERS)
    ]
    answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    assert len({answer.json()["issuance_id"] for answer in answers}) == CALLERS
    export = await admin.api.get("/v1/audit/export", headers=bearer(admin))
    report = verify([export.content])
    assert report.consistent
    assert export.text.count("issuance.issued") == CALLERS
