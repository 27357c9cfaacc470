"""A person at a browser, scripted: follows redirects, keeps cookies, fills in forms.

Owns: just enough HTML to read forms and named elements of the broker's and the
stand-in provider's pages, which work without script. Used by the tour and the
end-to-end tests; a real browser is used where looks or script matter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx
import pyotp

_STEP_SECONDS = 30


@dataclass(slots=True)
class Form:
    """One form: where it goes, and its named fields with their preset values."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Page:
    """A page as read: its forms, the text and link of each element with an id, its list items."""

    url: str
    status: int
    html: str
    forms: list[Form]
    texts: dict[str, str]
    links: dict[str, str]
    items: dict[str, list[str]]

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    def form_with(self, name: str) -> Form | None:
        """The first form that has a field or button of this name."""
        for form in self.forms:
            if name in form.fields or any(button == name for button, _ in form.buttons):
                return form
        return None


class _Reader(HTMLParser):
    """Collects forms, and the text inside elements that carry an id."""

    _VOID = frozenset({"input", "meta", "link", "br", "img", "hr", "path", "rect"})

    def __init__(self, base: str) -> None:
        super().__init__(convert_charrefs=True)
        self._base = base
        self._open: list[tuple[str, str | None]] = []
        self.forms: list[Form] = []
        self.texts: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.items: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        identifier = given.get("id")
        if identifier is not None:
            self.texts.setdefault(identifier, "")
            if "href" in given:
                self.links[identifier] = given["href"]
        if tag == "form":
            action = urljoin(self._base, given.get("action") or self._base)
            self.forms.append(Form(action, given.get("method", "get").lower()))
        elif tag in ("input", "button") and self.forms and "name" in given:
            self._add_control(tag, given)
        if tag == "li":
            for _, opened in self._open:
                if opened is not None:
                    self.items.setdefault(opened, []).append("")
        if tag not in self._VOID:
            self._open.append((tag, identifier))

    def _add_control(self, tag: str, given: dict[str, str]) -> None:
        form = self.forms[-1]
        if tag == "button" or given.get("type") == "submit":
            form.buttons.append((given["name"], given.get("value", "")))
        else:
            form.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            opened, _ = self._open.pop()
            if opened == tag:
                return

    def handle_data(self, data: str) -> None:
        in_item = any(tag == "li" for tag, _ in self._open)
        for _, identifier in self._open:
            if identifier is None:
                continue
            self.texts[identifier] = self.texts.get(identifier, "") + data
            if in_item and self.items.get(identifier):
                self.items[identifier][-1] += data.strip()


class ScriptedBrowser:
    """Keeps one cookie jar. Every navigation follows redirects, as a browser does."""

    def __init__(self, client: httpx.Client | None = None) -> None:
        self._client = client or httpx.Client(follow_redirects=True, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    def open(self, url: str) -> Page:
        return self._read(self._client.get(url))

    def submit(self, page: Page, form: Form, values: Mapping[str, str]) -> Page:
        """Send the form with its preset fields and these values, with the page as its origin."""
        parts = urlsplit(page.url)
        headers = {"Origin": f"{parts.scheme}://{parts.netloc}"}
        fields = {**form.fields, **values}
        if form.method == "post":
            return self._read(self._client.post(form.action, data=fields, headers=headers))
        return self._read(self._client.get(form.action, params=fields))

    def _read(self, response: httpx.Response) -> Page:
        reader = _Reader(str(response.url))
        if "html" in response.headers.get("content-type", ""):
            reader.feed(response.text)
        return Page(
            str(response.url),
            response.status_code,
            response.text,
            reader.forms,
            {key: value.strip() for key, value in reader.texts.items()},
            reader.links,
            reader.items,
        )


class CannotSignIn(Exception):
    """The pages led somewhere that a person could not go on from."""


@dataclass(slots=True)
class ScriptedPerson:
    """Somebody with a password and, once enrolled, an authenticator."""

    username: str
    password: str = field(repr=False)
    totp_secret: str | None = field(default=None, repr=False)
    recovery_codes: list[str] = field(default_factory=list, repr=False)
    _last_step: int = field(default=-1, repr=False)

    def next_code(self) -> str:
        """A code that was not shown before. The broker takes each 30 s step once, and one step
        of clock drift either way; where both are spent, wait for the next, as a person does.
        """
        if self.totp_secret is None:
            raise CannotSignIn("asked for a code before any authenticator was enrolled")
        step, into_step = divmod(time.time(), _STEP_SECONDS)
        # Start one step back while that is safe, so that the code on a phone stays unspent.
        earliest = int(step) - 1 if into_step < _STEP_SECONDS - 10 else int(step)
        wanted = max(self._last_step + 1, earliest)
        time.sleep(max(0.0, (wanted - 1) * _STEP_SECONDS - time.time()))
        self._last_step = wanted
        return pyotp.TOTP(self.totp_secret).at(wanted * _STEP_SECONDS)

    def sign_in(self, browser: ScriptedBrowser, url: str, *, enrolment_code: str = "") -> Page:
        """Open `url` and answer each page as it comes, until none asks anything more, or one
        asks for an enrolment code that is not given.

        Raises CannotSignIn when a page refuses or the way does not end.
        """
        page = browser.open(url)
        for _ in range(12):
            answered = self.answer(browser, page, enrolment_code)
            if answered is None:
                return page
            if answered.status >= 400:
                raise CannotSignIn(f"{answered.path} answered {answered.status}")
            page = answered
        raise CannotSignIn(f"still asked at {page.path}")

    def answer(self, browser: ScriptedBrowser, page: Page, enrolment_code: str) -> Page | None:
        """What follows from answering this page, or None where it asks nothing."""
        if form := page.form_with("password"):
            return browser.submit(
                page, form, {"username": self.username, "password": self.password}
            )
        if form := page.form_with("provider"):
            return browser.submit(
                page, form, {"provider": form.buttons[0][1]} if form.buttons else {}
            )
        if page.path == "/mfa/enroll" and (form := page.form_with("code")):
            if "enrolment_code" in form.fields and not enrolment_code:
                return None  # somebody has to ask an admin for one first
            self.totp_secret = page.texts["totp-secret"].replace(" ", "")
            self._last_step = -1
            values = {"code": self.next_code(), "enrolment_code": enrolment_code}
            return browser.submit(page, form, values)
        if page.path == "/mfa" and (form := page.form_with("code")):
            return browser.submit(page, form, {"code": self.next_code()})
        if page.path == "/device" and (form := page.form_with("user_code")):
            if "code" not in form.fields:
                return browser.submit(page, form, {})
            return browser.submit(page, form, {"code": self.next_code(), "decision": "allow"})
        if codes := page.items.get("recovery-codes"):
            self.recovery_codes = codes
            follow = page.links.get("continue")
            return browser.open(urljoin(page.url, follow)) if follow else None
        if form := page.form_with("decision"):
            return browser.submit(page, form, {"decision": "allow"})
        return None
