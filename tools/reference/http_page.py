"""`reference/http-api.md`: every route, who may call it, what it takes, and what it answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from broker.app import create_app
from broker.settings import Settings
from tools.reference.markdown import Incomplete, code, page, require_same, table

_INTRODUCTION = """
Programs send `Authorization: Bearer TOKEN`, JSON, and get JSON, in snake_case; times are RFC 3339 in UTC, durations
whole seconds. A refusal is a problem with a [code](errors.md); every route under `/v1` may answer `unauthenticated`,
`suspended`, `invalid_request`, `rate_limited` and `audit_unavailable`. Lists take `after` and `limit`, and say where
the next page begins. `GET /openapi.json` has the shapes.

Who may call is one of these:

| Who | Besides | Refused with |
|---|---|---|
| anybody | | |
| a login | the second factor may be pending | `unauthenticated` |
| a verified login | | `mfa_required` |
| a fresh login | a factor under five minutes old; no login by a code from another device | `mfa_stale`, `forbidden` |
| an auditor | auditors and admins of the access policy | `forbidden` |
| an admin | | `forbidden` |
| a fresh admin | a factor under five minutes old | `mfa_stale`, `forbidden` |
| a verified login or a job, ... | or a CI job that the access policy lets in | as above |
"""
# The gates of the API and of pages, as they stand in each route's signature.
_GATES = {
    "any_caller": "a login",
    "caller": "a verified login",
    "fresh_caller": "a fresh login",
    "auditor": "an auditor",
    "admin": "an admin",
    "fresh_admin": "a fresh admin",
    "policy_caller": "a verified login or a job",
    "policy_auditor": "an auditor, or a job that is one",
    "policy_admin": "an admin, or a job that is one",
    "visitor": "a signed-in browser, second factor pending or not",
    "optional_visitor": "anybody",
    "verified_visitor": "a signed-in browser with its second factor",
    "submission": "a form of a signed-in browser, second factor pending or not",
    "verified_submission": "a form of a signed-in browser with its second factor",
    "expected_host": "",
    "offered": "",
}
# Routes that look at their callers themselves.
_OWN_GATES = {
    "/v1/credentials": "a verified login, or a `bkj_` job token",
    "/v1/ci/credentials": "a CI job, by its platform's OIDC token",
    "/v1/container/{role}": "a `bkc_` or `bkj_` token, with or without `Bearer`",
}
_FIRST_LINE_ELSEWHERE = {
    "GET /v1/me": "Who the caller is, and until when.",
    "POST /v1/mfa/verify": "Shows a one-time code, which makes the login verified and fresh.",
    "POST /v1/users/{principal_id}/suspend": "Ends a person's logins and grants at once.",
    "POST /v1/users/{principal_id}/reinstate": "Lets them back in.",
    "GET /v1/roles": "The roles that the caller can have, and how.",
    "GET /v1/access/changes": "Policies that wait for a second admin.",
    "GET /v1/access/changes/{change_id}": "One of them, with what it changes.",
    "GET /v1/users/{principal_id}": "One person.",
    "GET /v1/users/{principal_id}/sessions": "Somebody's live logins.",
    "DELETE /v1/users/{principal_id}/sessions/{session_id}": "End one of them.",
    "GET /v1/me/sessions": "One's own live logins.",
    "DELETE /v1/me/sessions/{session_id}": "End one of them.",
    "POST /v1/credentials": "Temporary AWS credentials for a role.",
    "POST /v1/ci/credentials": "The same, for a CI job in one request.",
    "GET /v1/container/{role}": "The same, as AWS SDKs fetch them from a container endpoint.",
    "GET /oauth/authorize": "The page that asks for consent to a login of the command line.",
    "GET /signout": "Asks.",
    "GET /mfa": "Asks for a code.",
    "GET /mfa/recover": "Asks for a recovery code.",
    "GET /metrics": "[Metrics](metrics.md), where `metrics_port` is not set.",
    "GET /openapi.json": "This, for programs.",
}
_PARTS = (
    ("Credentials", ("/v1/credentials", "/v1/ci/", "/v1/container")),
    ("Oneself", ("/v1/me", "/v1/mfa", "/v1/roles", "/v1/issuances")),
    ("Grants", ("/v1/grants",)),
    ("People", ("/v1/users", "/v1/enrolment-codes")),
    ("The access policy", ("/v1/access",)),
    ("The log", ("/v1/audit",)),
    ("More of the API", ("/v1/",)),
    ("OAuth 2.0", ("/oauth/", "/.well-known/")),
    ("Health", ("/healthz", "/readyz", "/metrics", "/openapi.json")),
    ("Pages", ("/",)),
)


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    endpoint: Any
    gates: tuple[str, ...]
    said: dict[str, Any]  # by OpenAPI

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def render() -> str:
    left = sorted(operations(), key=lambda one: one.path)
    require_same(
        "routes whose first line stands in http_page.py",
        [one.name for one in left if not _docstring(one)],
        _FIRST_LINE_ELSEWHERE,
    )
    parts = []
    for title, prefixes in _PARTS:
        here = [one for start in prefixes for one in left if one.path.startswith(start)]
        left = [one for one in left if one not in here]
        if here:
            parts.append(f"## {title}\n")
            parts.append(table(["Route", "Who", "Takes", "What"], map(_row, here)))
    return page("HTTP API", _INTRODUCTION, *parts)


def operations() -> Iterator[Operation]:
    app = _application()
    paths = app.openapi()["paths"]
    for route in _routes(app):
        path = route.path.replace(":path}", "}")
        for method in sorted((route.methods or set()) - {"HEAD"}):
            dependant = getattr(route, "dependant", None)
            gates = () if dependant is None else dependant.dependencies
            yield Operation(
                method,
                path,
                route.endpoint,
                tuple(gate.call.__name__ for gate in gates),
                paths.get(path, {}).get(method.lower(), {}),
            )


def _application() -> FastAPI:
    # Made with defaults, whatever the environment says; nothing is opened.
    return create_app(Settings.model_construct())


def _routes(app: FastAPI) -> Iterator[Route]:
    for route in app.routes:
        # FastAPI keeps an included router as one route.
        router = getattr(route, "original_router", None)
        for found in [route] if router is None else router.routes:
            if not isinstance(found, Route):
                raise Incomplete(f"{found} is no route")
            yield found


def _row(one: Operation) -> list[str]:
    return [code(one.name), _who(one), _takes(one), _what(one)]


def _who(one: Operation) -> str:
    unknown = set(one.gates) - set(_GATES)
    if unknown:
        raise Incomplete(f"{one.name}: nothing is written of the gates {sorted(unknown)}")
    found = [_GATES[gate] for gate in one.gates if _GATES[gate]]
    return _OWN_GATES.get(one.path) or (found[-1] if found else "anybody")


def _takes(one: Operation) -> str:
    inputs = [
        f"{code(parameter['name'])}{'' if parameter.get('required') else '?'}"
        for parameter in one.said.get("parameters", ())
        if parameter["in"] != "path"
    ]
    for content in one.said.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(content.get("schema", {}))
        required = set(schema.get("required", ()))
        inputs += [
            f"{code(name)}{'' if name in required else '?'}"
            for name in schema.get("properties", {})
        ]
    return ", ".join(inputs)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    components: dict[str, Any] = _application().openapi()["components"]["schemas"]
    found: dict[str, Any] = components[reference.rpartition("/")[2]]
    return found


def _docstring(one: Operation) -> str:
    """Where the route has one that is about what callers get."""
    if one.path in _OWN_GATES:
        return ""
    text = inspect.getdoc(one.endpoint) or ""
    module = getattr(one.endpoint, "__module__", "")
    if text.startswith("Raises ") or not module.startswith("broker."):
        return ""
    return text


def _what(one: Operation) -> str:
    text = _docstring(one) or _FIRST_LINE_ELSEWHERE[one.name]
    return " ".join(text.split("\n\n")[0].split())
