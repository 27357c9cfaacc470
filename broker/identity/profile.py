"""What a provider says of a person, as the broker keeps it.

Owns: reading groups, handle, e-mail and the claims kept for templates, from an
ID token's checked claims and, where those lack them, the userinfo answer. Does
not own: who fetched and verified these (`id_token`, `adapters/oidc`).

Nothing here can refuse a login: what is malformed is left out, so it gives no
rights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

from broker.identity.id_token import PROTOCOL_CLAIMS, IdTokenClaims
from broker.identity.login import ProviderIdentity

MAX_GROUPS = 200
_MAX_GROUP_NAME = 256
_MAX_HANDLE = 128
_MAX_CLAIMS = 32
_MAX_CLAIM_VALUE = 256
_CLAIM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# No more than e-mail addresses need to be told apart from other text.
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,189}")


def needs_userinfo(claims: IdTokenClaims, groups_claim: str) -> bool:
    """Whether the ID token leaves out what userinfo may have."""
    return groups_claim not in claims.all or "email" not in claims.all


def read_groups(value: object) -> tuple[str, ...] | None:
    """The provider's own group names, or None where the claim can't be used: not a list of
    strings, over 200 entries, or a name empty, over 256 characters or with control characters.

    One bad entry spoils all: what else in it is wrong can't be told.
    """
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        return None
    for name in value:
        if not (isinstance(name, str) and 0 < len(name) <= _MAX_GROUP_NAME and name.isprintable()):
            return None
    return tuple(value)


def identity_of(
    claims: IdTokenClaims,
    userinfo: Mapping[str, object] | None,
    *,
    provider: str,
    issuer: str,
    groups_claim: str,
    handle_claim: str,
) -> ProviderIdentity:
    """`userinfo` is None or an answer for the same subject. The ID token's word goes first;
    a claim that is malformed there is not looked for elsewhere.
    """
    sources = (claims.all, userinfo or {})
    email, email_verified = _email(_source_with("email", sources))
    groups = read_groups(_source_with(groups_claim, sources).get(groups_claim)) or ()
    handle = _source_with(handle_claim, sources).get(handle_claim)
    return ProviderIdentity(
        provider=provider,
        issuer=issuer,
        subject=claims.subject,
        handle=handle if _is_short(handle, _MAX_HANDLE) else email or claims.subject,
        email=email,
        email_verified=email_verified,
        groups=frozenset(f"{provider}/{name}" for name in groups),
        claims=_kept(claims.all),
        auth_time=claims.auth_time,
    )


def _source_with(
    name: str, sources: tuple[Mapping[str, object], Mapping[str, object]]
) -> Mapping[str, object]:
    return next((source for source in sources if name in source), {})


def _email(source: Mapping[str, object]) -> tuple[str | None, bool]:
    """Address and whether it is verified, from one source: else one could vouch for another's."""
    email = source.get("email")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email) or not email.isprintable():
        return None, False
    # JSON true alone: some providers write "false" as a string, which is true to many a reader.
    return email, source.get("email_verified") is True


def _kept(claims: Mapping[str, object]) -> Mapping[str, str]:
    """String claims for templates, from the signed token alone, at most 32, sorted by name."""
    kept: dict[str, str] = {}
    for name, value in sorted(claims.items()):
        if name in PROTOCOL_CLAIMS or not _CLAIM_NAME.fullmatch(name):
            continue
        if _is_short(value, _MAX_CLAIM_VALUE) and len(kept) < _MAX_CLAIMS:
            kept[name] = value
    return kept


def _is_short(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()
