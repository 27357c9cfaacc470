"""An identity provider and an STS that are told what to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from broker.identity.login import LoginRejected, ProviderIdentity
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted, StsFailure
from tests.web.people import Person


class StandInProvider:
    """Vouches for the person that was registered under a code, once the binding is right."""

    def __init__(self, name: str = "corp") -> None:
        self.name = name
        self.issuer = "https://idp.test" if name == "corp" else f"https://{name}.test"
        self.people: dict[str, ProviderIdentity] = {}
        self.reachable = True

    def register(self, person: Person) -> str:
        """The code that makes the provider vouch for this person."""
        self.people[f"code-{person.subject}"] = person.identity
        return f"code-{person.subject}"

    async def authorization_url(
        self, *, state: str, nonce: str, code_challenge: str, redirect_uri: str
    ) -> str:
        if not self.reachable:
            raise LoginRejected("the provider can't be reached")
        query = {"state": state, "nonce": nonce, "redirect_uri": redirect_uri}
        return f"{self.issuer}/authorize?{urlencode(query)}"

    async def identify(
        self, *, code: str, code_verifier: str, nonce: str, redirect_uri: str, iss: str | None
    ) -> ProviderIdentity:
        if code not in self.people:
            raise LoginRejected("the code is not known")
        return self.people[code]


class StandInSts:
    """Gives credentials with a recognisable secret, and keeps what it was asked."""

    secret = "canary-secret-access-key"

    def __init__(self) -> None:
        self.arn = "arn:aws:sts::999988887777:assumed-role/BrokerHub/i-0123456789abcdef0"
        self.calls: list[AssumeRole] = []
        self.failure: StsFailure | None = None

    def chained(self, partition: str) -> bool:
        return False

    async def identify(self, partition: str) -> CallerIdentity:
        if self.failure is not None:
            raise self.failure
        return CallerIdentity("999988887777", self.arn)

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        account, _, name = call.role_arn.removeprefix("arn:aws:iam::").partition(":role/")
        return Minted(
            credentials=Credentials(
                access_key_id="ASIAEXAMPLEEXAMPLE00",
                secret_access_key=self.secret,
                session_token="canary-session-token",
                expiration=datetime.now(UTC) + timedelta(seconds=call.duration_seconds),
            ),
            assumed_role_arn=f"arn:aws:sts::{account}:assumed-role/{name}/{call.role_session_name}",
            assumed_role_id=f"AROAEXAMPLE:{call.role_session_name}",
            request_id="sts-request-1",
            packed_policy_percent=3,
        )
