"""One stand-in's IAM and S3, kept by moto, apart from every other stand-in's in this process.

Owns the only contact with moto: its state, its WSGI applications and the two
places where it is patched while any stand-in runs.

- moto keeps its state in module globals. They are replaced by proxies that lead
  to the world of the request at hand, so that two stand-ins never share a role.
- moto's own reading of bucket policies ignores Principal and Condition; it is
  switched off, since gate.py has decided by then. Only the per-object refusals
  of a bulk delete are handed on through it.

moto's own authorization stays off. Nothing reaches moto that the gate did not
authenticate and allow.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from moto.core.base_backend import BackendDict
from moto.iam import models as iam_models
from moto.iam.access_control import PermissionResult
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3 import models as s3_models
from moto.utilities.utils import get_partition
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request as WerkzeugRequest

# moto's objects: its classes are typed, what they hold is read dynamically.
Moto = Any

_current: ContextVar[World | None] = ContextVar("aws_standin_world", default=None)
_refused: ContextVar[frozenset[str]] = ContextVar("aws_standin_refused", default=frozenset())


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role as IAM has it at this moment."""

    arn: str
    account: str
    id: str
    name: str
    trust: str
    max_session_duration: int
    policies: tuple[str, ...]  # inline and attached
    boundary: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UserRecord:
    arn: str
    account: str
    id: str
    name: str
    policies: tuple[str, ...]
    boundary: str | None
    tags: Mapping[str, str]


