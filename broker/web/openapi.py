"""What /openapi.json says: FastAPI's document, with what it can't see of the routes.

Owns: the raw routes' operations and forms, who needs a token, and every status that an
operation may answer with. Does not own: the answers (`problems`).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from broker.web import audit_proof, ci, container, credentials

_Operation = dict[str, Any]

_FORMS: dict[str, dict[str, str]] = {
    "/oauth/device_authorization": {
        "client_id": "`broker-cli`",
        "host_name": "what the machine calls itself, shown to whoever decides",
    },
    "/oauth/token": {
        "grant_type": "authorization_code, refresh_token, device_code (RFC 8628) or token-exchange"
        " (RFC 8693)",
        "client_id": "`broker-cli`",
        "code": "the authorization code",
        "redirect_uri": "as at /oauth/authorize",
        "code_verifier": "PKCE's (RFC 7636)",
        "refresh_token": "bkr_...",
        "device_code": "of /oauth/device_authorization",
        "subject_token": "a CI job's OIDC token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt or ...:id_token",
        "scope": "not used: refused where it is given",
    },
    "/oauth/revoke": {
        "token": "what is to end",
        "client_id": "`broker-cli`",
    },
}
_NO_SUCH = {404: "What the body names is not there"}
_ISSUING = {502: "AWS refused, or could not be reached"}
# Beside what `_statuses` finds by itself.
_FURTHER: dict[tuple[str, str], dict[int, str]] = {
    ("put", "/v1/access"): {
        202: "It adds rights to its author, and waits for another admin",
        412: "If-Match is not the version in force",
    },
    ("post", "/v1/access/changes/{change_id}/approve"): {
        412: "Another version was put in force meanwhile"
    },
    ("get", "/v1/access"): {404: "No policy was applied yet"},
    ("get", "/v1/audit/checkpoint"): {404: "Nothing was signed yet"},
    ("get", "/v1/audit/proof/inclusion"): {404: "No such record or size"},
    ("get", "/v1/audit/proof/consistency"): {404: "No such size"},
    ("get", "/v1/roles/{name}/explain"): {409: "Several principals have that address"},
    ("post", credentials.PATH): {404: "No entry offers the caller such a role", **_ISSUING},
    ("post", ci.PATH): {404: "No entry offers the job such a role", **_ISSUING},
    ("get", container.PATH): _ISSUING,
    ("post", "/v1/enrolment-codes"): _NO_SUCH,
    ("post", "/v1/grants"): _NO_SUCH,
}
_MEANINGS = {
    400: "Not a request that HTTP allows",
    401: "No token, or none that is good here",
    403: "Refused; `code` says why",
    404: "Not there, or not the caller's to know of",
    409: "Not possible as things stand",
    413: "The body is too large",
    422: "The request is not one; `detail` says what is wrong",
    429: "Too many, or locked; `retry_after` says for how long",
    503: "What would have to be recorded can't be; nothing was done",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["paths"][credentials.PATH] = {"post": credentials.OPERATION}
        schema["paths"][ci.PATH] = {"post": ci.CI_OPERATION}
        schema["paths"][container.PATH] = {"get": container.OPERATION}
        _describe(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _describe(schema: dict[str, Any]) -> None:
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    # The broker answers 422 as a problem, not in FastAPI's shape.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas |= {
        "Problem": _PROBLEM,
        "OAuthError": _OAUTH_ERROR,
        "ContainerError": _CONTAINER_ERROR,
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if path in _FORMS:
                operation["requestBody"] = _form(_FORMS[path])
            if path.startswith("/v1/") and path not in audit_proof.PUBLIC:
                operation["security"] = [{"bearer": []}]
            responses = operation["responses"]
            for status, meaning in sorted(_statuses(method, path, operation).items()):
                responses[str(status)] = _answer(path, status, meaning)


def _statuses(method: str, path: str, operation: _Operation) -> dict[int, str]:
    """Every status but those of success that FastAPI knows."""
    given = {400, 429, 503}
    if path.startswith("/v1/"):
        given |= {422}
    if path.startswith("/oauth/"):
        given |= {401}
    if "security" in operation:
        given |= {401, 403}
    if "{" in path:
        given |= {404}
    if "requestBody" in operation:
        given |= {413}
    if method in ("post", "put", "delete") and path.startswith("/v1/"):
        given |= {409}
    return {status: _MEANINGS[status] for status in given} | _FURTHER.get((method, path), {})


def _answer(path: str, status: int, meaning: str) -> dict[str, Any]:
    if status < 400:
        return {"description": meaning}
    content = {}
    if path.startswith("/oauth/"):
        content["application/json"] = _schema("OAuthError")
    elif path == container.PATH:
        content["application/json"] = _schema("ContainerError")
    if path != container.PATH or status == 404:  # a role that no role can be called is no route
        content["application/problem+json"] = _schema("Problem")
    return {"description": meaning, "content": content}


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _form(fields: dict[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "properties": properties}
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


_PROBLEM: dict[str, object] = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "retry_after": {"type": "integer"},
        "step_up_url": {"type": "string"},
    },
}
_OAUTH_ERROR: dict[str, object] = {
    "type": "object",
    "description": "RFC 6749, section 5.2",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
_CONTAINER_ERROR: dict[str, object] = {
    "type": "object",
    "description": "As the AWS SDKs' container credential provider reads it",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}
