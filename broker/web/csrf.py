"""Cross-site request forgery: what every mutating browser route checks first.

Two independent proofs: the hidden `csrf_token` is an HMAC under the session
cookie, which another site can't read, and `Origin` (with `Sec-Fetch-Site` where
the browser sends it) names this host. The token changes with the cookie, so one
taken before a second factor is worth nothing after it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from starlette.requests import Request

from broker.errors import Forbidden
from broker.identity.sessions import Token

_LABEL = b"broker csrf token v1"


def csrf_token(session: Token) -> str:
    """The token of this session's forms; 256 bits, base64url."""
    digest = hmac.digest(session.text.encode("ascii"), _LABEL, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def check_csrf(request: Request, session: Token, presented: str | None, origin: str) -> None:
    """Raises Forbidden unless the form was sent from a page of `origin` to this very session."""
    check_origin(request, origin)
    if presented is None or not hmac.compare_digest(
        presented.encode("utf-8", "surrogatepass"), csrf_token(session).encode("ascii")
    ):
        raise Forbidden(
            "This form belongs to an earlier sign-in. Go back, reload the page and try again.",
            log_detail="csrf token missing or foreign",
        )


def check_origin(request: Request, origin: str) -> None:
    """Raises Forbidden where the browser says that another origin made it send this.

    A browser sends Origin with every cross-origin POST, so its absence leaves the
    decision to the token; `null` (a sandboxed frame, a data: page) is refused.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Forbidden(
            "This form was sent from another site.", log_detail=f"Sec-Fetch-Site {site!r}"
        )
    sender = request.headers.get("origin")
    if sender is not None and sender != origin:
        raise Forbidden("This form was sent from another site.", log_detail=f"Origin {sender!r}")
