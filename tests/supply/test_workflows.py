"""The workflows: pinned, with the least rights, and their commands are the project's."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.image.dockerfile import stages

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
# YAML 1.1 reads the key `on` as a boolean.
WORKFLOWS: dict[str, dict[Any, Any]] = {
    file.stem: yaml.safe_load(file.read_text("utf-8")) for file in FILES
}
JOBS = [
    (name, job, content)
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
]
GITLAB: dict[str, Any] = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text("utf-8"))
GITLAB_JOBS = {name: job for name, job in GITLAB.items() if "script" in job}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
# What each job may write, and nothing else may.
WRITES = {
    ("release", "attest"): {"id-token", "attestations"},
    ("release", "image"): {"packages"},
    ("release", "index"): {"packages", "id-token", "attestations"},
    ("release", "packages"): {"id-token"},
    ("release", "release"): {"contents"},
}


def test_zizmor_finds_nothing() -> None:
    tool = Path(sysconfig.get_path("scripts"), "zizmor")
    done = subprocess.run(
        [tool, "--offline", "--no-progress", "--persona=pedantic", ROOT / ".github/workflows"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_action_is_pinned_to_a_commit_and_says_its_version(file: Path) -> None:
    used = re.findall(r"uses: (.+)$", file.read_text("utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_one_action_has_one_version_in_every_file() -> None:
    used = {line for f in FILES for line in re.findall(r"uses: (\S+)", f.read_text("utf-8"))}
    assert len({action.partition("@")[0] for action in used}) == len(used)


@pytest.mark.parametrize(("workflow", "job", "content"), JOBS, ids=[f"{w}-{j}" for w, j, _ in JOBS])
def test_each_job_has_the_rights_of_its_step(
    workflow: str, job: str, content: dict[str, Any]
) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {}
    given = content["permissions"]
    assert {k for k, v in given.items() if v == "write"} == WRITES.get((workflow, job), set())
    assert {k for k, v in given.items() if v == "read"} <= {"contents"}
    checkouts = [s for s in content["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    # What may publish under the project's name runs none of its code; of what builds an image
    # only the builder does, in containers of its own.
    if "id-token" in given:
        assert not checkouts
    if WRITES.get((workflow, job), set()) - {"contents"}:
        assert content["environment"] in {"release", "packages"}


def test_no_workflow_uses_a_secret_of_the_repository() -> None:
    for file in FILES:
        assert "secrets." not in file.read_text("utf-8")


def test_every_command_is_one_of_the_project() -> None:
    lines = [step.get("run", "") for *_, job in JOBS for step in job["steps"]]
    lines += [line for job in GITLAB_JOBS.values() for line in job["script"]]
    wanted = [
        target
        for line in lines
        for words in re.findall(r"\bmake(?: -C \S+)?((?: [a-z]+)+)$", line, re.MULTILINE)
        for target in words.split()
    ]
    assert {"sbom", "licences", "audit", "dist"} <= set(wanted) <= TARGETS
    assert sum("bash .ci/run" in line for line in lines) == 2
    assert (ROOT / ".ci/run").is_file()


def test_gitlab_runs_in_pinned_images_the_dockerfiles_among_them() -> None:
    images = {GITLAB["default"]["image"], *(j.get("image", "") for j in GITLAB_JOBS.values())} - {
        ""
    }
    arguments, _ = stages((ROOT / "Dockerfile").read_text("utf-8"))
    assert arguments["PYTHON_IMAGE"] in images
    for image in images:
        assert re.fullmatch(r"python:[\d.]+-slim-[a-z]+@sha256:[0-9a-f]{64}", image)


def test_one_job_on_gitlab_has_a_token_and_runs_only_for_tags() -> None:
    with_token = [name for name, job in GITLAB_JOBS.items() if "JOB_TOKEN" in str(job)]
    assert with_token == ["push"]
    assert GITLAB_JOBS["push"]["rules"] == [{"if": "$CI_COMMIT_TAG"}]
    assert "make" not in str(GITLAB_JOBS["push"]["script"])
