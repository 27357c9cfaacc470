"""A person, a policy, and a journal and STS in memory that fail or wait where they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from broker.access.grant import Grant
from broker.access.parse import parse_policy
from broker.audit.record import Actor, Appended, Event, EventType, prepare
from broker.errors import AuditUnavailable, AwsDenied
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.issuance.issue import Issued, issue
from broker.issuance.journal import Concluded, Intent, Outcome, State
from broker.issuance.request import CredentialRequest
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted, StsFailure

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECRETS = ("canary-secret-access-key", "canary-session-token", "canary-external-id")
POLICY = parse_policy(
    """
version: 1
accounts:
  prod: {id: "111122223333", name: Production, region: eu-west-1, partition: aws}
roles:
  reader:
    description: Read one dataset
    account: prod
    role_arn: arn:aws:iam::111122223333:role/DataReader
    external_id: canary-external-id
    role_maximum: 4h
    default_duration: 1h
    max_grant: 24h
    parameters: {bucket: {allowed: [reports, logs], default: reports}}
    session_policy:
      Version: "2012-10-17"
      Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: "arn:aws:s3:::{{bucket}}/*"}]
  granted:
    description: Only by a grant
    account: prod
    role_arn: arn:aws:iam::111122223333:role/Granted
    max_grant: 24h
    unscoped: true
  far:
    description: Behind two hops
    account: prod
    role_arn: arn:aws:iam::111122223333:role/Far
    via: [arn:aws:iam::999988887777:role/Hub, arn:aws:iam::111122223333:role/Gate]
    external_id: canary-external-id
    unscoped: true
  beyond:
    description: Behind one hop
    account: prod
    role_arn: arn:aws:iam::111122223333:role/Beyond
    via: [arn:aws:iam::999988887777:role/Hub]
    unscoped: true
entitlements:
  - role: reader
    to: {group: corp/analysts}
    mode: standing
    max_duration: 2h
    require: {networks: [10.0.0.0/8], reason: true}
  - {role: far, to: {group: corp/analysts}, mode: standing}
  - {role: beyond, to: {group: corp/analysts}, mode: standing}
""",
    providers=frozenset({"corp"}),
    number=7,
)
PERSON = Principal(
    id="p-abcdefghijklmnop",
    kind=PrincipalKind.PERSON,
    issuer="https://idp.example.com",
    subject="sub-1",
    provider="corp",
    handle="grace@example.com",
    groups=frozenset({"corp/analysts"}),
)
WHO = AuthContext(
    principal=PERSON,
    login_session_id="ls-1",
    auth_time=NOW - timedelta(minutes=30),
    mfa_time=NOW - timedelta(minutes=30),
    login_session_expires_at=NOW + timedelta(hours=11),
)
GRANT = Grant(
    id="g-1",
    principal_id=PERSON.id,
    role="granted",
    not_before=NOW - timedelta(hours=1),
    expires_at=NOW + timedelta(hours=2),
    granted_by="p-adminadminadmin",
    reason="incident 4711",
)
ACTOR = Actor(PERSON.id, "person", PERSON.handle, "10.1.2.3", "broker/1")
ASKED = CredentialRequest(role="reader", reason="ticket 12", parameters={"bucket": "logs"})
TRIPLE = Credentials(
    "ASIAEXAMPLE000000001", SECRETS[0], SECRETS[1], NOW + timedelta(hours=1, milliseconds=789)
)


@dataclass
class World:
    """`order` is everything that happened, in order. `fails` and `holds` name steps: deny, request,
    sts, fail, conclude. A held step has done its work, and answers when it is released.
    """

    order: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    calls: list[AssumeRole] = field(default_factory=list)
    used: list[str | None] = field(default_factory=list)  # whose keys each call was made with
    refuses: str | None = None  # the role that STS refuses
    fails: dict[str, Exception] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    withhold: str | None = None
    chained_partitions: frozenset[str] = frozenset()
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, kind: EventType) -> list[Event]:
        return [event for event in self.events if event.type is kind]

    async def _step(self, name: str, event: Event | None) -> Appended:
        if name in self.fails:
            self.order.append(f"{name} failed")
            raise self.fails[name]
        self.order.append(name)
        if event is not None:
            prepare(event)  # the log takes it: JSON-ready, ASCII keys, no NUL
            self.events.append(event)
        if name in self.holds:
            self.reached.set()
            await self.released.wait()
        return Appended(len(self.events), b"")

    # The journal.

    async def deny(self, event: Event) -> None:
        await self._step("deny", event)

    async def request(self, intent: Intent) -> Appended:
        self.intents.append(intent)
        return await self._step("request", intent.event)

    async def fail(self, intent: Intent, event: Event) -> Appended:
        assert intent in self.intents
        return await self._step("fail", event)

    async def conclude(self, outcome: Outcome) -> Concluded:
        assert outcome.intent in self.intents
        self.outcomes.append(outcome)
        event, state = outcome.event, State.ISSUED
        if self.withhold is not None:
            detail = {**event.detail, "reason": self.withhold}
            event = replace(event, type=EventType.ISSUANCE_WITHHELD, detail=detail)
            state = State.WITHHELD
        return Concluded(state, self.withhold, await self._step("conclude", event))

    # STS.

    def chained(self, partition: str) -> bool:
        return partition in self.chained_partitions

    async def identify(self, partition: str) -> CallerIdentity:
        return CallerIdentity("111122223333", "arn:aws:iam::111122223333:user/broker")

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        self.calls.append(call)
        self.used.append(None if credentials is None else credentials.access_key_id)
        await self._step("sts", None)
        if call.role_arn == self.refuses:
            raise sts_refusal()
        name = call.role_session_name
        _, _, _, _, account, role = call.role_arn.split(":")
        return Minted(
            replace(TRIPLE, access_key_id=f"ASIAEXAMPLE{len(self.calls):09}"),
            f"arn:aws:sts::{account}:assumed-role/{role.removeprefix('role/')}/{name}",
            f"AROAEXAMPLE:{name}",
            "req-1",
            12,
        )

    async def issue(
        self,
        request: CredentialRequest = ASKED,
        who: AuthContext = WHO,
        grants: tuple[Grant, ...] = (),
        address: str = "10.1.2.3",
    ) -> Issued:
        return await issue(
            request,
            who=who,
            actor=ACTOR,
            address=ip_address(address),
            policy=POLICY,
            grants=grants,
            now=NOW,
            request_id="r-1",
            journal=self,
            sts=self,
        )


def no_audit() -> AuditUnavailable:
    return AuditUnavailable(log_detail="the disk is full")


def sts_refusal() -> StsFailure:
    return StsFailure(
        AwsDenied("Ask the operator."),
        sts_code="AccessDenied",
        sts_message="canary-sts-message",
        request_id="req-9",
    )
