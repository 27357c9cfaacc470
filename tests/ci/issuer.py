"""A local issuer that mints what CI platforms would, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import ECKey, Key, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "https://broker.test"
RUNNER_SECRET = "runner-secret"
Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ec_key(seed: int) -> ECKey:
    raw = ec.derive_private_key(seed, ec.SECP256R1())
    return ECKey(raw, raw)


def rsa_key() -> RSAKey:
    raw = rsa.generate_private_key(65537, 2048)
    return RSAKey(raw, raw)


def public(key: Key, key_id: str) -> dict[str, object]:
    return {**key.as_dict(private=False), "kid": key_id, "use": "sig"}


@dataclass
class Answer:
    """`body` is sent as JSON unless it is bytes already; `raw` takes the connection over."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: Raw | None = None


PLATFORMS: dict[str, dict[str, object]] = {
    "github": {
        "sub": "repo:octo/repo:environment:production",
        "repository": "octo/repo",
        "repository_id": "42",
        "repository_owner": "octo",
        "repository_owner_id": "7",
        "repository_visibility": "private",
        "environment": "production",
        "event_name": "push",
        "ref": "refs/heads/main",
        "ref_protected": "true",
        "ref_type": "branch",
        "run_id": "1658821493",
        "run_attempt": "1",
        "run_number": "10",
        "runner_environment": "github-hosted",
        "actor": "octocat",
        "actor_id": "12",
        "sha": "5c3b1e",
        "workflow": "deploy",
        "workflow_ref": "octo/repo/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "octo/repo/.github/workflows/deploy.yml@refs/heads/main",
    },
    "gitlab": {
        "sub": "project_path:acme/app:ref_type:branch:ref:main",
        "namespace_id": "72",
        "namespace_path": "acme",
        "project_id": "20",
        "project_path": "acme/app",
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
        "runner_id": 1,
        "runner_environment": "gitlab-hosted",
        "user_id": "1",
        "user_login": "sample",
    },
    "kubernetes": {
        "sub": "system:serviceaccount:prod:deploy",
        "kubernetes.io": {
            "namespace": "prod",
            "node": {"name": "n1", "uid": "node-uid"},
            "pod": {"name": "deploy-5d", "uid": "pod-uid"},
            "serviceaccount": {"name": "deploy", "uid": "sa-uid"},
            "warnafter": 1700000000,
        },
    },
    "buildkite": {
        "sub": "organization:acme:pipeline:app:ref:refs/heads/main:commit:9f:step:build",
        "organization_slug": "acme",
        "organization_id": "org-uuid",
        "pipeline_slug": "app",
        "pipeline_id": "pipe-uuid",
        "build_number": 12,
        "build_branch": "main",
        "job_id": "job-uuid",
        "agent_id": "agent-uuid",
        "step_key": "build",
    },
    "circleci": {
        "sub": "org/o/project/p/user/u",
        "oidc.circleci.com/project-id": "project-uuid",
        "oidc.circleci.com/context-ids": ["context-uuid"],
        "oidc.circleci.com/vcs-origin": "github.com/acme/app",
        "oidc.circleci.com/vcs-ref": "refs/heads/main",
        "oidc.circleci.com/ssh-rerun": False,
    },
    "bitbucket": {
        "sub": "{repo-uuid}:{step-uuid}",
        "workspaceUuid": "{workspace-uuid}",
        "repositoryUuid": "{repo-uuid}",
        "branchName": "main",
        "pipelineUuid": "{pipeline-uuid}",
        "stepUuid": "{step-uuid}",
    },
    "terraform-cloud": {
        "sub": "organization:acme:project:p:workspace:w:run_phase:apply",
        "terraform_organization_id": "org-1",
        "terraform_organization_name": "acme",
        "terraform_workspace_id": "ws-1",
        "terraform_workspace_name": "prod",
        "terraform_run_id": "run-1",
        "terraform_run_phase": "apply",
    },
}

_ENTRIES = {
    "github": 'repository_id: "42", repository_owner_id: "7", ref: refs/heads/main,'
    ' environment: production, ref_protected: "true"',
    "gitlab": 'project_id: "20", namespace_id: "72", ref_protected: "true", ref: main',
    "kubernetes": "kubernetes.io: {namespace: prod, serviceaccount: {name: deploy, uid: sa-uid}}",
    "buildkite": "organization_id: org-uuid, pipeline_id: pipe-uuid, build_branch: main",
    "circleci": "oidc.circleci.com/project-id: project-uuid, oidc.circleci.com/ssh-rerun: false",
    "bitbucket": 'workspaceUuid: "{workspace-uuid}", repositoryUuid: "{repo-uuid}"',
    "terraform-cloud": "terraform_organization_id: org-1, terraform_workspace_id: ws-1,"
    " terraform_run_phase: apply",
}


