"""Reading the Dockerfile and .dockerignore: as much of their grammar as the project's own use."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """`flags` are the leading `--name=value`; `rest` is what follows, continued lines joined."""

    word: str
    flags: dict[str, str]
    rest: str

    @property
    def exec_form(self) -> list[str]:
        """The JSON list of an ENTRYPOINT, CMD or HEALTHCHECK. ValueError for the shell form."""
        words = json.loads(self.rest.removeprefix("CMD "))
        if not isinstance(words, list):
            raise TypeError(f"{self.word} is not in exec form")
        return [str(word) for word in words]


@dataclass(slots=True)
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]

    def one(self, word: str) -> Instruction:
        (instruction,) = self.all(word)
        return instruction

    def assignments(self, word: str) -> dict[str, str]:
        """What the stage's ENV or LABEL instructions set."""
        pairs: dict[str, str] = {}
        for instruction in self.all(word):
            for pair in shlex.split(instruction.rest):
                name, _, value = pair.partition("=")
                pairs[name] = value
        return pairs


def stages(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The global ARGs with their defaults, and the stages in order."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.word == "FROM":
            base, _, name = instruction.rest.partition(" AS ")
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base), name))
        elif found:
            found[-1].instructions.append(instruction)
        else:
            name, _, default = instruction.rest.partition("=")
            arguments[name] = default
    return arguments, found


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        flags: dict[str, str] = {}
        while flag := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            flags[flag[1]] = flag[2]
            rest = rest[flag.end() :]
        found.append(Instruction(word, flags, rest))
    return found


def sent(root: Path = ROOT) -> set[str]:
    """What a builder gets of the tree, by .dockerignore: the paths of files from `root`."""
    lines = (root / ".dockerignore").read_text("utf-8").splitlines()
    globs = [line for line in lines if line and not line.startswith("#")]
    rules = [(glob.startswith("!"), _pattern(glob.removeprefix("!"))) for glob in globs]
    # The first rule leaves everything out: no more need be looked at than what others take back.
    assert globs[0] == "*"
    tops = {glob[1:].partition("/")[0] for glob in globs if glob.startswith("!")}
    paths = [path for top in tops for path in (root / top, *(root / top).rglob("*"))]
    names = (path.relative_to(root).as_posix() for path in paths if path.is_file())
    return {name for name in names if _taken(rules, name)}


def _pattern(glob: str) -> re.Pattern[str]:
    """Matches what the glob names, and what is below it."""
    text = re.escape(glob).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{text}(?:/.*)?")


def _taken(rules: list[tuple[bool, re.Pattern[str]]], name: str) -> bool:
    """The last rule that matches decides."""
    return [back for back, pattern in rules if pattern.fullmatch(name)][-1]
