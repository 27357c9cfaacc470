"""How a person is named on the command line: a principal id, or provider/e-mail."""

from __future__ import annotations

import re

from broker.cli.failure import WrongUsage

_PRINCIPAL = re.compile(r"p-[a-z2-7]{16}")
_ANY_PRINCIPAL = re.compile(r"[pw]-[a-z2-7]{16}")
_BY_EMAIL = re.compile(r"(?P<provider>[a-z0-9][a-z0-9._-]{0,63})/(?P<email>[^\s/@]+@[^\s/@]+)")


def principal_id(text: str) -> str:
    """Raises WrongUsage unless it is a person's principal id."""
    if not _PRINCIPAL.fullmatch(text):
        raise WrongUsage(
            f"{text!r} is not a principal id (p- and 16 characters); the audit log names them, "
            "and `broker whoami` one's own"
        )
    return text


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