class LocalIssuer:
    """Every platform under a path of its own: `issuer("github")`. One key set for all."""

    def __init__(self) -> None:
        self.origin = ""
        self.keys: dict[str, Key] = {"k1": ec_key(1)}
        self.published: dict[str, Key] = dict(self.keys)
        self.replaced: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.minted = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def issuer(self, platform: str) -> str:
        return f"{self.origin}/{platform}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.origin = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    # --- Minting -----------------------------------------------------------------------

    def claims(self, platform: str = "github", **changes: object) -> dict[str, object]:
        """What the platform would say; a change to None leaves the claim out."""
        self.minted += 1
        now = int(time.time())
        claims = {
            "iss": self.issuer(platform),
            "aud": [AUDIENCE] if platform == "kubernetes" else AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": f"token-{self.minted}",
            **PLATFORMS[platform],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def mint(self, platform: str = "github", **changes: object) -> str:
        return self.sign(json.dumps(self.claims(platform, **changes)))

    def sign(
        self, payload: str | bytes, *, key_id: str = "k1", header: dict[str, object] | None = None
    ) -> str:
        """Any payload at all, signed."""
        key = self.keys[key_id]
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        header = {"alg": algorithm, "typ": "JWT", "kid": key_id, **(header or {})}
        payload = payload.encode() if isinstance(payload, str) else payload
        body = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
        signature = JWSRegistry.algorithms[algorithm].sign(body.encode(), key)
        return f"{body}.{b64(signature)}"

    # --- Serving -----------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        self.requests.append(path)
        answer = self.replaced.get(path.rpartition("/")[2]) or self._document(path)
        if path.startswith("/runner/"):
            answer = self._runner(path, head)
        if answer.raw is not None:
            await answer.raw(writer)
            return
        body = answer.body
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **answer.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode() + body)
        await writer.drain()

    def _runner(self, path: str, head: str) -> Answer:
        """GitHub's runner service: a token for whatever audience a step with its secret names."""
        if f"authorization: bearer {RUNNER_SECRET}" not in head.lower():
            return Answer({}, 401)
        audience = dict(parse_qsl(urlsplit(path).query)).get("audience")
        return Answer({"value": self.mint("github", aud=audience), "count": 1})

    def _document(self, path: str) -> Answer:
        platform = path.strip("/").partition("/")[0]
        if path.endswith("/openid-configuration"):
            issuer = self.issuer(platform)
            return Answer({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"})
        if path.endswith("/jwks"):
            return Answer({"keys": [public(key, kid) for kid, key in self.published.items()]})
        return Answer({"error": "not_found"}, 404)


def policy_text(issuer: LocalIssuer, *, more: str = "", extra_entries: str = "") -> str:
    """A policy with one entry a platform; `more` goes into each of them."""
    entries = "\n".join(
        f"  {name}: {{issuer: {issuer.issuer(name)!r}, audience: {AUDIENCE!r}, preset: {name},"
        f" claims: {{{claims}}}{more}}}"
        for name, claims in _ENTRIES.items()
    )
    rights = "\n".join(
        f"  - {{role: reader, to: {{workload: {name}}}, mode: standing, max_duration: 2h}}"
        for name in _ENTRIES
    )
    return f"""\
version: 1
accounts: {{prod: {{id: "111122223333"}}}}
admins: [{{group: corp/platform}}, {{workload: gitlab}}]
roles:
  reader:
    account: prod
    role_arn: arn:aws:iam::111122223333:role/R
    role_maximum: 4h
    unscoped: true
  other: {{account: prod, role_arn: "arn:aws:iam::111122223333:role/O", unscoped: true}}
  tagged:
    account: prod
    role_arn: arn:aws:iam::111122223333:role/T
    session_policy:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Action: "s3:GetObject"
          Resource: "arn:aws:s3:::b/{{{{principal.claims.repository_id}}}}/*"
    tags: {{repository: "{{{{principal.claims.repository}}}}", ref: "{{{{principal.claims.ref}}}}"}}
workloads:
{entries}
{extra_entries}
entitlements:
  - {{role: reader, to: {{group: corp/analysts}}, mode: standing}}
  - {{role: tagged, to: {{workload: github}}, mode: standing, max_duration: 1h}}
{rights}
"""
