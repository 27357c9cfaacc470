"""The composition root: settings in, ASGI application out.

The one place where parts meet. Everything is made here, in order, when the
application starts, and closed in the opposite order when it stops; a route
finds it as a frozen `Parts`. Nothing is made when a module is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from broker import sink_setup
from broker.access.finding import PolicyRefused
from broker.adapters import checkpoint_copies, kms_signing, parliament, witness
from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.ci_issuers import CiIssuers
from broker.adapters.copying import Copying
from broker.adapters.delegates import Delegates
from broker.adapters.keys import load_sealing, load_signing
from broker.adapters.migrations import check_schema, current_revision, newest_revision
from broker.adapters.oidc import OidcProvider, ProviderConfig
from broker.adapters.outbound import new_client
from broker.adapters.reachability import Connect, Reachability, connect
from broker.adapters.rollback import (
    StoredLog,
    check_copies,
    check_witnesses,
    record_rollback,
    refusal,
)
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.access_changes import SqlChangeStore
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.codes import SqlCodeStore
from broker.adapters.store.devices import SqlDeviceStore
from broker.adapters.store.directory import SqlDirectory
from broker.adapters.store.durability import examine
from broker.adapters.store.engine import Database
from broker.adapters.store.grants import SqlGrants, record_expired
from broker.adapters.store.issuances import SqlIssuances
from broker.adapters.store.jobs import SqlJobs
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.policy_people import SqlKnownPeople
from broker.adapters.store.principals import SqlPeople
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.sessions import SqlSessionStore
from broker.adapters.store.suspensions import SqlSuspensions
from broker.adapters.store.sweep import sweep
from broker.adapters.store.tree import AuditTree
from broker.adapters.sts import StsClient, StsConfig
from broker.adapters.telemetry.counted import CountedFactors, CountedLogins, CountedThrottle
from broker.adapters.telemetry.instruments import Instruments
from broker.adapters.telemetry.server import ServerTelemetry, TracingSettings
from broker.audit.cosignature import CosignerKey
from broker.audit.note import CannotSign
from broker.errors import AuditUnavailable, StartupError
from broker.identity.login import BootstrapAdmin, IdentityProvider
from broker.identity.login_flow import LoginFlow
from broker.identity.second_factor import SecondFactor
from broker.issuance.exchange import JobGate
from broker.issuance.sts import Sts
from broker.settings import Settings
from broker.web.cookies import Cookies
from broker.web.current_policy import CurrentPolicy
from broker.web.in_flight import InFlight
from broker.web.parts import Parts
from broker.web.routes import build

log = structlog.get_logger("broker.app")

_SWEEP_EVERY = 300.0  # seconds
# Requests make few cycles: the youngest objects are looked at more rarely than by default.
_GC_THRESHOLDS = (50_000, 50, 100)


def create_app(
    settings: Settings,
    *,
    providers: Mapping[str, IdentityProvider] | None = None,
    sts: Sts | None = None,
    accept_rollback: bool = False,
) -> FastAPI:
    """The application. It opens nothing before its lifespan is entered, which raises
    StartupError for what the settings, keys or database get wrong.

    `providers` and `sts` stand in for the ones that the settings describe. `accept_rollback`:
    start although the log was signed further than the database knows, and record that.
    """
    telemetry = ServerTelemetry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            telemetry.start(_tracing(settings))
            stack.push_async_callback(telemetry.aclose)
            app.state.parts = await _compose(
                settings, stack, telemetry, providers, sts, accept_rollback=accept_rollback
            )
            _settle_garbage_collector(stack)
            yield

    return build(
        lifespan,
        trusted_proxies=settings.server.trusted_proxies,
        https=settings.server.public_url.startswith("https://"),
        with_metrics=settings.server.metrics_port is None,
        telemetry=telemetry,
    )


def _tracing(settings: Settings) -> TracingSettings | None:
    wanted = settings.telemetry
    if wanted.otlp_endpoint is None:
        return None
    return TracingSettings(
        wanted.otlp_endpoint, wanted.trace_ratio, wanted.trace_callers_per_second
    )


def _settle_garbage_collector(stack: AsyncExitStack) -> None:
    """What lives after start-up lives on: no collection need look at it again, which halves the
    99th percentile under load.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    stack.callback(gc.set_threshold, *thresholds)
    stack.callback(gc.unfreeze)


