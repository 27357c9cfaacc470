"""Helm, in a process of its own: its library is Go, whose runtime takes over signals and threads.

`python -m tests.helm.rendering` reads jobs as JSON from standard input (`Job`, a list of them) and
writes what became of each (`Rendered`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "broker"
Document = dict[str, Any]


@dataclass(frozen=True)
class Job:
    values: Document
    name: str = "broker"
    namespace: str = "aws-broker"
    lint: bool = False


@dataclass(frozen=True)
class Rendered:
    """`error` is Helm's, or the chart's own; `messages` are those of `helm lint --strict`."""

    manifests: dict[str, str]
    error: str | None
    messages: list[str] = field(default_factory=list)

    @property
    def notes(self) -> str:
        return self.manifests["broker/templates/NOTES.txt"]

    @cached_property
    def documents(self) -> list[Document]:
        assert not self.error, self.error
        texts = [text for path, text in self.manifests.items() if path.endswith(".yaml")]
        return [one for text in texts for one in yaml.load_all(text, UniqueKeys) if one]

    def of(self, kind: str, name: str | None = None) -> Document:
        (found,) = self.all(kind, name)
        return found

    def all(self, kind: str, name: str | None = None) -> list[Document]:
        return [
            one
            for one in self.documents
            if one["kind"] == kind and name in (None, one["metadata"]["name"])
        ]

    @property
    def pods(self) -> dict[str, Document]:
        """Each pod template, by `kind/name`."""
        return {
            f"{one['kind']}/{one['metadata']['name']}": one["spec"]["template"]
            for one in self.documents
            if one["kind"] in {"Deployment", "Job"}
        }


class UniqueKeys(yaml.SafeLoader):
    """Of a key that stands twice YAML keeps the last: whoever wrote the first is not told."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}"
        return super().construct_mapping(node, deep)


def render(jobs: Sequence[Job]) -> list[Rendered]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helm.rendering"],
        input=json.dumps([vars(job) for job in jobs]),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return [Rendered(**one) for one in json.loads(done.stdout)]


def _main() -> None:
    import helm_python  # noqa: PLC0415 - in this process alone

    answers = []
    with helm_python.Chart.load(CHART) as chart:
        for job in json.load(sys.stdin):
            answer: dict[str, Any] = {"manifests": {}, "error": None, "messages": []}
            try:
                answer["manifests"] = chart.render(
                    job["values"], name=job["name"], namespace=job["namespace"]
                )
            except helm_python.HelmError as refused:
                answer["error"] = str(refused)
            if job["lint"]:
                report = helm_python.lint(CHART, job["values"], strict=True)
                answer["messages"] = [
                    one["error"]
                    for one in report["messages"]
                    if one["error"] != "icon is recommended"
                ] + report["errors"]
            answers.append(answer)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    _main()
