"""What letting a CI job in costs, beside what it can't cost less than.

Verification: a whole CI token, from its text to checked claims (`rs256_vs_raw`,
`es256_vs_raw`), beside raw `cryptography`: base64, json.loads and `verify` of the
same token, and nothing judged. Beside the bare `verify` call alone, with message
and signature at hand, stand `..._signature_vs_bare` (our signature step) and
`..._token_vs_bare` (the whole token). Exchange:
`POST /v1/ci/credentials` beside `POST /v1/credentials`, both through the whole
application on one database, 32 at once, with an STS that answers at once; on SQLite
(`exchange_vs_issuance`) and on PostgreSQL (`exchange_vs_issuance_postgresql`).
Rounds alternate, and the ratios are of the medians over rounds. Ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from joserfc.jwk import ECKey, Key, RSAKey
from joserfc.jws import JWSRegistry
from sqlalchemy import insert
from stage.postgresql import cluster
from starlette.types import ASGIApp

from broker.access.parse import parse_policy
from broker.access.versions import NewPolicy
from broker.adapters.migrations import migrate
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.adapters.store.schema import login_sessions, principals, tokens
from broker.app import create_app
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.identity.ci_token import ALGORITHMS, check_ci_token
from broker.identity.id_token import UnverifiedToken
from broker.identity.sessions import Token, TokenKind
from broker.identity.verification_keys import VerificationKey, VerificationKeys
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted
from broker.settings import Settings

ISSUER = "https://token.actions.githubusercontent.com"
AUDIENCE = "https://broker.bench"
WORKLOADS = 16
PEOPLE = 16
AT_ONCE = 32


class InstantSts:
    """Answers at once: what is measured is the broker."""

    def chained(self, partition: str) -> bool:
        return False

    async def identify(self, partition: str) -> CallerIdentity:
        raise NotImplementedError("nothing here asks whose the credentials are")

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        name = call.role_session_name
        return Minted(
            credentials=Credentials(
                "ASIAEXAMPLEEXAMPLE00", "x" * 40, "y" * 400, datetime.now(UTC) + timedelta(hours=1)
            ),
            assumed_role_arn=f"arn:aws:sts::111122223333:assumed-role/R/{name}",
            assumed_role_id=f"AROAEXAMPLE:{name}",
            request_id="request",
            packed_policy_percent=None,
        )


class KeysAtHand:
    """The issuer's keys, as a warm cache has them."""

    def __init__(self, keys: VerificationKeys) -> None:
        self._keys = keys

    async def key(self, issuer: str, key_id: str | None, algorithm: str) -> VerificationKey:
        return self._keys.select(key_id, algorithm)

    async def key_after_rotation(
        self, issuer: str, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        return None


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Issuer:
    """Signs tokens shaped like GitHub's, by RS256 and ES256."""

    def __init__(self) -> None:
        rsa_key, ec_key = (
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP256R1()),
        )
        self.keys: dict[str, Key] = {
            "RS256": RSAKey(rsa_key, rsa_key),
            "ES256": ECKey(ec_key, ec_key),
        }
        self.public = VerificationKeys.parse(
            {
                "keys": [
                    {**key.as_dict(private=False), "kid": name, "use": "sig"}
                    for name, key in self.keys.items()
                ]
            }
        )
        self._minted = 0

    def mint(self, algorithm: str, repository: int = 0) -> str:
        self._minted += 1
        now = int(time.time())
        claims = {
            "jti": f"{time.time_ns()}-{self._minted}",
            "sub": "repo:octo-org/octo-repo:environment:production",
            "environment": "production",
            "aud": AUDIENCE,
            "ref": "refs/heads/main",
            "sha": "5c3b1e5c3b1e5c3b1e5c3b1e5c3b1e5c3b1e5c3b",
            "repository": "octo-org/octo-repo",
            "repository_owner": "octo-org",
            "actor_id": "12",
            "repository_visibility": "private",
            "repository_id": str(repository),
            "repository_owner_id": "65",
            "run_id": "1658821493",
            "run_number": "10",
            "run_attempt": "2",
            "runner_environment": "github-hosted",
            "actor": "octocat",
            "workflow": "example-workflow",
            "head_ref": "",
            "base_ref": "",
            "event_name": "workflow_dispatch",
            "ref_type": "branch",
            "ref_protected": "true",
            "job_workflow_ref": "octo-org/octo-repo/.github/workflows/w.yml@refs/heads/main",
            "iss": ISSUER,
            "nbf": now - 10,
            "exp": now + 3000,
            "iat": now - 10,
        }
        header = {"typ": "JWT", "alg": algorithm, "kid": algorithm}
        body = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        signature = JWSRegistry.algorithms[algorithm].sign(body.encode(), self.keys[algorithm])
        return f"{body}.{b64(signature)}"


# --- Verification ---------------------------------------------------------------------------


