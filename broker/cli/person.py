"""How a person is named on the command line: a principal id, provider/e-mail, or a handle."""

from __future__ import annotations

import re

from broker.cli import answers, pages
from broker.cli.failure import LocalFailure, WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean

_PRINCIPAL = re.compile(r"p-[a-z2-7]{16}")
_ANY_PRINCIPAL = re.compile(r"[pw]-[a-z2-7]{16}")
_HANDLE = re.compile(r"[^\s/\x00-\x1f\x7f]{1,256}")
_BY_EMAIL = re.compile(r"(?P<provider>[a-z0-9][a-z0-9._-]{0,63})/(?P<email>[^\s/@]+@[^\s/@]+)")


def reference(text: str) -> dict[str, object]:
    """What the API calls `principal`, or `provider` and `email`. Raises WrongUsage."""
    if _PRINCIPAL.fullmatch(text):
        return {"principal": text}
    match = _BY_EMAIL.fullmatch(text)
    if match is None:
        raise WrongUsage(f"{text!r} is not a person: write provider/e-mail, or p-...")
    return {"provider": match["provider"], "email": match["email"]}


def anybody(text: str) -> str:
    """A person or a workload, as the API takes it in a query. Raises WrongUsage."""
    if not _ANY_PRINCIPAL.fullmatch(text) and not _BY_EMAIL.fullmatch(text):
        raise WrongUsage(f"{text!r} is nobody: write provider/e-mail, or p-... or w-...")
    return text


def resolved(session: Session, text: str) -> str:
    """The principal id of whoever is meant: an id, provider/e-mail, or an e-mail or handle that
    one person alone has. Raises WrongUsage, and LocalFailure where nobody or several are meant.
    """
    if _ANY_PRINCIPAL.fullmatch(text):
        return text
    by_email = _BY_EMAIL.fullmatch(text)
    if by_email is None and not _HANDLE.fullmatch(text):
        raise WrongUsage(f"{text!r} is not a person: write provider/e-mail, a handle, or p-...")
    sought = by_email["email"] if by_email else text
    found = pages.whole(session, "/v1/users", "users", {"q": sought})
    if by_email:
        found = [one for one in found if one.get("provider") == by_email["provider"]]
    names = [_names(one, by_address=by_email is not None) for one in found]
    meant = [one for one, its in zip(found, names, strict=True) if sought.lower() in its]
    ids = [answers.text(one, "id") for one in meant]
    if len(ids) > 1:
        raise LocalFailure(
            f"{text!r} may be any of {', '.join(map(clean, ids))}: name one of these"
        )
    if not ids or not _ANY_PRINCIPAL.fullmatch(ids[0]):
        raise LocalFailure(f"nobody known here is called {text!r}; `broker users` lists who is")
    return ids[0]


def _names(user: dict[str, object], *, by_address: bool) -> set[str]:
    address = str(user.get("email") or "").lower()
    return {address} if by_address else {address, str(user.get("handle") or "").lower()}


def is_address(text: str) -> bool:
    """Whether it is provider/e-mail."""
    return _BY_EMAIL.fullmatch(text) is not None


def login_session_id(text: str) -> str:
    """Raises WrongUsage."""
    if not re.fullmatch(r"ls-[0-9a-f]{20}", text):
        raise WrongUsage(f"{text!r} is not a login's id (ls- and 20 digits)")
    return text


def grant_id(text: str) -> str:
    """Raises WrongUsage."""
    if not re.fullmatch(r"g-[a-z2-7]{26}", text):
        raise WrongUsage(f"{text!r} is not a grant's id (g- and 26 characters)")
    return text
