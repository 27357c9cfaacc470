"""The Dockerfile's build stages, carried out in sandboxes.

Everything is done as written, but for the lines that fetch and install other projects' wheels:
those are held to their flags and to each other, and what they would install is laid out from the
environment that runs the tests, which has the same pins: these files and no others.
"""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from tests.image.dockerfile import ROOT, Instruction, Stage, sent
from tests.image.sandbox import SITE, Sandbox
from tools.pinned import canonical, pinned

BUILD_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/"}


@dataclass(slots=True)
class Replay:
    """One root, for the stages `wheels` and `build`, of which the later stands on the earlier."""

    sandbox: Sandbox
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=lambda: dict(BUILD_PATH))
    downloaded: dict[str, str] = field(default_factory=dict)

    def run(self, stage: Stage) -> None:
        for instruction in stage.instructions:
            if instruction.word == "WORKDIR":
                self.folder = instruction.rest
                self.sandbox.inside(self.folder).mkdir(parents=True, exist_ok=True)
            elif instruction.word == "ARG":
                name, _, default = instruction.rest.partition("=")
                self.environment[name] = default
            elif instruction.word == "COPY":
                self._copy(instruction)
            elif instruction.word == "RUN":
                for command in instruction.rest.split("&&"):
                    self._command(command.strip(), network="network" not in instruction.flags)
            else:
                raise AssertionError(f"{instruction.word} is not known here")

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = instruction.rest.split()
        there = self.sandbox.inside(self.folder) / target
        for source in map(Path, sources):
            files = [name for name in sent() if Path(name).is_relative_to(source)]
            assert files, f"COPY {source}: nothing of that name reaches the builder"
            for name in files:
                below = Path(name).relative_to(source)
                file = there / (below if below.parts else source.name)
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, file)

    def _command(self, command: str, *, network: bool) -> None:
        words = shlex.split(command)
        if "--requirement" not in words:
            self.sandbox.build(f"cd {self.folder} && {command}", self.environment, network=network)
            return
        assert {"--require-hashes", "--no-deps"} <= set(words), command
        requirements = words[words.index("--requirement") + 1]
        if "download" in words:
            assert words[words.index("--only-binary") + 1] == ":all:", command
            self.downloaded[words[words.index("--dest") + 1]] = requirements
        else:
            assert not network, f"this installs with a network: {command}"
            assert "--no-index" in words, command
            assert self.downloaded[words[words.index("--find-links") + 1]] == requirements
            python = self.sandbox.inside(words[words.index("--python") + 1])
            (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
            lay_out(pinned(self.sandbox.inside(self.folder) / requirements), site)


def lay_out(wanted: dict[str, str], site: Path) -> None:
    """Links to the installed files of the distributions `wanted`, and to no others'."""
    owners: dict[str, set[str]] = {}
    files: dict[str, list[str]] = {}
    for name, version in wanted.items():
        installed = distribution(name)
        assert installed.version == version, f"{name}: pinned {version}, tested {installed.version}"
        record = installed.read_text("RECORD")
        assert record is not None, f"{name} does not say which files are its own"
        files[name] = [file for file, *_ in csv.reader(record.splitlines()) if ".." not in file]
        for file in files[name]:
            owners.setdefault(file.partition("/")[0], set()).add(name)
    for top, names in owners.items():
        # A folder of one distribution is linked as a whole, a shared name space file by file.
        whole = len(names) == 1 and not _shared(top, wanted)
        paths = [top] if whole else [f for n in names for f in files[n] if f.startswith(f"{top}/")]
        for path in paths:
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).symlink_to(SITE / path)


def _shared(top: str, wanted: dict[str, str]) -> bool:
    """Whether distributions that are not wanted have files below the same name too."""
    return bool({canonical(name) for name in _owners().get(top, ())} - wanted.keys())


@cache
def _owners() -> Mapping[str, list[str]]:
    """Which distributions have files below each importable name, here."""
    return packages_distributions()
