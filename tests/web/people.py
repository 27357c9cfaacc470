"""People of the tests, and what they do at a browser and a terminal."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import httpx
import pyotp

from broker.identity.login import ProviderIdentity

REDIRECT_URI = "http://127.0.0.1:49152/callback"
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)


@dataclass(frozen=True)
class Person:
    subject: str
    groups: tuple[str, ...] = ()
    issuer: str = "https://idp.test"

    @property
    def email(self) -> str:
        return f"{self.subject}@example.com"

    @property
    def identity(self) -> ProviderIdentity:
        return ProviderIdentity(
            provider="corp",
            issuer=self.issuer,
            subject=self.subject,
            handle=self.email,
            email=self.email,
            email_verified=True,
            groups=frozenset(f"corp/{group}" for group in self.groups),
        )


ADA = Person("ada", ("analysts",))
GRACE = Person("grace", ("audit",))
ADMIN = Person("root")


def field_of(page: httpx.Response, name: str) -> str:
    """The preset value of a named field in a page."""
    match = re.search(rf'name="{re.escape(name)}" value="([^"]*)"', page.text)
    assert match is not None, f"no field {name} in {page.url}: {page.text[:2000]}"
    return html.unescape(match[1])


def text_of(page: httpx.Response, identifier: str) -> str:
    match = re.search(rf'id="{re.escape(identifier)}"[^>]*>([^<]*)<', page.text)
    assert match is not None, f"no #{identifier} in {page.url}: {page.text[:2000]}"
    return html.unescape(match[1])


def query_of(response: httpx.Response) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(response.headers["location"]).query))


@dataclass
class Browser:
    """A person's browser: a cookie jar, and an authenticator in the other hand."""

    client: httpx.AsyncClient
    secret: str = ""
    recovery_codes: list[str] = field(default_factory=list)
    _step: int = 0

    async def get(self, url: str, **options: object) -> httpx.Response:
        return await self.client.get(url, **options)  # type: ignore[arg-type]

    async def submit(
        self, page: httpx.Response, action: str, values: dict[str, str]
    ) -> httpx.Response:
        """Post a form of `page` with its own CSRF token and next, from its own origin."""
        fields = {"csrf_token": field_of(page, "csrf_token")}
        if 'name="next"' in page.text:
            fields["next"] = field_of(page, "next")
        return await self.post(action, fields | values)

    async def post(self, action: str, values: dict[str, str]) -> httpx.Response:
        origin = str(self.client.base_url).rstrip("/")
        return await self.client.post(action, data=values, headers={"origin": origin})

    async def follow(self, response: httpx.Response) -> httpx.Response:
        """Follow redirects, as far as they stay here."""
        while response.status_code == 303:
            response = await self.client.get(response.headers["location"])
        return response

    async def sign_in(self, code: str, *, next_path: str = "/") -> httpx.Response:
        """Through the provider, which vouches for whoever has `code`; the page after it."""
        start = await self.client.get("/login", params={"next": next_path})
        assert start.status_code == 303, start.text
        state = query_of(start)["state"]
        back = await self.client.get("/login/callback", params={"code": code, "state": state})
        return await self.follow(back)

    async def enrol(self, page: httpx.Response, enrolment_code: str = "") -> httpx.Response:
        """Confirm the secret on the enrolment page; ends on the page with the recovery codes."""
        self.secret = text_of(page, "totp-secret")
        shown = await self.submit(
            page,
            "/mfa/enroll",
            {"code": self.code(), "enrolment_code": enrolment_code},
        )
        if shown.status_code == 200:
            items = shown.text.partition('id="recovery-codes"')[2].partition("</ol>")[0]
            self.recovery_codes = re.findall(r"<li>([^<]+)</li>", items)
        else:
            self._step -= 1  # the code was not used up
        return shown

    def code(self) -> str:
        """A code that was not used yet: the current step's, else the next one's."""
        self._step = max(self._step + 1, int(time.time()) // 30)
        return pyotp.TOTP(self.secret).generate_otp(self._step)

    async def consent(
        self, decision: str = "allow", *, redirect_uri: str = REDIRECT_URI, state: str = "xyz"
    ) -> httpx.Response:
        page = await self.client.get("/oauth/authorize", params=authorization(redirect_uri, state))
        assert page.status_code == 200, page.text
        names = ("response_type", "client_id", "redirect_uri", "state", "code_challenge")
        fields = {name: field_of(page, name) for name in (*names, "code_challenge_method")}
        return await self.submit(page, "/oauth/authorize", {**fields, "decision": decision})


def authorization(redirect_uri: str = REDIRECT_URI, state: str = "xyz") -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": "broker-cli",
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


async def exchange(client: httpx.AsyncClient, code: str) -> httpx.Response:
    return await client.post(
        "/oauth/token",
        data={
            "grant_type": "authorization_code",
            "client_id": "broker-cli",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        },
    )
