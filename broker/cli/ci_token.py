"""The CI platform's own token for this job: where each platform keeps it, and how to ask for it.

Owns: finding it. Its text is never printed, and never an argument of a command.
Does not own: what it is exchanged for (`ci_job`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from broker.cli.failure import LocalFailure, NotLoggedIn, WrongUsage
from broker.cli.server import Server
from broker.cli.terminal import clean
from broker.cli.transport import Transport

MAX_TOKEN = 16 * 1024
_COMMAND_SECONDS = 30
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# Where docs/ci/kubernetes.md projects a service account token.
KUBERNETES_PATH = "/var/run/secrets/broker/token"
# Names that platforms or their users give to a token that is there from the start.
_GIVEN = (
    ("GitLab CI", "GITLAB_OIDC_TOKEN"),
    ("Bitbucket Pipelines", "BITBUCKET_STEP_OIDC_TOKEN"),
    ("HCP Terraform", "TFC_WORKLOAD_IDENTITY_TOKEN"),
)
_HOW = (
    "no CI token is here. GitHub needs `permissions: id-token: write`, GitLab an `id_tokens:` "
    "entry named BROKER_CI_TOKEN, Bitbucket `oidc: true`; anywhere else set BROKER_CI_TOKEN or "
    "BROKER_CI_TOKEN_FILE"
)


class Source(NamedTuple):
    """Where a token comes from. `secret` is something of this job alone, which names the file of
    its job token: another job on the same machine can't name it.
    """

    platform: str
    secret: str
    fetch: Callable[[], str]

    def __repr__(self) -> str:
        return f"Source({self.platform})"

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.platform}\n{self.secret}".encode()).hexdigest()[:40]


def find(environment: Mapping[str, str], audience: str, *, debug: bool = False) -> Source:
    """The first of: what the caller set, then what each platform offers. Raises NotLoggedIn
    where there is nothing, WrongUsage or LocalFailure where it can't be used.
    """
    return (
        _set_by_the_caller(environment)
        or _github(environment, audience, debug=debug)
        or _buildkite(environment, audience)
        or _circleci(environment, audience)
        or _given(environment)
        or _kubernetes()
        or _nothing()
    )


def checked(text: str, where: str) -> str:
    """A token's text, without the line break that files end in. Raises WrongUsage."""
    text = text.strip()
    if len(text) > MAX_TOKEN or not _TOKEN.fullmatch(text):
        raise WrongUsage(f"{where} holds no OIDC token (three parts of base64url)")
    return text


def _nothing() -> Source:
    raise NotLoggedIn(_HOW)


def _set_by_the_caller(environment: Mapping[str, str]) -> Source | None:
    given = environment.get("BROKER_CI_TOKEN")
    if given:
        return _constant("BROKER_CI_TOKEN", checked(given, "BROKER_CI_TOKEN"))
    path = environment.get("BROKER_CI_TOKEN_FILE")
    return _file(path, "BROKER_CI_TOKEN_FILE") if path else None


def _file(path: str, name: str) -> Source:
    """Read anew each time: a projected token is replaced while the job runs."""

    def read() -> str:
        try:
            with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - start-up time
                text = file.read(MAX_TOKEN + 2)
        except OSError as error:
            raise LocalFailure(f"{name}: {clean(path, 200)}: {error.strerror}") from None
        return checked(text, name)

    return Source(name, f"{path}\n{read()}", read)


def _github(environment: Mapping[str, str], audience: str, *, debug: bool) -> Source | None:
    url = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    secret = environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not secret:
        if environment.get("GITHUB_ACTIONS") == "true":
            raise NotLoggedIn(
                "this GitHub job may not have an OIDC token: add `permissions: id-token: write`"
            )
        return None

    def fetch() -> str:
        parts = urlsplit(url)
        server = Server.parse(f"{parts.scheme}://{parts.netloc}")
        query = f"{parts.query}&" if parts.query else ""
        answer = Transport(server, debug=debug).request(
            "GET",
            f"{parts.path or '/'}?{query}audience={quote(audience, safe='')}",
            headers={"Authorization": f"Bearer {secret}"},
        )
        try:
            value = answer.json()
        except ValueError:
            value = None
        token = value.get("value") if isinstance(value, dict) else None
        if answer.status != 200 or not isinstance(token, str):
            raise LocalFailure(f"GitHub answered {answer.status} and gave no OIDC token")
        return checked(token, "GitHub's answer")

    return Source("GitHub Actions", secret, fetch)


def _buildkite(environment: Mapping[str, str], audience: str) -> Source | None:
    if environment.get("BUILDKITE") != "true":
        return None
    words = ["buildkite-agent", "oidc", "request-token", "--audience", audience]
    words += ["--claim", "organization_id", "--claim", "pipeline_id"]
    secret = environment.get("BUILDKITE_AGENT_ACCESS_TOKEN", "")
    job = environment.get("BUILDKITE_JOB_ID", "")
    return Source("Buildkite", f"{secret}\n{job}", lambda: _run(words))


def _circleci(environment: Mapping[str, str], audience: str) -> Source | None:
    if environment.get("CIRCLECI") != "true":
        return None
    given = environment.get("CIRCLE_OIDC_TOKEN_V2") or environment.get("CIRCLE_OIDC_TOKEN") or ""
    if shutil.which("circleci") is None:
        if not given:
            raise NotLoggedIn("this CircleCI job has no OIDC token: is it in a context?")
        return _constant("CircleCI", checked(given, "CIRCLE_OIDC_TOKEN_V2"))
    claims = json.dumps({"aud": audience})
    words = ["circleci", "run", "oidc", "get", "--claims", claims]
    job = environment.get("CIRCLE_WORKFLOW_JOB_ID", "")
    return Source("CircleCI", f"{given}\n{job}", lambda: _run(words))


def _given(environment: Mapping[str, str]) -> Source | None:
    for platform, name in _GIVEN:
        if value := environment.get(name):
            return _constant(platform, checked(value, name))
    return None


def _constant(platform: str, token: str) -> Source:
    return Source(platform, token, lambda: token)


def _kubernetes() -> Source | None:
    if not os.path.exists(KUBERNETES_PATH):  # noqa: PTH110 - pathlib costs start-up time
        return None
    return _file(KUBERNETES_PATH, "Kubernetes")


def _run(words: list[str]) -> str:
    program = words[0]
    try:
        done = subprocess.run(words, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
    except FileNotFoundError:
        raise LocalFailure(
            f"{program} is not on PATH: it is what gives the job its token"
        ) from None
    except subprocess.TimeoutExpired:
        raise LocalFailure(f"{program} gave no token in {_COMMAND_SECONDS} s") from None
    if done.returncode != 0:
        said = clean(done.stderr.decode("utf-8", "replace").strip(), 300)
        raise LocalFailure(f"{program} gave no token: {said}")
    return checked(done.stdout.decode("ascii", "replace"), program)