async def _compose(
    settings: Settings,
    stack: AsyncExitStack,
    telemetry: ServerTelemetry,
    providers: Mapping[str, IdentityProvider] | None,
    sts: Sts | None,
    *,
    accept_rollback: bool,
) -> Parts:
    """Open everything that must be closed again onto `stack`."""
    meters = telemetry.instruments
    database = await _open_database(settings, stack, meters)
    ring = await load_sealing(settings.key_place(settings.keys.sealing), database)
    signing = await load_signing(settings.key_place(settings.keys.signing), database)
    delegates = await _open_delegates(signing, stack)
    outside: dict[str, Connect] = {}
    if providers is None:
        providers = await _open_providers(settings, stack)
        outside |= {f"provider {one.name}": partial(connect, one.issuer) for one in settings.oidc}
    if sts is None:
        sts = client = await _open_sts(settings, stack, meters)
        outside |= {f"STS {a.partition}": partial(client.reach, a.partition) for a in settings.aws}
    reachability = _open_reachability(outside, stack)
    journal = GroupCommitJournal(
        database,
        capacity=settings.audit.queue_size,
        patience=settings.audit.wait_seconds,
        reap_after=settings.audit.orphan_after_seconds,
        signer=signing.signer,
        receipt_key=None if delegates is None else delegates.current,
        observer=meters,
    )
    await journal.start()
    stack.push_async_callback(journal.aclose)
    checkpoints, tree = SqlCheckpoints(database), AuditTree(database)
    publisher = await _start_signing(
        settings,
        stack,
        meters,
        signing,
        checkpoints,
        tree,
        AuditRecords(database),
        journal,
        accept_rollback=accept_rollback,
    )

    # Not before the log is known to be the one that was signed.
    sinks = sink_setup.delivery(settings, database, meters)
    stack.push_async_callback(sinks.aclose)
    await sinks.start()

    access = SqlAccessStore(database)
    policies = CurrentPolicy(access, frozenset(providers))
    await _require_readable_policy(access, policies)
    sessions, factors = SqlSessionStore(database), CountedFactors(database, meters)
    throttle, jobs = CountedThrottle(database, meters), SqlJobs(database)
    ready = partial(_require_schema, database, newest_revision())
    ci_client = new_client()
    stack.push_async_callback(ci_client.aclose)
    parts = Parts(
        public_url=canonical_origin(settings.server.public_url),
        cookies=Cookies(secure=settings.server.public_url.startswith("https://")),
        providers=_titles(settings, providers),
        sessions=sessions,
        login=LoginFlow(
            providers,
            CountedLogins(database, meters, deny=journal.deny),
            _bootstrap_admins(settings),
        ),
        second_factor=SecondFactor(factors, ring, settings.mfa.enrolment, settings.mfa.label),
        factors=factors,
        people=SqlPeople(database),
        codes=SqlCodeStore(database),
        device_flow=settings.sessions.device_flow,
        device_logins=SqlDeviceStore(database),
        throttle=throttle,
        directory=SqlDirectory(database),
        suspensions=SqlSuspensions(database),
        grants=SqlGrants(database),
        access=access,
        access_changes=SqlChangeStore(database),
        known_people=SqlKnownPeople(database),
        analyse_policy=parliament.analyse,
        policies=policies,
        journal=journal,
        sts=sts,
        issuances=SqlIssuances(database),
        audit=AuditRecords(database),
        tree=tree,
        checkpoints=checkpoints,
        log_keys=signing.log,
        delegate=lambda: None if delegates is None else delegates.certificate,
        telemetry=telemetry,
        jobs=jobs,
        job_gate=JobGate(
            keys=CiIssuers(ci_client),
            jobs=jobs,
            token_ids=journal,
            throttle=throttle,
            journal=journal,
            sts=sts,
        ),
        in_flight=InFlight(),
        ready=ready,
        unreachable=lambda: (
            *reachability.unreachable(),
            *publisher.problems,
            *(f"sink {name}" for name in sinks.behind()),
            *(() if delegates is None else delegates.problems),
        ),
    )
    telemetry.watch(database, journal, ready=ready, unreachable=reachability.unreachable)
    stack.push_async_callback(telemetry.unwatch)
    await _start_sweeping(database, stack)
    return parts