def verification(issuer: Issuer, algorithm: str, rounds: int, each: int) -> dict[str, float]:
    """Seconds of CPU a token for each way: bare, raw, signature, token."""
    minted = [issuer.mint(algorithm) for _ in range(each)]
    private: Any = issuer.keys[algorithm].raw_value
    public = private.public_key()
    parsed = [UnverifiedToken.parse(text, ALGORITHMS) for text in minted]
    key = issuer.public.select(algorithm, algorithm)
    now = datetime.now(UTC)
    ways: dict[str, list[Callable[[], object]]] = {
        "bare": [_bare(public, algorithm, token) for token in parsed],
        "raw": [partial(_raw, public, algorithm, text) for text in minted],
        "signature": [partial(token.verify, key) for token in parsed],
        "token": [partial(_whole, issuer, text, now) for text in minted],
    }
    # As the server does once it has started: what lives on is not looked at again.
    gc.collect()
    gc.freeze()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, calls in ways.items():
            started = time.process_time()
            for call in calls:
                call()
            if number:  # the first warms up
                times[name].append((time.process_time() - started) / each)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _whole(issuer: Issuer, text: str, now: datetime) -> None:
    token = UnverifiedToken.parse(text, ALGORITHMS)
    key = issuer.public.select(token.key_id, token.algorithm)
    check_ci_token(
        token.verify(key),
        signing_input=token.signing_input,
        issuer=ISSUER,
        lifetime=3600,
        now=now,
    )


def _raw(public: Any, algorithm: str, text: str) -> object:  # noqa: ANN401 - a key of either kind
    """As short as a verifier by hand can be."""
    head, body, encoded = text.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    if header["alg"] != algorithm:
        raise ValueError("another algorithm")
    signature = base64.urlsafe_b64decode(encoded + "==")
    _verify(public, algorithm, signature, f"{head}.{body}".encode())()
    return json.loads(base64.urlsafe_b64decode(body + "=="))


def _bare(public: Any, algorithm: str, token: UnverifiedToken) -> Callable[[], object]:  # noqa: ANN401 - as above
    return _verify(public, algorithm, token.signature, token.signing_input)


def _verify(
    public: Any,  # noqa: ANN401 - as above
    algorithm: str,
    signature: bytes,
    message: bytes,
) -> Callable[[], object]:
    if algorithm == "RS256":
        return partial(public.verify, signature, message, padding.PKCS1v15(), hashes.SHA256())
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    der = utils.encode_dss_signature(r, s)
    return partial(public.verify, der, message, ec.ECDSA(hashes.SHA256()))


# --- Exchange -------------------------------------------------------------------------------


def policy_text() -> str:
    workloads = "\n".join(
        f'  w{n}: {{issuer: "{ISSUER}", audience: "{AUDIENCE}", claims: {{repository_id: "{n}",'
        ' repository_owner_id: "65", ref: refs/heads/main, environment: production}}'
        for n in range(WORKLOADS)
    )
    rights = "\n".join(
        f"  - {{role: reader, to: {{workload: w{n}}}, mode: standing}}" for n in range(WORKLOADS)
    )
    return f"""\
version: 1
accounts: {{prod: {{id: "111122223333"}}}}
admins: [{{group: corp/platform}}]
roles:
  reader: {{account: prod, role_arn: "arn:aws:iam::111122223333:role/R", session_policy:
    {{Version: "2012-10-17", Statement: [{{Effect: Allow, Action: "s3:GetObject",
    Resource: "arn:aws:s3:::bucket/*"}}]}}}}
workloads:
{workloads}
entitlements:
  - {{role: reader, to: {{group: corp/analysts}}, mode: standing}}
{rights}
"""


async def post(app: ASGIApp, path: str, token: str, address: str) -> int:
    """One request straight into the application; its status."""
    body = b'{"role":"reader"}'
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"broker.bench"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"authorization", f"Bearer {token}".encode()),
        ],
        "client": (address, 4711),
        "server": ("broker.bench", 443),
        "state": {},
    }
    status = 0

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(scope, receive, send)
    return status


async def volley(app: ASGIApp, path: str, shown: list[str]) -> tuple[float, list[float]]:
    """All of `shown`, AT_ONCE at a time: seconds in all, and of each."""
    waiting = iter(enumerate(shown))
    latencies: list[float] = []

    async def caller() -> None:
        for number, token in waiting:
            started = time.perf_counter()
            status = await post(app, path, token, f"10.{number % 200}.{number % 7}.1")
            latencies.append(time.perf_counter() - started)
            if status != 200:
                raise RuntimeError(f"{path} answered {status}")

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(caller())
    return time.perf_counter() - started, latencies


async def people(database: Database) -> list[str]:
    """Access tokens of people past their second factor."""
    now = datetime.now(UTC)
    shown = []
    async with database.begin() as conn:
        for number in range(PEOPLE):
            token = Token.new(TokenKind.ACCESS)
            shown.append(token.text)
            ends = now + timedelta(hours=8)
            await conn.execute(
                insert(principals).values(
                    id=f"p-{'abcdefghijklmnop'[number] * 16}",
                    kind="person",
                    issuer="https://idp.bench",
                    subject=str(number),
                    provider="corp",
                    handle=f"person{number}@example.com",
                    email_verified=True,
                    groups=["corp/analysts"],
                    claims={},
                    created_at=now,
                )
            )
            await conn.execute(
                insert(login_sessions).values(
                    id=f"ls-{number}",
                    principal_id=f"p-{'abcdefghijklmnop'[number] * 16}",
                    client="cli",
                    auth_time=now,
                    mfa_time=now,
                    created_at=now,
                    expires_at=ends,
                )
            )
            await conn.execute(
                insert(tokens).values(
                    hash=token.hash,
                    kind="bka",
                    login_session_id=f"ls-{number}",
                    created_at=now,
                    expires_at=ends,
                )
            )
    return shown


