"""The request of OAuth 2.0 Token Exchange (RFC 8693), for one case: a CI job's OIDC token.

Owns: which parameters there may be. Does not own: whether the token is good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from broker.identity.oauth import OAuthError, single_valued

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ISSUED_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name of RFC 8693
# Longer ones are refused as tokens, and on record; this only bounds the form.
_MAX_FORM_TOKEN = 4 * 1024 * 1024
_SUBJECT_TOKEN_TYPES = frozenset(
    {"urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"}
)
_SCOPE = re.compile(r"role:([a-z0-9][a-z0-9._-]{0,63})", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class TokenExchange:
    """`role` tells apart entries that admit the same job; the job token is not limited to it."""

    unverified_token: str
    role: str | None

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> TokenExchange:
        """Raises OAuthError."""
        parameters = single_valued(pairs, longer={"subject_token": _MAX_FORM_TOKEN})
        if "actor_token" in parameters or "actor_token_type" in parameters:
            raise OAuthError("invalid_request", "A job acts for itself: no actor_token is taken.")
        if parameters.get("requested_token_type", ISSUED_TOKEN_TYPE) != ISSUED_TOKEN_TYPE:
            raise OAuthError("invalid_request", "Only an access token is issued.")
        if parameters.get("subject_token_type") not in _SUBJECT_TOKEN_TYPES:
            raise OAuthError(
                "invalid_request", "subject_token_type is urn:ietf:params:oauth:token-type:jwt."
            )
        if "subject_token" not in parameters:
            raise OAuthError("invalid_request", "The subject_token is missing.")
        scope = parameters.get("scope")
        role = None if scope is None else _SCOPE.fullmatch(scope)
        if scope is not None and role is None:
            raise OAuthError("invalid_scope", "A scope here is role:NAME.")
        return cls(parameters["subject_token"], None if role is None else role[1])