def canonical_origin(url: str) -> str:
    """The origin as browsers and clients write it: lower case, no default port (RFC 6454)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


async def _open_database(
    settings: Settings, stack: AsyncExitStack, meters: Instruments
) -> Database:
    database = Database.open(
        settings.database.url.get_secret_value(),
        pool_size=settings.database.pool_size,
        on_wait=meters.waited_for_connection,
    )
    stack.push_async_callback(database.aclose)
    try:
        await check_schema(database)
    except AuditUnavailable as fault:
        raise StartupError(f"the database can't be reached: {fault.log_detail}") from fault
    await _require_durability(database, allow_unsafe=settings.audit.allow_unsafe_durability)
    return database


async def _require_durability(database: Database, *, allow_unsafe: bool) -> None:
    found = await examine(database)
    if found.refusals and not allow_unsafe:
        lines = "\n".join(found.refusals)
        raise StartupError(
            f"{lines}\nTo run so all the same, for tests: [audit] allow_unsafe_durability = true"
        )
    for line in (*found.refusals, *found.warnings):
        log.warning("the log is less safe than it could be", detail=line)


async def _open_delegates(signing: SigningKeys, stack: AsyncExitStack) -> Delegates | None:
    """None where the log's key is at hand, and signs receipts itself."""
    if not kms_signing.is_kms(signing.signer):
        return None
    delegates = Delegates(signing.log.origin, signing.signer)
    try:
        await delegates.start()
    except CannotSign as fault:
        raise StartupError(
            f"the log's key certified no delegate to sign receipts, so nothing could be issued: "
            f"{fault}"
        ) from fault
    stack.push_async_callback(delegates.aclose)
    return delegates


async def _start_signing(
    settings: Settings,
    stack: AsyncExitStack,
    meters: Instruments,
    signing: SigningKeys,
    checkpoints: SqlCheckpoints,
    tree: AuditTree,
    records: AuditRecords,
    journal: GroupCommitJournal,
    *,
    accept_rollback: bool,
) -> CheckpointPublisher:
    """Nothing is issued on a log that does not continue what was signed."""
    retention = timedelta(days=settings.audit.s3_retention_days)
    copies = [
        checkpoint_copies.parse(reference, retention=retention)
        for reference in settings.audit.checkpoint_copies
    ]
    client = new_client(total_seconds=witness.TOTAL_SECONDS)
    stack.push_async_callback(client.aclose)
    witnesses = [
        witness.TlogWitness(one.url, CosignerKey.parse(one.key), client, tree.consistency)
        for one in settings.audit.witnesses
    ]
    copying = Copying(checkpoints, copies, witnesses, on_copy=meters.copied)
    publisher = CheckpointPublisher(
        checkpoints=checkpoints,
        tree=tree,
        journal=journal,
        signer=signing.signer,
        copying=copying,
        every=settings.audit.checkpoint_seconds,
        records=settings.audit.checkpoint_records,
    )
    conflicts = await check_copies(copies, checkpoints=checkpoints, tree=tree, keys=signing.log)
    stored = StoredLog(checkpoints, tree, records, signing.log)
    conflicts += await check_witnesses(witnesses, stored, signing.signer)
    if conflicts:
        size = (await tree.edge()).size
        if not accept_rollback:
            raise refusal(conflicts, size)
        await record_rollback(conflicts, journal=journal, records=size)
        await _sign_now(publisher)
        await copying.push()
    await publisher.start()
    stack.push_async_callback(publisher.aclose)
    return publisher