def settings_in(folder: Path, url: str) -> Settings:
    FileKeyRing.create(folder / "sealing")
    SigningKeys.create(folder / "signing", "broker.bench")
    return Settings(
        server={"public_url": AUDIENCE},  # type: ignore[arg-type]
        database={"url": url},  # type: ignore[arg-type]
        oidc=[{"name": "corp", "issuer": "https://idp.bench", "client_id": "b"}],  # type: ignore[arg-type]
        keys={"sealing": f"file:{folder}/sealing", "signing": f"file:{folder}/signing"},  # type: ignore[arg-type]
    )


async def exchange(
    issuer: Issuer, url: str, folder: Path, rounds: int, each: int
) -> dict[str, float]:
    await migrate(url)
    database = Database.open(url)
    text = policy_text()
    policy = parse_policy(text, providers=frozenset({"corp"}))
    await SqlAccessStore(database).apply_policy(
        NewPolicy(
            text,
            frozenset(),
            frozenset(),
            frozenset((one.name, one.issuer) for one in policy.workloads.values()),
        ),
        expected=0,
        applied_by="system",
        event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
    )
    access_tokens = await people(database)
    await database.aclose()
    app = create_app(settings_in(folder, url), sts=InstantSts())
    async with app.router.lifespan_context(app):
        parts = app.state.parts
        gate = replace(parts.job_gate, keys=KeysAtHand(issuer.public))
        app.state.parts = replace(parts, job_gate=gate)
        exchanges: list[float] = []
        issuances: list[float] = []
        latencies: dict[str, list[float]] = {"exchange": [], "issuance": []}
        for number in range(rounds + 1):
            minted = [issuer.mint("RS256", n % WORKLOADS) for n in range(each)]
            shown = [access_tokens[n % PEOPLE] for n in range(each)]
            gc.collect()
            # Short volleys, taking turns: another program's burst meets both.
            if number % 2:
                taken, of_each = await volley(app, "/v1/ci/credentials", minted)
                base, base_each = await volley(app, "/v1/credentials", shown)
            else:
                base, base_each = await volley(app, "/v1/credentials", shown)
                taken, of_each = await volley(app, "/v1/ci/credentials", minted)
            if number:  # the first warms up
                exchanges.append(taken / each)
                issuances.append(base / each)
                latencies["exchange"] += of_each
                latencies["issuance"] += base_each
    return {
        "exchange": statistics.median(exchanges),
        "issuance": statistics.median(issuances),
        "exchange_p99": statistics.quantiles(latencies["exchange"], n=100)[98],
        "issuance_p99": statistics.quantiles(latencies["issuance"], n=100)[98],
    }


def exchanges(database: str, issuer: Issuer, url: str, folder: str, rounds: int) -> float:
    """What an exchange costs in issuances, on this database."""
    measured = asyncio.run(exchange(issuer, url, Path(folder), rounds=rounds, each=96))
    for name in ("exchange", "issuance"):
        per_second, p99 = 1 / measured[name], measured[f"{name}_p99"] * 1000
        print(f"{database}: {name}: {per_second:.0f}/s, p99 {p99:.1f} ms at {AT_ONCE} at once")
    return round(measured["exchange"] / measured["issuance"], 3)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="under a minute")
    quick = arguments.parse_args().quick
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger().setLevel(logging.WARNING)
    issuer = Issuer()
    ratios: dict[str, float] = {}
    for algorithm in ("RS256", "ES256"):
        taken = verification(issuer, algorithm, rounds=15 if quick else 60, each=200)
        name = algorithm.lower()
        ratios[f"{name}_vs_raw"] = round(taken["token"] / taken["raw"], 3)
        ratios[f"{name}_signature_vs_bare"] = round(taken["signature"] / taken["bare"], 3)
        ratios[f"{name}_token_vs_bare"] = round(taken["token"] / taken["bare"], 3)
        shown = ", ".join(f"{way} {seconds * 1e6:.1f} us" for way, seconds in taken.items())
        print(f"{algorithm}: {shown}")
    rounds = 10 if quick else 60
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/bench.db"
        ratios["exchange_vs_issuance"] = exchanges("SQLite", issuer, url, folder, rounds)
    with tempfile.TemporaryDirectory() as folder, cluster() as postgresql:
        url = postgresql.database("bench")
        name = "exchange_vs_issuance_postgresql"
        ratios[name] = exchanges("PostgreSQL", issuer, url, folder, rounds)
    print(json.dumps({"name": "ci", "ratios": ratios}))


if __name__ == "__main__":
    main()
