"""Every access key the stand-in knows, and the request context each one brings.

Owns the stand-in's own record of sessions: role, session policies, tags, source
identity, times. A key that is not here and not a user's in IAM is refused. Does
not own signatures (sigv4.py) nor the issuing rules (sts.py).
"""

from __future__ import annotations

import base64
import dataclasses
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.devstack.aws.evaluate import Caller, CallerPolicies
from broker.devstack.aws.grammar import DENY_ALL, Kind, MalformedPolicy, Policy, parse
from broker.devstack.aws.wire import timestamp
from broker.devstack.aws.world import UserRecord, World

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class RoleSession:
    """What AssumeRole fixed when it issued a session's credentials."""

    role_arn: str
    role_id: str
    session_name: str
    policy: str | None
    policy_arns: tuple[str, ...]
    tags: Mapping[str, str]  # inherited ones included, in the case they were passed
    transitive: frozenset[str]  # lower case
    source_identity: str | None
    issued_at: float  # seconds since the epoch

    @property
    def arn(self) -> str:
        _, partition, _, _, account, name = self.role_arn.split(":", 5)
        role_name = name.rsplit("/", 1)[1]
        return f"arn:{partition}:sts::{account}:assumed-role/{role_name}/{self.session_name}"

    @property
    def assumed_role_id(self) -> str:
        return f"{self.role_id}:{self.session_name}"


@dataclass(frozen=True, slots=True)
class Root:
    """The account's root user."""

    partition: str


@dataclass(frozen=True, slots=True)
class Key:
    """One access key. `session_token` and `expires_at` are None for long-term keys."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    account: str
    expires_at: float | None
    holder: RoleSession | UserRecord | Root

    @property
    def arn(self) -> str:
        if isinstance(self.holder, Root):
            return f"arn:{self.holder.partition}:iam::{self.account}:root"
        return self.holder.arn

    @property
    def user_id(self) -> str:
        match self.holder:
            case RoleSession():
                return self.holder.assumed_role_id
            case UserRecord():
                return self.holder.id
            case Root():
                return self.account


class Keys:
    """The registry. Thread-safe."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}

    def find(self, access_key_id: str) -> Key | None:
        with self._lock:
            key = self._keys.get(access_key_id)
        if key is not None:
            return key
        found = self._world.user_of_key(access_key_id)
        if found is None:
            return None
        user, secret = found
        return Key(access_key_id, secret, None, user.account, None, user)

    def issue(self, session: RoleSession, *, expires_at: float, token_size: int = 0) -> Key:
        """New temporary credentials; `token_size` is the least length of the token."""
        account = session.role_arn.split(":")[4]
        key = Key("ASIA" + _random(16), _secret(), _token(token_size), account, expires_at, session)
        with self._lock:
            self._keys[key.access_key_id] = key
        return key

    def issue_root(self, account: str, partition: str) -> Key:
        key = Key("AKIA" + _random(16), _secret(), None, account, None, Root(partition))
        with self._lock:
            self._keys[key.access_key_id] = key
        return key

    def expire(self, access_key_id: str, at: float) -> None:
        """Let a session's credentials end at `at`. Raises KeyError for a key it never issued."""
        with self._lock:
            key = self._keys[access_key_id]
            self._keys[access_key_id] = dataclasses.replace(key, expires_at=at)


def caller_of(key: Key) -> Caller:
    role_arn = key.holder.role_arn if isinstance(key.holder, RoleSession) else None
    return Caller(key.arn, key.account, role_arn, isinstance(key.holder, Root))


def policies_of(key: Key, world: World) -> CallerPolicies:
    """The caller's policies as they stand now: a role's are read at each request, as AWS does."""
    match key.holder:
        case Root():
            return CallerPolicies(())
        case UserRecord():
            return CallerPolicies(_parsed(key.holder.policies), None, _one(key.holder.boundary))
    session = key.holder
    role = world.role(session.role_arn)
    if role is None or role.id != session.role_id:
        # Deleted, or deleted and made anew: the session's rights went with it.
        return CallerPolicies((DENY_ALL,))
    return CallerPolicies(
        _parsed(role.policies), _session_policies(session, world), _one(role.boundary)
    )


def _session_policies(session: RoleSession, world: World) -> tuple[Policy, ...] | None:
    if session.policy is None and not session.policy_arns:
        return None
    inline = [] if session.policy is None else [session.policy]
    managed = [world.managed_policy(arn) for arn in session.policy_arns]
    # A managed policy deleted since then grants nothing; the session stays restricted.
    return _parsed([*inline, *(document for document in managed if document is not None)])


def _parsed(documents: tuple[str, ...] | list[str]) -> tuple[Policy, ...]:
    return tuple(_fail_closed(document) for document in documents)


def _one(document: str | None) -> Policy | None:
    return None if document is None else _fail_closed(document)


def _fail_closed(document: str) -> Policy:
    try:
        return parse(document, Kind.IDENTITY)
    except MalformedPolicy:
        return DENY_ALL


def principal_tags(key: Key, world: World) -> dict[str, str]:
    """The caller's tags: a session tag takes the place of a role's tag of the same key."""
    match key.holder:
        case Root():
            return {}
        case UserRecord():
            return dict(key.holder.tags)
    role = world.role(key.holder.role_arn)
    tags = {} if role is None else dict(role.tags)
    passed = {name.lower() for name in key.holder.tags}
    kept = {name: value for name, value in tags.items() if name.lower() not in passed}
    return {**kept, **key.holder.tags}


def context_of(
    key: Key, world: World, *, now: float, source_ip: str, region: str
) -> dict[str, tuple[str, ...]]:
    """The global condition keys of a request, names in lower case."""
    context: dict[str, tuple[str, ...]] = {
        "aws:currenttime": (timestamp(now),),
        "aws:epochtime": (str(int(now)),),
        "aws:sourceip": (source_ip,),
        "aws:requestedregion": (region,),
        # Real AWS endpoints are https; plain http on loopback stands in for them.
        "aws:securetransport": ("true",),
        "aws:viaawsservice": ("false",),
        "aws:principalaccount": (key.account,),
        "aws:userid": (key.user_id,),
    }
    match key.holder:
        case Root():
            context["aws:principaltype"] = ("Account",)
            context["aws:principalarn"] = (key.arn,)
        case UserRecord():
            context["aws:principaltype"] = ("User",)
            context["aws:principalarn"] = (key.arn,)
            context["aws:username"] = (key.holder.name,)
        case RoleSession():
            context["aws:principaltype"] = ("AssumedRole",)
            context["aws:principalarn"] = (key.holder.role_arn,)
            context["aws:tokenissuetime"] = (timestamp(key.holder.issued_at),)
            context["aws:multifactorauthpresent"] = ("false",)
            if key.holder.source_identity is not None:
                context["aws:sourceidentity"] = (key.holder.source_identity,)
    for name, value in principal_tags(key, world).items():
        context[f"aws:principaltag/{name.lower()}"] = (value,)
    return context


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE32) for _ in range(length))


def _secret() -> str:
    return base64.b64encode(secrets.token_bytes(30)).decode()


def _token(least: int) -> str:
    # AWS's tokens begin so; the rest is opaque. About the usual length.
    size = max(least, 400)
    return ("IQoJb3JpZ2luX2Vj" + base64.b64encode(secrets.token_bytes(size)).decode())[:size]
