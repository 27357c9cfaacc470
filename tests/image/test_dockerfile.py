"""The image: what its Dockerfile promises, and that its entry point runs from what it copies.

Its stages are replayed (`replay`), and what comes out is run as the image would run it: by its own
ENTRYPOINT, CMD, ENV and HEALTHCHECK, as uid 10001, without privileges, on a read-only root.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import Process, answers, free_port, until
from tests.image import sandbox
from tests.image.dockerfile import ROOT, Stage, sent, stages
from tests.image.replay import Replay
from tests.image.sandbox import UID, Sandbox
from tools.pinned import pinned

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
ARGUMENTS, STAGES = stages(TEXT)
WHEELS, BUILD, BASE, IMAGE = STAGES
PINS = [ROOT / "requirements" / f"{name}.txt" for name in ("image", "server", "client", "build")]


def test_the_base_is_pinned_and_names_no_host() -> None:
    pinned = re.compile(r"python:\d+\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}")
    assert pinned.fullmatch(ARGUMENTS["PYTHON_IMAGE"])
    assert [stage.base for stage in STAGES] == [
        ARGUMENTS["PYTHON_IMAGE"],
        WHEELS.name,
        ARGUMENTS["PYTHON_IMAGE"],
        "scratch",
    ]


def test_only_the_first_stage_has_a_network() -> None:
    for stage in STAGES[1:]:
        for instruction in stage.all("RUN"):
            assert instruction.flags == {"network": "none"}, instruction.rest


def test_the_last_stage_runs_nothing_and_takes_from_the_others_alone() -> None:
    assert IMAGE.all("RUN") == []
    assert [copy.flags for copy in IMAGE.all("COPY")] == [{"from": BASE.name}, {"from": BUILD.name}]
    for tool in ("usr/bin/apt*", "usr/bin/dpkg*", "usr/local/bin/pip*", "ensurepip"):
        assert tool in BASE.one("RUN").rest


def test_it_runs_as_nobody_and_stops_by_sigterm() -> None:
    assert IMAGE.one("USER").rest == f"{UID}:{UID}"
    assert f"--uid {UID} --gid {UID}" in BASE.one("RUN").rest
    assert IMAGE.one("STOPSIGNAL").rest == "SIGTERM"
    assert IMAGE.one("ENTRYPOINT").exec_form == ["broker"]
    assert IMAGE.one("CMD").exec_form == ["server"]


def test_it_is_labelled() -> None:
    labels = IMAGE.assignments("LABEL")
    wanted = {"title", "description", "licenses", "version", "revision", "created", "base.name"}
    assert {label.removeprefix("org.opencontainers.image.") for label in labels} == wanted


def test_the_builder_is_sent_what_is_copied_and_no_more() -> None:
    names = sent()
    assert {name.partition("/")[0] for name in names} == {
        *("LICENSE", "README.md", "broker", "migrations", "pyproject.toml", "requirements")
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))]
    copied = [source for stage in STAGES for copy in stage.all("COPY") for source in _sources(copy)]
    for name in names:
        assert any(Path(name).is_relative_to(source) for source in copied), name


def _sources(copy) -> list[str]:
    return [] if copy.flags else copy.rest.split()[:-1]


@pytest.mark.parametrize("file", PINS, ids=lambda file: file.stem)
def test_what_is_installed_is_what_was_tested(file: Path) -> None:
    tested = pinned(ROOT / "requirements" / "dev.txt")
    assert pinned(file).items() <= tested.items()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """What the last stage holds of the broker, in a root of its own."""
    sandbox.require()
    replay = Replay(Sandbox(tmp_path_factory.mktemp("build")))
    for stage in (WHEELS, BUILD):
        replay.run(stage)
    built = Sandbox(tmp_path_factory.mktemp("image"))
    built.folder.chmod(0o755)
    built.copy(replay.sandbox, IMAGE.all("COPY")[1].rest.split()[0])
    built.inside(IMAGE.one("WORKDIR").rest).mkdir(parents=True)
    return built


class Container:
    """The image with a state folder of its own, owned by its user."""

    def __init__(self, image: Sandbox, folder: Path, stage: Stage = IMAGE) -> None:
        self.image = image
        self.stage = stage
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.log = folder / "log"
        self.port = free_port()
        os.chown(self.state, UID, UID)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def words(self, *words: str) -> list[str]:
        environment = {
            **self.stage.assignments("ENV"),
            "BROKER_SERVER__PORT": str(self.port),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        folder = self.stage.one("WORKDIR").rest
        return self.image.command(words, environment, folder=folder, state=self.state)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), capture_output=True, text=True, timeout=60, check=False
        )

    def health(self) -> int:
        return self.run(*self.stage.one("HEALTHCHECK").exec_form).returncode


def test_the_image_serves_and_drains(image: Sandbox, tmp_path: Path) -> None:
    container = Container(image, tmp_path)
    entry = IMAGE.one("ENTRYPOINT").exec_form

    migrated = container.run(*entry, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert container.health() != 0

    server = Process(
        container.words(*entry, *IMAGE.one("CMD").exec_form), container.log, {}, tmp_path
    )
    try:
        server.wait_for(f"{container.url}/readyz")
        assert container.health() == 0
        status = Path(f"/proc/{server.child.pid}/status").read_text("utf-8")
        assert re.search(rf"^Uid:\t{UID}\t{UID}\t{UID}\t{UID}$", status, re.MULTILINE)
        assert re.search(r"^Cap(Eff|Prm|Bnd):\t0+$", status, re.MULTILINE)
    finally:
        assert server.stop() == 0, server.output()
    until(lambda: not answers(f"{container.url}/healthz"), "the port to be free")
    assert "Traceback" not in server.output()


def test_the_image_writes_to_its_folder_alone(image: Sandbox, tmp_path: Path) -> None:
    container = Container(image, tmp_path)
    probe = "import os, tempfile; print(*(p for p in ({}) if os.access(p, os.W_OK)))"
    places = "'/', '/opt/broker', '/opt/broker/lib', '/usr/local', '/etc', '/var/lib/broker'"
    found = container.run("python", "-c", probe.format(places))
    assert found.stdout.split() == ["/var/lib/broker"], found.stderr


def test_the_image_takes_the_broker_from_its_wheel(image: Sandbox, tmp_path: Path) -> None:
    container = Container(image, tmp_path)
    probe = (
        "import sys, broker, importlib.util as u, pathlib;"
        "print(broker.__file__, u.find_spec('pytest'), u.find_spec('moto'), u.find_spec('pip'));"
        "import opentelemetry.exporter.otlp.proto.http;"
        "print(all(pathlib.Path(u.cache_from_source(f)).is_file()"
        " for f in pathlib.Path(broker.__file__).parent.rglob('*.py')))"
    )
    found = container.run("python", "-c", probe)
    where, *rest = found.stdout.split()
    assert where.startswith("/opt/broker/lib/"), found.stderr
    assert rest == ["None", "None", "None", "True"]