class World:
    """The IAM and S3 state of one stand-in. Its methods may be called from any thread."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.partition: str = get_partition(region)
        self.lock = threading.RLock()
        self.iam: Any = BackendDict(
            iam_models.IAMBackend,
            "iam",
            use_boto3_regions=False,
            additional_regions=[self.partition],
        )
        self.s3: Any = s3_models.S3BackendDict(
            s3_models.S3Backend,
            "s3",
            use_boto3_regions=False,
            additional_regions=[self.partition],
        )
        _install()
        self._open = True

    def close(self) -> None:
        """Drop the state; moto is unpatched with the last world."""
        if not self._open:
            return
        self._open = False
        with self.entered():
            for account in list(self.s3.values()):
                for backend in account.values():
                    for bucket in backend.buckets.values():
                        for key in bucket.keys.values():
                            key.dispose()
        _uninstall()

    @contextlib.contextmanager
    def entered(self, refused: frozenset[str] = frozenset()) -> Iterator[None]:
        """Within: moto's globals are this world's, on this thread.

        `refused`: ARNs of objects that a bulk delete must leave.
        """
        with self.lock:
            world, keys = _current.set(self), _refused.set(refused)
            try:
                yield
            finally:
                _refused.reset(keys)
                _current.reset(world)

    def iam_of(self, account: str) -> Moto:
        """moto's IAM backend of an account; use it inside `entered()`."""
        return self.iam[account][self.partition]

    def s3_of(self, account: str) -> Moto:
        """moto's S3 backend of an account; use it inside `entered()`."""
        return self.s3[account][self.partition]

    def role(self, arn: str) -> RoleRecord | None:
        account = arn.split(":")[4] if arn.count(":") >= 5 else ""
        with self.entered():
            if account not in self.iam:
                return None
            backend = self.iam_of(account)
            role = next((r for r in backend.roles.values() if r.arn == arn), None)
            if role is None:
                return None
            return RoleRecord(
                arn=arn,
                account=account,
                id=role.id,
                name=role.name,
                trust=role.assume_role_policy_document,
                max_session_duration=int(role.max_session_duration or 3600),
                policies=(*role.policies.values(), *_documents(role.managed_policies.values())),
                boundary=self._boundary(role.permissions_boundary_arn),
                tags={tag["Key"]: tag["Value"] for tag in role.tags},
            )

    def user_of_key(self, access_key_id: str) -> tuple[UserRecord, str] | None:
        """The user that holds an active long-term key, and the key's secret."""
        with self.entered():
            for account in list(self.iam):
                backend = self.iam_of(account)
                key = backend.access_keys.get(access_key_id)
                if key is not None and key.status == "Active" and key.user_name in backend.users:
                    return self._user(account, key.user_name), key.secret_access_key
        return None

    def _user(self, account: str, name: str) -> UserRecord:
        backend = self.iam_of(account)
        user = backend.users[name]
        policies = [*user.policies.values(), *_documents(user.managed_policies.values())]
        for group in backend.get_groups_for_user(name):
            policies += [*group.policies.values(), *_documents(group.managed_policies.values())]
        return UserRecord(
            arn=user.arn,
            account=account,
            id=user.id,
            name=name,
            policies=tuple(policies),
            boundary=None,
            tags=backend.tagger.get_tag_dict_for_resource(user.arn),
        )

    def user(self, account: str, name: str) -> UserRecord | None:
        with self.entered():
            if account not in self.iam or name not in self.iam_of(account).users:
                return None
            return self._user(account, name)

    def managed_policy(self, arn: str) -> str | None:
        """The document of a customer's or AWS's managed policy."""
        parts = arn.split(":", 5)
        if len(parts) != 6 or not parts[5].startswith("policy/"):
            return None
        if parts[4] == "aws":
            return _aws_policy(arn.rsplit("/", 1)[1])
        with self.entered():
            if parts[4] not in self.iam:
                return None
            policy = self.iam_of(parts[4]).managed_policies.get(arn)
            return None if policy is None else _documents([policy])[0]

    def _boundary(self, arn: str | None) -> str | None:
        return None if arn is None else self.managed_policy(arn)

    def bucket(self, name: str) -> tuple[str, str | None] | None:
        """The account that owns a bucket and the bucket's policy, or None."""
        with self.entered():
            if name not in self.s3.bucket_accounts:
                return None
            account = self.s3.bucket_accounts[name][1]
            policy = self.s3_of(account).buckets[name].policy
            return account, None if policy is None else policy.decode("utf-8", "replace")

    def has_object(self, bucket: str, key: str) -> bool:
        with self.entered():
            account = self.s3.bucket_accounts[bucket][1]
            return self.s3_of(account).get_object(bucket, key) is not None

    def call(
        self, service: str, environ: dict[str, Any], refused: frozenset[str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Let moto answer a request that was already decided."""
        with self.entered(refused):
            chunks, status, headers = run_wsgi_app(_application(service), environ, buffered=True)
            body = b"".join(chunks)
        return int(status.split()[0]), list(headers.items()), body


def _documents(policies: Moto) -> list[str]:
    return [
        next(version.document for version in policy.versions if version.is_default)
        for policy in policies
    ]


@lru_cache(maxsize=1)
def _aws_policies() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(aws_managed_policies_data)
    return parsed


def _aws_policy(name: str) -> str | None:
    found = _aws_policies().get(name)
    return None if found is None else json.dumps(found["Document"])


@lru_cache(maxsize=2)
def _application(service: str) -> Moto:
    # Only used to route: the state is found through the proxies at each request.
    return create_backend_app(service)  # type: ignore[arg-type]


def environ_of(
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    netloc: str,
    account: str,
) -> dict[str, Any]:
    """A WSGI environment for moto, with the host and account that the stand-in determined."""
    kept = {
        name: value
        for name, value in headers.items()
        # Headers by which moto would take another account, host or body length.
        if name not in ("x-moto-account-id", "host", "content-length", "transfer-encoding")
    }
    target = quote(path, safe="/%~:@!$&'()*+,;=-._")
    request = WerkzeugRequest.from_values(
        method=method,
        path=target,
        query_string=query,
        base_url=f"http://{netloc}/",
        headers={**kept, "x-moto-account-id": account},
        data=body,
    )
    environ = request.environ
    raw = f"{path}?{query}" if query else path
    environ.update({"RAW_URI": raw, "REQUEST_URI": raw, "CONTENT_LENGTH": str(len(body))})
    return environ


class _Proxy:
    """Stands where moto keeps its state and leads to the current world's."""

    def __init__(self, original: Moto, attribute: str) -> None:
        self._original = original
        self._attribute = attribute

    def _target(self) -> Moto:
        world = _current.get()
        return self._original if world is None else getattr(world, self._attribute)

    def __getattr__(self, name: str) -> Moto:
        return getattr(self._target(), name)

    def __getitem__(self, account: str) -> Moto:
        return self._target()[account]

    def __contains__(self, account: object) -> bool:
        return account in self._target()

    def __iter__(self) -> Iterator[str]:
        return iter(self._target())


_patching = threading.Lock()
_worlds = 0
_undo: list[tuple[Any, str, Any]] = []


def _install() -> None:
    global _worlds  # noqa: PLW0603 - counts the running worlds: the patch is the process's
    with _patching:
        _worlds += 1
        if _worlds > 1:
            return
        # Built before the patch: creating them reads moto's globals.
        _application("iam")
        _application("s3")
        for name, original, attribute in (
            ("iam_backends", iam_models.iam_backends, "iam"),
            ("s3_backends", s3_models.s3_backends, "s3"),
        ):
            proxy = _Proxy(original, attribute)
            for module in list(sys.modules.values()):
                if getattr(module, "__name__", "").startswith("moto.") and (
                    vars(module).get(name) is original
                ):
                    _replace(module, name, proxy)
        _replace(s3_models.FakeBucket, "get_permission", _get_permission)


def _uninstall() -> None:
    global _worlds  # noqa: PLW0603 - see _install
    with _patching:
        _worlds -= 1
        if _worlds == 0:
            while _undo:
                owner, name, original = _undo.pop()
                setattr(owner, name, original)


def _replace(owner: Moto, name: str, value: Moto) -> None:
    _undo.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _get_permission(bucket: Moto, action: str, resource: str) -> PermissionResult:
    del bucket, action
    return PermissionResult.DENIED if resource in _refused.get() else PermissionResult.NEUTRAL
