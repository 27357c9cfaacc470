"""The composition root: settings in, ASGI application out.

The one place where parts meet. Everything is made here, in order, when the
application starts, and closed in the opposite order when it stops; a route
finds it as a frozen `Parts`. Nothing is made when a module is imported.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI

from broker import sink_setup
from broker.access.finding import PolicyRefused
from broker.adapters import parliament
from broker.adapters.ci_issuers import CiIssuers
from broker.adapters.keys import load_sealing, load_signing
from broker.adapters.migrations import current_revision, newest_revision
from broker.adapters.outbound import new_client
from broker.adapters.reachability import Connect, connect
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.access_changes import SqlChangeStore
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.codes import SqlCodeStore
from broker.adapters.store.devices import SqlDeviceStore
from broker.adapters.store.directory import SqlDirectory
from broker.adapters.store.engine import Database
from broker.adapters.store.grants import SqlGrants
from broker.adapters.store.issuances import SqlIssuances
from broker.adapters.store.jobs import SqlJobs
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.policy_people import SqlKnownPeople
from broker.adapters.store.principals import SqlPeople
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.sessions import SqlSessionStore
from broker.adapters.store.suspensions import SqlSuspensions
from broker.adapters.store.tree import AuditTree
from broker.adapters.telemetry.counted import CountedFactors, CountedLogins, CountedThrottle
from broker.adapters.telemetry.server import ServerTelemetry, TracingSettings
from broker.database_setup import open_database, start_sweeping
from broker.errors import StartupError
from broker.identity.login import BootstrapAdmin, IdentityProvider
from broker.identity.login_flow import LoginFlow
from broker.identity.second_factor import SecondFactor
from broker.issuance.exchange import JobGate
from broker.issuance.sts import Sts
from broker.log_setup import StoredParts, open_delegates, start_signing
from broker.outside_setup import open_providers, open_reachability, open_sts
from broker.settings import Settings
from broker.web.cookies import Cookies
from broker.web.current_policy import CurrentPolicy
from broker.web.in_flight import InFlight
from broker.web.parts import Parts
from broker.web.routes import build

log = structlog.get_logger("broker.app")

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
    database = await open_database(settings, stack, meters)
    ring = await load_sealing(settings.key_place(settings.keys.sealing), database)
    signing = await load_signing(settings.key_place(settings.keys.signing), database)
    delegates = await open_delegates(signing, database, stack)
    outside: dict[str, Connect] = {}
    if providers is None:
        providers = await open_providers(settings, stack)
        outside |= {f"provider {one.name}": partial(connect, one.issuer) for one in settings.oidc}
    if sts is None:
        sts = client = await open_sts(settings, stack, meters)
        outside |= {f"STS {a.partition}": partial(client.reach, a.partition) for a in settings.aws}
    reachability = open_reachability(outside, stack)
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
    stored = StoredParts(checkpoints, tree, AuditRecords(database), journal)
    publisher = await start_signing(
        settings, stack, meters, signing, stored, accept_rollback=accept_rollback
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
        audit=stored.records,
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
    await start_sweeping(database, stack)
    return parts


def canonical_origin(url: str) -> str:
    """The origin as browsers and clients write it: lower case, no default port (RFC 6454)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


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
