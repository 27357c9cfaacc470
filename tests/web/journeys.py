"""What people do before a test begins: sign in, enrol, log the command line in."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.identity.typed_codes import new_enrolment_code
from tests.web.conftest import Running
from tests.web.people import ADMIN, Browser, Person, exchange, query_of

ENROLMENT_CODE_PATH = "/v1/enrolment-codes"

POLICY = """\
version: 1
accounts:
  prod: {id: "111122223333", name: Production, region: eu-central-1}
admins: [{group: corp/platform}]
auditors: [{group: corp/audit}]
roles:
  data-reader:
    description: Read one dataset
    account: prod
    role_arn: arn:aws:iam::111122223333:role/DataReader
    role_maximum: 4h
    default_duration: 1h
    parameters: {bucket: {allowed: [reports, logs]}}
    session_policy:
      Version: "2012-10-17"
      Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "arn:aws:s3:::{{bucket}}/*"}]
entitlements:
  - {role: data-reader, to: {group: analysts}, mode: standing, max_duration: 2h}
"""


@dataclass
class LoggedIn:
    """A browser and a terminal of one person, both past the second factor."""

    person: Person
    browser: Browser
    api: httpx.AsyncClient
    token: str
    refresh_token: str


def bearer(who: LoggedIn) -> dict[str, str]:
    return {"authorization": f"Bearer {who.token}"}


async def enrolled_browser(broker: Running, person: Person, enrolment_code: str = "") -> Browser:
    """Signed in through the provider, with an authenticator that was just set up."""
    browser = Browser(broker.client())
    page = await browser.sign_in(broker.provider.register(person))
    shown = await browser.enrol(page, enrolment_code)
    assert shown.status_code == 200, shown.text
    assert len(browser.recovery_codes) == 10
    return browser


async def logged_in_person(broker: Running, person: Person, enrolment_code: str = "") -> LoggedIn:
    browser = await enrolled_browser(broker, person, enrolment_code)
    redirect = await browser.consent()
    assert redirect.status_code == 303, redirect.text
    api = broker.client()
    tokens = (await exchange(api, query_of(redirect)["code"])).json()
    return LoggedIn(person, browser, api, tokens["access_token"], tokens["refresh_token"])


async def logged_in_admin(broker: Running) -> LoggedIn:
    """The admin of the settings, whom `broker recover` gave an enrolment code."""
    code = await recovery_on_the_host(broker, ADMIN)
    return await logged_in_person(broker, ADMIN, code)


async def recovery_on_the_host(broker: Running, person: Person) -> str:
    """An enrolment code that no admin of the API gave, as `broker recover` makes one."""
    code, code_hash = new_enrolment_code()
    await broker.app.state.parts.factors.create_enrolment_code(
        code_hash,
        principal_id=None,
        provider="corp",
        email=person.email,
        created_by="system",
        event=Event(EventType.ENROLMENT_CODE_CREATED, SYSTEM, Outcome.SUCCESS),
    )
    return code
