"""Pictures of the running product for the documents: `make screenshots`.

Starts what `broker dev` starts, leads a real Chromium through it as alice, and writes
docs/assets/*.png. What is in the pictures is of stand-ins that end with the script.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pyotp
from playwright.sync_api import Page, sync_playwright

from broker.access.versions import NewPolicy
from broker.adapters.migrations import migrate
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.devstack import people, tour
from broker.server_cli.configuration import configure_logging
from broker.server_cli.dev import local_stack
from broker.server_cli.migrate import log_origin
from broker.server_cli.recover import create_enrolment_code
from broker.server_cli.server import serving
from broker.settings import Oidc, Settings

FOLDER = Path(__file__).parents[1] / "docs" / "assets"
LARGEST = 100 * 1024
_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
_WIDTH, _HEIGHT = 640, 520
# A second provider, so that there is something to choose.
_OTHER = Oidc(
    name="partners",
    title="Partners",
    issuer="https://partners.example.com",
    client_id="broker",
)


def main() -> int:
    configure_logging("error")
    with local_stack(0) as stack:
        first = stack.settings.oidc[0].model_copy(update={"title": "Example Corp"})
        settings = stack.settings.model_copy(update={"oidc": (first, _OTHER)})
        asyncio.run(_serve_and_take(settings))
    return 0


async def _serve_and_take(settings: Settings) -> None:
    FileKeyRing.create(settings.keys.sealing_path)
    SigningKeys.create(settings.keys.signing_path, log_origin(settings.server.public_url))
    await migrate(settings.database.url.get_secret_value())
    await _apply_policy(settings)
    async with serving(settings):
        code = await create_enrolment_code(
            settings, provider=people.PROVIDER, email=people.ALICE.email
        )
        await asyncio.to_thread(_take, settings.server.public_url, code)


async def _apply_policy(settings: Settings) -> None:
    """The tour's, so that there are roles to see."""
    text = tour.POLICY.read_text("utf-8")
    database = Database.open(settings.database.url.get_secret_value())
    try:
        await SqlAccessStore(database).apply_policy(
            NewPolicy(text, frozenset(), frozenset()),
            expected=0,
            applied_by=SYSTEM.id,
            event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
        )
    finally:
        await database.aclose()


def _take(url: str, enrolment_code: str) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        page = browser.new_page(
            viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light", locale="en-GB"
        )
        page.goto(f"{url}/login")
        _picture(page, "login")
        page.get_by_text("Example Corp").click()
        page.fill("#username", people.ALICE.username)
        page.fill("#password", people.ALICE.password)
        page.get_by_role("button").click()
        page.wait_for_selector("#totp-secret")
        _picture(page, "enrolment")
        secret = page.inner_text("#totp-secret").replace(" ", "")
        page.fill("[name=enrolment_code]", enrolment_code)
        page.fill("[name=code]", pyotp.TOTP(secret).now())
        page.get_by_role("button", name="Confirm").click()
        page.wait_for_selector("#recovery-codes")
        page.goto(f"{url}/")
        _picture(page, "home")
        page.goto(f"{url}/oauth/authorize?{urlencode(_authorization())}")
        _picture(page, "consent")
        page.goto(f"{url}/device?{urlencode({'user_code': _user_code(url)})}")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_selector("[name=decision]")
        _picture(page, "device")
        browser.close()


def _authorization() -> dict[str, str]:
    """As `broker login` asks; nobody answers it."""
    return {
        "response_type": "code",
        "client_id": "broker-cli",
        "redirect_uri": "http://127.0.0.1:51004/callback",
        "state": "screenshot",
        "code_challenge": base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }


def _user_code(url: str) -> str:
    answer = httpx.post(
        f"{url}/oauth/device_authorization",
        data={"client_id": "broker-cli", "host_name": "build-7"},
        trust_env=False,
    )
    return str(answer.raise_for_status().json()["user_code"])


def _picture(page: Page, name: str) -> None:
    """Raises ValueError for one that is too large to be kept."""
    path = FOLDER / f"{name}.png"
    page.locator("main").screenshot(path=path)
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path.name} has {size} bytes")
    print(f"{path.name} {size} bytes")


if __name__ == "__main__":
    sys.exit(main())
