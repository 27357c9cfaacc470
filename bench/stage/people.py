"""A migrated database with a policy and people who are logged in, made through the stores."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from broker.access.versions import NewPolicy
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.codes import SqlCodeStore
from broker.adapters.store.engine import Database
from broker.adapters.store.factors import SqlFactorStore
from broker.adapters.store.logins import SqlLoginStore
from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.login import LoggedIn, ProviderIdentity
from broker.identity.oauth import CodeGrant
from broker.identity.sessions import Token, TokenKind
from broker.identity.totp import Sealed

ISSUER = "http://127.0.0.1:9/corp"  # nobody signs in here, so nobody asks it
REQUEST = b'{"role":"data-reader","parameters":{"bucket":"reports","prefix":"2026"}}'
POLICY = """\
version: 1
accounts:
  demo: {id: "111122223333", name: Demonstration, region: us-east-1, partition: aws}
admins: [{group: corp/platform}]
roles:
  data-reader:
    description: Read one prefix of one data set
    account: demo
    role_arn: arn:aws:iam::111122223333:role/DataReader
    external_id: broker-demo
    role_maximum: 4h
    parameters:
      bucket: {allowed: [reports, logs], default: reports}
      prefix: {pattern: "[a-z0-9-]{1,40}", default: public}
    session_policy:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Action: ["s3:GetObject"]
          Resource: "arn:aws:s3:::{{bucket}}/{{prefix}}/*"
        - Effect: Allow
          Action: ["s3:ListBucket"]
          Resource: "arn:aws:s3:::{{bucket}}"
          Condition: {StringLike: {"s3:prefix": "{{prefix}}/*"}}
    tags: {team: analysts}
    transitive_tags: [team]
entitlements:
  - role: data-reader
    to: {group: corp/analysts}
    mode: standing
    max_duration: 2h
    require: {mfa_within: 8h}
"""
# What the broker sends for REQUEST, for boto3 to send as well.
SESSION_POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],'
    '"Resource":"arn:aws:s3:::reports/2026/*"},{"Effect":"Allow","Action":["s3:ListBucket"],'
    '"Resource":"arn:aws:s3:::reports","Condition":{"StringLike":{"s3:prefix":"2026/*"}}},'
    '{"Effect":"Deny","Action":["sts:AssumeRole","sts:AssumeRoot"],"Resource":"*"}]}'
)
GROUPS = frozenset({"corp/analysts", "corp/everybody"})
_ACTOR = Actor("anonymous", "anonymous", ip="127.0.0.1", user_agent="bench")


def settings(database_url: str, port: int, sts_port: int, keys: Path) -> str:
    """The broker's settings file."""
    return f"""\
[server]
public_url = "http://127.0.0.1:{port}"
port = {port}
[database]
url = "{database_url}"
[[oidc]]
name = "corp"
issuer = "{ISSUER}"
client_id = "broker"
[[aws]]
region = "us-east-1"
sts_endpoint_url = "http://127.0.0.1:{sts_port}"
[keys]
sealing = "file:{keys}/sealing"
signing = "file:{keys}/signing"
"""


def admit(database_url: str, count: int) -> list[str]:
    """Apply the policy, and log `count` people in; an access token of each."""
    return asyncio.run(_admit(database_url, count))


async def _admit(database_url: str, count: int) -> list[str]:
    database = Database.open(database_url, pool_size=8)
    try:
        await SqlAccessStore(database).apply_policy(
            NewPolicy(POLICY, frozenset()),
            expected=0,
            applied_by="p-bench",
            event=_event(EventType.ACCESS_APPLIED),
        )
        return [await log_in(database, f"person{n}") for n in range(count)]
    finally:
        await database.aclose()


async def log_in(database: Database, name: str, groups: frozenset[str] = GROUPS) -> str:
    """Sign in through the browser, with a second factor just set up, then on the command line;
    the access token. Once for each name.
    """
    login = await sign_in(database, name, groups)
    await _enrol(database, login)
    code = secrets.token_bytes(32)
    codes = SqlCodeStore(database)
    redirect, challenge = "http://127.0.0.1:1/callback", "C" * 43
    await codes.create_code(code, CodeGrant("broker-cli", redirect, challenge, login.session.id))
    access = Token.new(TokenKind.ACCESS)
    await codes.redeem_code(
        code,
        client_id="broker-cli",
        redirect_uri=redirect,
        code_challenge=challenge,
        access=access,
        refresh=Token.new(TokenKind.REFRESH),
        ip="127.0.0.1",
        user_agent="bench",
        event=_event(EventType.LOGIN_SUCCEEDED),
        reuse_event=_event(EventType.SESSION_REVOKED),
    )
    return access.text


async def sign_in(database: Database, name: str, groups: frozenset[str]) -> LoggedIn:
    """As the provider's answer makes it: the second factor is pending."""
    return await SqlLoginStore(database).log_in(
        ProviderIdentity(
            provider="corp",
            issuer=ISSUER,
            subject=name,
            handle=f"{name}@example.com",
            email=f"{name}@example.com",
            email_verified=True,
            groups=groups,
        ),
        cookie=Token.new(TokenKind.BROWSER),
        ip="127.0.0.1",
        user_agent="bench",
        replaces=None,
        bootstrap=(),
        request_id="req-bench",
    )


async def _enrol(database: Database, login: LoggedIn) -> None:
    factors = SqlFactorStore(database)
    sealed = Sealed("k1", 1, secrets.token_bytes(12), secrets.token_bytes(48))
    factor = await factors.start_factor(login.principal.id, f"f-{secrets.token_hex(6)}", sealed)
    await factors.confirm_factor(
        factor.id,
        1,
        login_session_id=login.session.id,
        replaces=None,
        cookie=None,
        enrolment_code_hash=None,
        recovery_code_hashes=(),
        event=_event(EventType.MFA_ENROLLED),
    )


def _event(type_: EventType) -> Event:
    return Event(type_, _ACTOR, Outcome.SUCCESS, request_id="req-bench")
