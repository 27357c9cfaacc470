"""An OpenID provider with a login form and a few people, for `broker dev` and tests.

Owns: OpenID Connect Core's code flow as a strict provider would do it (exact
redirect URIs, PKCE S256 verified, single-use codes, RFC 9207 `iss`, client
authentication). Keys and codes live in memory. Not for production: passwords
are printed.
"""

from broker.devstack.oidc.provider import Client, Person, create_provider

__all__ = ["Client", "Person", "create_provider"]
