"""Looking up people and workloads.

Owns: how e-mail addresses are compared, and the reading verbs about principals.
Does not own: what changes them (`login`, `totp`).
"""

from __future__ import annotations

import string
from typing import Protocol

from broker.identity.principal import Principal
from broker.identity.sessions import LoginSession

_LOWER_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def email_key(email: str) -> str:
    """What addresses are compared by: ASCII letters lowered, all else as it is.

    Unicode lowering would make distinct mailboxes equal: the Kelvin sign becomes `k`.
    """
    return email.translate(_LOWER_ASCII)


def split_user_name(name: str) -> tuple[str, str] | None:
    """Provider and e-mail key of a `user:` name of the access policy, None for a principal id."""
    provider, slash, email = name.partition("/")
    return (provider, email_key(email)) if slash and provider and email else None


class People(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def principal(self, principal_id: str) -> Principal | None: ...

    async def find_by_subject(self, issuer: str, subject: str) -> Principal | None: ...

    async def find_by_email(self, provider: str, email: str) -> Principal | None:
        """The person whom this provider vouched for with this verified address.

        Raises Conflict where several had it, one after the other: name the subject then.
        """
        ...

    async def newest_login(self, principal_id: str) -> LoginSession | None:
        """Of their live login sessions the one whose second factor was shown last; one without
        a factor where there is no other. None where they are not logged in.
        """
        ...

    async def is_pinned_admin(self, principal_id: str) -> bool: ...

    async def has_admin(self) -> bool:
        """Whether the first admin was bootstrapped: from then on an e-mail address pins nobody."""
        ...
