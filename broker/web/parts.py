"""The parts a route may use, composed once by `app.py` and frozen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from broker.access.analysis import Analyse
from broker.access.grant import GrantStore
from broker.access.plan import KnownPeopleReader
from broker.access.versions import AccessStore, ChangeStore
from broker.audit.checkpoint import LogKeys
from broker.identity.device import DeviceFlow, DeviceStore
from broker.identity.directory import Directory
from broker.identity.job_store import JobStore
from broker.identity.login_flow import LoginFlow
from broker.identity.oauth import CodeStore
from broker.identity.people import People
from broker.identity.second_factor import SecondFactor
from broker.identity.sessions import SessionStore
from broker.identity.throttle import Throttle
from broker.identity.totp import FactorStore
from broker.issuance.exchange import JobGate
from broker.issuance.history import IssuanceReader
from broker.issuance.journal import Journal
from broker.issuance.revoke import SuspensionStore
from broker.issuance.sts import Sts
from broker.web.cookies import Cookies
from broker.web.current_policy import CurrentPolicy
from broker.web.in_flight import InFlight
from broker.web.readers import AuditReader, CheckpointReader, TreeReader
from broker.web.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Parts:
    """`providers` maps the name of each identity provider to how pages call it. `unreachable`
    names what can't be reached now and does not stop the rest.
    """

    public_url: str
    cookies: Cookies
    providers: Mapping[str, str]
    sessions: SessionStore
    login: LoginFlow
    second_factor: SecondFactor
    factors: FactorStore
    people: People
    codes: CodeStore
    device_flow: DeviceFlow
    device_logins: DeviceStore
    throttle: Throttle
    directory: Directory
    suspensions: SuspensionStore
    grants: GrantStore
    access: AccessStore
    access_changes: ChangeStore
    known_people: KnownPeopleReader
    analyse_policy: Analyse
    policies: CurrentPolicy
    journal: Journal
    sts: Sts
    issuances: IssuanceReader
    audit: AuditReader
    tree: TreeReader
    checkpoints: CheckpointReader
    log_keys: LogKeys
    # The certificate of the delegate that signs this process' receipts, where one does.
    delegate: Callable[[], str | None]
    telemetry: Telemetry
    jobs: JobStore
    job_gate: JobGate
    in_flight: InFlight
    ready: Callable[[], Awaitable[None]] = field(repr=False)
    unreachable: Callable[[], tuple[str, ...]] = field(repr=False)


def parts_of(connection: HTTPConnection) -> Parts:
    parts = connection.app.state.parts
    if not isinstance(parts, Parts):
        raise TypeError("the application was not composed")
    return parts
