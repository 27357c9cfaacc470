"""The base install as one file: `broker.pyz` runs on the standard library alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

import broker
from tests.certificate import its_own_authority
from tests.ci.conftest import World
from tests.ci.issuer import AUDIENCE
from tests.ci.runner import Done, Job, listening

SECRET = "canary-secret-access-key"
PACKAGE = Path(broker.__file__).parent
# zipapp's own --main drops the exit code.
MAIN = "import sys; from broker.entry import main; sys.exit(main())"
# Runs the archive as `python broker.pyz` does, then says where each module came from.
WATCHED = """
import runpy, sys
archive, sys.argv = sys.argv[1], sys.argv[1:]
code = None
try:
    runpy.run_path(archive, run_name="__main__")
except SystemExit as stop:
    code = stop.code
names = {name.partition(".")[0] for name in sys.modules}
foreign = names - sys.stdlib_module_names - {"__main__", "__mp_main__", "broker"}
elsewhere = [
    module.__file__ for name, module in sys.modules.items()
    if name.partition(".")[0] == "broker" and not str(module.__file__).startswith(archive)
]
print("FOREIGN", sorted(foreign), elsewhere, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As docs/ci/README.md builds it: the package, and nothing that it depends on."""
    folder = tmp_path_factory.mktemp("zipapp")
    shutil.copytree(PACKAGE, folder / "app/broker", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "app/__main__.py").write_text(MAIN)
    built = folder / "broker.pyz"
    zipapp.create_archive(folder / "app", built, compressed=True)
    return built


def run(archive: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # -I and -S: neither this directory, nor variables, nor site-packages are looked at.
    return subprocess.run(
        [sys.executable, "-I", "-S", str(archive), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_says_its_version_and_helps_without_any_other_package(archive: Path) -> None:
    version = run(archive, "--version")
    assert (version.returncode, version.stdout) == (0, f"broker {broker.__version__}\n")
    shown = run(archive, "ci", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--audience" in shown.stdout


def test_a_refusal_is_an_exit_code_of_the_process_too(archive: Path) -> None:
    assert run(archive, "no-such-command").returncode == 2


async def test_a_job_exchanges_its_token_with_nothing_imported_from_elsewhere(
    world: World, archive: Path, tmp_path: Path
) -> None:
    certificate = its_own_authority(tmp_path)
    async with listening(world.broker.app, certificate) as origin:
        token = {"BROKER_CI_TOKEN": world.issuer.mint("gitlab")}
        # The image's own authorities do not know this certificate: nothing is sent.
        done = await exchange(archive, Job(tmp_path / "stranger", origin, token))
        assert done.code == 4, done.err
        assert "certificate is not trusted" in done.err
        trusted = {**token, "SSL_CERT_FILE": str(certificate)}
        done = await exchange(archive, Job(tmp_path / "home", origin, trusted))
    assert done.code == 0, done.err
    assert SECRET in done.out
    assert "FOREIGN [] []" in done.err
    assert len(await world.records("ci.exchanged")) == 1


async def exchange(archive: Path, job: Job) -> Done:
    return await job.run(
        *(sys.executable, "-I", "-S", "-c", WATCHED, str(archive)),
        *("ci", "reader", "--audience", AUDIENCE, "--format", "env"),
    )
