"""Every store over one database, with shortcuts to set a scene and to look at what is stored."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, select, update

from broker.access.grant import NewGrant, Repeatable, Validity
from broker.access.policy import EMPTY, AccessPolicy
from broker.access.versions import NewPolicy
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.access_changes import SqlChangeStore
from broker.adapters.store.codes import SqlCodeStore
from broker.adapters.store.devices import SqlDeviceStore
from broker.adapters.store.directory import SqlDirectory
from broker.adapters.store.engine import Database
from broker.adapters.store.factors import SqlFactorStore
from broker.adapters.store.grants import SqlGrants
from broker.adapters.store.issuances import SqlIssuances
from broker.adapters.store.logins import SqlLoginStore
from broker.adapters.store.policy_people import SqlKnownPeople
from broker.adapters.store.principals import SqlPeople
from broker.adapters.store.schema import audit_records, metadata, principals
from broker.adapters.store.sessions import SqlSessionStore
from broker.adapters.store.suspensions import SqlSuspensions
from broker.adapters.store.throttle import SqlThrottle
from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.login import BootstrapAdmin, LoggedIn, ProviderIdentity
from broker.identity.oauth import CodeGrant, Redeemed
from broker.identity.sessions import LoginSession, Token, TokenKind
from broker.identity.totp import Burned, Factor, Sealed

ISSUER = "https://id.example.com"
ANONYMOUS = Actor("anonymous", "anonymous", ip="192.0.2.7", user_agent="test")


class Stores:
    """Every store over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        # Any: where a test looks into an absent value, it fails by itself.
        self.logins: Any = SqlLoginStore(database)
        self.sessions: Any = SqlSessionStore(database)
        self.factors: Any = SqlFactorStore(database)
        self.codes: Any = SqlCodeStore(database)
        self.devices: Any = SqlDeviceStore(database)
        self.access: Any = SqlAccessStore(database)
        self.changes: Any = SqlChangeStore(database)
        self.known_people: Any = SqlKnownPeople(database)
        self.people: Any = SqlPeople(database)
        self.grants: Any = SqlGrants(database)
        self.directory: Any = SqlDirectory(database)
        self.suspensions: Any = SqlSuspensions(database)
        self.issuances: Any = SqlIssuances(database)
        self.throttle: Any = SqlThrottle(database)

    # --- scenes

    async def log_in(
        self,
        subject: str = "grace",
        *,
        cookie: Token | None = None,
        replaces: Token | None = None,
        bootstrap: tuple[BootstrapAdmin, ...] = (),
        user_agent: str = "test",
        **changes: Any,
    ) -> Any:
        values: dict[str, Any] = {
            "provider": "corp",
            "issuer": ISSUER,
            "subject": subject,
            "handle": f"{subject}@example.com",
            "email": f"{subject}@example.com",
            "email_verified": True,
            "groups": frozenset({"corp/sre"}),
        }
        return await self.logins.log_in(
            ProviderIdentity(**(values | changes)),
            cookie=cookie or Token.new(TokenKind.BROWSER),
            ip="192.0.2.7",
            user_agent=user_agent,
            replaces=replaces,
            bootstrap=bootstrap,
            request_id="r-1",
        )

    async def enrol(
        self, login: LoggedIn, *, step: int = 100, codes: tuple[bytes, ...] = (), **options: Any
    ) -> Any:
        """Confirm a factor in this login session, with `step` burned."""
        factor = await self.start_factor(login.principal.id)
        burned = await self.confirm(factor, login, step=step, codes=codes, **options)
        assert burned is Burned.ACCEPTED
        return factor

    async def start_factor(self, principal_id: str) -> Any:
        sealed = Sealed("k1", 1, secrets.token_bytes(12), secrets.token_bytes(48))
        return await self.factors.start_factor(principal_id, f"f-{secrets.token_hex(6)}", sealed)

    async def confirm(
        self,
        factor: Factor,
        login: LoggedIn,
        *,
        step: int = 100,
        codes: tuple[bytes, ...] = (),
        enrolment_code: bytes | None = None,
        replaces: Token | None = None,
        cookie: Token | None = None,
    ) -> Any:
        return await self.factors.confirm_factor(
            factor.id,
            step,
            login_session_id=login.session.id,
            replaces=replaces,
            cookie=cookie,
            enrolment_code_hash=enrolment_code,
            recovery_code_hashes=codes,
            event=event(EventType.MFA_ENROLLED),
        )

    async def burn(
        self,
        factor: Factor,
        step: int,
        session: LoginSession,
        *,
        replaces: Token | None = None,
        cookie: Token | None = None,
    ) -> Any:
        return await self.factors.burn_totp_step(
            factor.id,
            step,
            login_session_id=session.id,
            replaces=replaces,
            cookie=cookie,
            event=event(EventType.MFA_VERIFIED),
        )

    async def code(self, login: LoggedIn) -> bytes:
        """An unspent authorization code of this browser session; its hash."""
        code_hash = secrets.token_bytes(32)
        grant = CodeGrant("broker-cli", "http://127.0.0.1:1/callback", "C" * 43, login.session.id)
        await self.codes.create_code(code_hash, grant)
        return code_hash

    async def redeem(
        self,
        code_hash: bytes,
        *,
        access: Token | None = None,
        refresh: Token | None = None,
        **changes: Any,
    ) -> Any:
        presented = {
            "client_id": "broker-cli",
            "redirect_uri": "http://127.0.0.1:1/callback",
            "code_challenge": "C" * 43,
        } | changes
        return await self.codes.redeem_code(
            code_hash,
            access=access or Token.new(TokenKind.ACCESS),
            refresh=refresh or Token.new(TokenKind.REFRESH),
            ip="192.0.2.8",
            user_agent="cli",
            event=event(EventType.LOGIN_SUCCEEDED),
            reuse_event=event(EventType.SESSION_REVOKED),
            **presented,
        )

    async def cli(self, login: LoggedIn) -> tuple[Token, Token, LoginSession]:
        """Access token, refresh token and session of a CLI login."""
        access, refresh = Token.new(TokenKind.ACCESS), Token.new(TokenKind.REFRESH)
        redeemed, session = await self.redeem(
            await self.code(login), access=access, refresh=refresh
        )
        assert redeemed is Redeemed.OK
        assert session is not None
        return access, refresh, session

    async def rotate(self, presented: Token, refresh: Token, access: Token | None = None) -> Any:
        return await self.sessions.rotate_refresh_token(
            presented,
            refresh,
            access or Token.new(TokenKind.ACCESS),
            event(EventType.SESSION_REFRESHED),
            event(EventType.SESSION_REVOKED),
        )

    async def apply(
        self,
        *names: str,
        expected: int = 0,
        text: str = "version: 1\n",
        external_ids_for: tuple[str, ...] = (),
    ) -> Any:
        return await self.access.apply_policy(
            NewPolicy(text, frozenset(names), frozenset(external_ids_for)),
            expected=expected,
            applied_by="p-admin",
            event=event(EventType.ACCESS_APPLIED),
        )

    async def invite(self, code_hash: bytes, *, by: str = "p-admin", **who: str | None) -> Any:
        target = {"principal_id": None, "provider": None, "email": None} | who
        return await self.factors.create_enrolment_code(
            code_hash,
            created_by=by,
            event=event(EventType.ENROLMENT_CODE_CREATED),
            **target,
        )

    async def grant(
        self,
        principal_id: str,
        *,
        begins: float = 0,
        ends: float = 3600,
        role: str = "reader",
        by: str = "p-admin",
        repeatable: Repeatable | None = None,
    ) -> Any:
        """A grant from and until so many seconds from now."""
        now = datetime.now(UTC)
        validity = Validity(now + timedelta(seconds=begins), now + timedelta(seconds=ends))
        return await self.grants.create_grant(
            NewGrant(principal_id, role, validity, by, "on call"),
            event(EventType.GRANT_CREATED),
            repeatable=repeatable,
        )

    async def revoke(self, grant_id: str) -> Any:
        return await self.grants.revoke_grant(
            grant_id, by="p-admin", reason="over", event=event(EventType.GRANT_REVOKED)
        )

    async def suspend_all(
        self, principal_id: str, policy: AccessPolicy = EMPTY, by: str = "p-admin"
    ) -> Any:
        return await self.suspensions.suspend(
            principal_id,
            policy=policy,
            by=by,
            reason="stolen laptop",
            event=event(EventType.REVOCATION_REQUESTED),
        )

    async def reinstate(self, principal_id: str, by: str = "p-admin") -> Any:
        return await self.suspensions.reinstate(
            principal_id, by=by, event=event(EventType.REVOCATION_LIFTED)
        )

    async def alive(self, token: Token) -> bool:
        return await self.sessions.authenticate(token) is not None

    # --- looking at, and changing, what is stored

    async def change(self, table: Table, *where: Any, **values: Any) -> None:
        async with self.database.begin() as conn:
            changed = await conn.execute(update(table).where(*where).values(**values))
            assert changed.rowcount > 0

    async def suspend(self, principal_id: str) -> None:
        await self.change(
            principals, principals.c.id == principal_id, suspended_at=datetime.now(UTC)
        )

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        async with self.database.read() as conn:
            return [dict(row._mapping) for row in (await conn.execute(select(table))).all()]

    async def everything(self) -> dict[str, list[str]]:
        """Every row of every table, to be compared."""
        return {
            table.name: sorted(repr(sorted(row.items())) for row in await self.rows(table))
            for table in metadata.sorted_tables
        }

    async def records(self) -> list[dict[str, Any]]:
        """The audit log, parsed, in order; its numbers have no gap."""
        rows = sorted(await self.rows(audit_records), key=lambda row: row["seq"])
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        return [json.loads(row["record"]) for row in rows]

    async def record_types(self) -> list[str]:
        return [record["type"] for record in await self.records()]


def event(type_: EventType, actor: Actor = ANONYMOUS, **detail: object) -> Event:
    return Event(type_, actor, Outcome.SUCCESS, {}, detail, "r-1")
