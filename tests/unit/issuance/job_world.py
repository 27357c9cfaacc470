"""CI jobs, the tokens they show, and a gate in memory that lets them in or says why not."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from broker.access.parse import parse_policy
from broker.access.policy import AccessPolicy
from broker.audit.record import Actor, Appended, prepare
from broker.errors import RateLimited
from broker.identity.ci_token import KeysUnavailable
from broker.identity.job_store import Exchange, Exchanged, NotExchanged, Standing
from broker.identity.throttle import Limit
from broker.identity.trust import Workload
from broker.identity.verification_keys import NoSuitableKey, VerificationKey
from broker.issuance.exchange import Admitted, JobGate, Presented
from broker.issuance.request import CredentialRequest
from tests.unit.issuance.issue_world import World

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
T = int(NOW.timestamp())
ISSUER = "https://token.actions.githubusercontent.com"
FORGE = "https://forge.example.com"
AUDIENCE = "https://broker.example.com"
IDS = 'repository_id: "42", repository_owner_id: "7"'
POLICY_TEXT = f"""\
version: 1
accounts: {{prod: {{id: "111122223333", region: eu-west-1}}, test: {{id: "444455556666"}}}}
roles:
  reader:
    account: prod
    role_arn: arn:aws:iam::111122223333:role/Reader
    role_maximum: 4h
    tags: {{repository: "{{{{principal.claims.repository}}}}"}}
    session_policy:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Action: ["s3:GetObject"]
          Resource: "arn:aws:s3:::b/{{{{principal.claims.repository_id}}}}/*"
  writer:
    account: test
    role_arn: arn:aws:iam::444455556666:role/Writer
    via: [arn:aws:iam::999988887777:role/Hop]
    managed_policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
    max_grant: 24h
workloads:
  deploy:
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    claims: {{{IDS}, ref: refs/heads/main}}
  publish:
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    reuse: true
    max_job: 2h
    claims: {{{IDS}, ref: {{glob: "refs/tags/*"}}}}
  release:
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    claims: {{{IDS}, ref: {{re2: "refs/tags/.+"}}}}
  trial:
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    mode: observe
    max_job: 30m
    claims: {{{IDS}, ref: refs/heads/trial}}
  forge:
    issuer: "{FORGE}"
    audience: broker
    algorithms: [RS256]
    claims: {{sub: "project:1"}}
entitlements:
  - {{role: reader, to: {{workload: deploy}}, mode: standing, max_duration: 1h}}
  - {{role: reader, to: {{workload: publish}}, mode: standing}}
  - {{role: writer, to: {{workload: release}}, mode: standing}}
  - {{role: reader, to: {{workload: trial}}, mode: standing, require: {{reason: true}}}}
  - {{role: writer, to: {{workload: trial}}, mode: standing}}
"""


def parsed(text: str, number: int) -> AccessPolicy:
    return parse_policy(text, providers=frozenset({"corp"}), number=number)


POLICY = parsed(POLICY_TEXT, 7)
CLAIMS: dict[str, object] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "iat": T,
    "exp": T + 300,
    "jti": "t-1",
    "sub": "repo:octo/repo:ref:refs/heads/main",
    "repository": "octo/repo",
    "repository_id": "42",
    "repository_owner_id": "7",
    "ref": "refs/heads/main",
    "event_name": "push",
    "run_id": "1658",
    "actor": "mallory",
}
WORKLOAD_IDS = {name: f"w-{name:a<16}" for name in POLICY.workloads}
ANYBODY = Actor("anonymous", "anonymous", None, "10.1.2.3", "runner/2")


def _key(seed: int) -> ECKey:
    raw = ec.derive_private_key(seed, ec.SECP256R1())
    return ECKey(raw, raw)


KEY, NEXT_KEY, STRANGERS_KEY = _key(7), _key(8), _key(9)


def minted(signer: ECKey = KEY, algorithm: str = "ES256", **changes: object) -> str:
    """A token with CLAIMS and `changes`; a claim that is ... is left out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...}
    parts = [{"alg": algorithm, "kid": "k"}, claims]
    signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
    signature = JWSRegistry.algorithms["ES256"].sign(signed, signer)
    return (signed + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def shown(
    token: str, role: str | None = "reader", request: CredentialRequest | None = None
) -> Presented:
    return Presented(
        unverified_token=token,
        role=role,
        request=request,
        wants_token=False,
        address=ip_address("10.1.2.3"),
        ip="10.1.2.3",
        user_agent="runner/2",
        request_id="r-1",
    )


def public(key: ECKey) -> VerificationKey:
    return VerificationKey("k", "EC", "P-256", None, key)


@dataclass
class Keys:
    """Of every issuer the same. `now` is the key that was there first, `later` what came instead;
    `asked` is what was asked for.
    """

    now: ECKey = field(default_factory=lambda: KEY)
    later: ECKey | None = None
    unavailable: str | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)

    async def key(self, issuer: str, key_id: str | None, algorithm: str) -> VerificationKey:
        self.asked.append((issuer, key_id, algorithm))
        if self.unavailable is not None:
            raise KeysUnavailable(self.unavailable)
        if issuer != ISSUER:
            raise NoSuitableKey("no key of the issuer fits the token's header")
        return public(self.now)

    async def key_after_rotation(
        self, issuer: str, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        self.asked.append((issuer, known, algorithm))
        return None if self.later is None else public(self.later)


@dataclass
class Jobs:
    """The store. `refuses` is its answer to every exchange, where it has one."""

    refuses: NotExchanged | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    async def standing(self) -> Standing:
        return Standing(NOW, POLICY.number)

    async def workload_id(self, workload: Workload) -> str:
        return WORKLOAD_IDS[workload.name]

    async def claim_token_id(self, exchange: Exchange) -> Exchanged | NotExchanged:
        prepare(exchange.event)  # the log takes it
        self.exchanges.append(exchange)
        if self.refuses is not None:
            return self.refuses
        began, lifetime = NOW + timedelta(seconds=1), timedelta(seconds=exchange.lifetime)
        return Exchanged(began, began + lifetime, reused=False, appended=Appended(1, b""))


@dataclass
class Counter:
    """The throttle."""

    limited: bool = False
    counted: list[tuple[Limit, str]] = field(default_factory=list)

    async def admit(self, limit: Limit, key: str) -> None:
        self.counted.append((limit, key))
        if self.limited:
            raise RateLimited(retry_after=20)


@dataclass
class JobWorld:
    keys: Keys = field(default_factory=Keys)
    jobs: Jobs = field(default_factory=Jobs)
    counter: Counter = field(default_factory=Counter)
    journal: World = field(default_factory=World)

    @property
    def gate(self) -> JobGate:
        return JobGate(self.keys, self.jobs, self.jobs, self.counter, self.journal, self.journal)

    async def admit(
        self, presented: Presented | str, policy: AccessPolicy = POLICY, now: datetime = NOW
    ) -> Admitted:
        if isinstance(presented, str):
            presented = shown(presented)
        return await self.gate.admit(presented, policy, Standing(now, policy.number))