async def _sign_now(publisher: CheckpointPublisher) -> None:
    """Raises StartupError where the acceptance of a loss can't be signed."""
    try:
        await publisher.publish()
    except CannotSign as fault:
        raise StartupError(f"the log's signing key can't be used: {fault}") from fault


async def _open_providers(settings: Settings, stack: AsyncExitStack) -> dict[str, IdentityProvider]:
    client = new_client()
    stack.push_async_callback(client.aclose)
    return {
        oidc.name: OidcProvider(
            ProviderConfig(
                name=oidc.name,
                issuer=oidc.issuer,
                client_id=oidc.client_id,
                client_secret=_revealed(oidc.client_secret),
                scopes=oidc.scopes,
                groups_claim=oidc.groups_claim,
                handle_claim=oidc.handle_claim,
                algorithms=frozenset(oidc.algorithms),
            ),
            client,
        )
        for oidc in settings.oidc
    }


async def _open_sts(settings: Settings, stack: AsyncExitStack, meters: Instruments) -> StsClient:
    client = StsClient(
        tuple(
            StsConfig(
                partition=aws.partition,
                region=aws.region,
                sts_endpoint_url=aws.sts_endpoint_url,
                chained=aws.chained,
                profile=aws.profile,
            )
            for aws in settings.aws
        ),
        observe=meters.sts_attempt,
    )
    stack.push_async_callback(client.aclose)
    await client.start()
    return client


def _open_reachability(outside: Mapping[str, Connect], stack: AsyncExitStack) -> Reachability:
    reachability = Reachability(outside)
    reachability.start()
    stack.push_async_callback(reachability.aclose)
    return reachability


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _titles(settings: Settings, providers: Mapping[str, IdentityProvider]) -> dict[str, str]:
    titles = {oidc.name: oidc.title or oidc.name for oidc in settings.oidc}
    return {name: titles.get(name, name) for name in providers}


def _bootstrap_admins(settings: Settings) -> tuple[BootstrapAdmin, ...]:
    return tuple(
        BootstrapAdmin(
            issuer=admin.issuer,
            subject=admin.subject,
            provider=admin.provider,
            email=admin.email,
        )
        for admin in settings.bootstrap.admins
    )


async def _require_readable_policy(access: SqlAccessStore, policies: CurrentPolicy) -> None:
    """A policy that no longer reads (a provider was dropped from the settings) would fail every
    request: better one line now.
    """
    stored = await access.current_policy()
    if stored is None:
        return
    try:
        await policies.at_least(stored.number)
    except PolicyRefused as refused:
        raise StartupError(
            f"version {stored.number} of the access policy does not fit these settings:\n{refused}"
        ) from refused


async def _require_schema(database: Database, revision: str) -> None:
    """Raises AuditUnavailable or StartupError while nothing could be issued."""
    if await current_revision(database) != revision:
        raise StartupError("the database is not at this broker's schema")


async def _start_sweeping(database: Database, stack: AsyncExitStack) -> None:
    task = asyncio.create_task(_sweep(database), name="sweep")

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


async def _sweep(database: Database) -> None:
    """Drop what expired, and record the grants that did. Nothing trusts a row for being there,
    so being late harms nobody.
    """
    while True:
        await asyncio.sleep(_SWEEP_EVERY)
        try:
            await sweep(database)
            await record_expired(database)
        except AuditUnavailable as fault:
            log.warning("sweep put off", detail=fault.log_detail)
