"""Pages: Jinja templates with autoescape, one style sheet, one icon, no script.

Owns: the templates' environment, static files under hashed names, and each
page's Content-Security-Policy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import segno
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_MEDIA_TYPES = {"css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """Paths of the static files. A name holds its content's hash, so it may be cached forever."""

    css: str
    icon: str


@dataclass(frozen=True, slots=True)
class Pages:
    """Everything needed to answer with a page, read once at start-up."""

    environment: Environment
    files: dict[str, StaticFile]

    @classmethod
    def load(cls) -> Pages:
        files: dict[str, StaticFile] = {}
        environment = Environment(
            loader=PackageLoader("broker.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals["assets"] = Assets(
            css=_add(files, "broker", "css"), icon=_add(files, "favicon", "svg")
        )
        return cls(environment, files)


def _add(files: dict[str, StaticFile], stem: str, suffix: str) -> str:
    body = (resources.files("broker.web") / "static" / f"{stem}.{suffix}").read_bytes()
    name = f"{stem}.{hashlib.sha256(body).hexdigest()[:16]}.{suffix}"
    files[name] = StaticFile(body, _MEDIA_TYPES[suffix])
    return f"/static/{name}"


def pages_of(request: Request) -> Pages:
    pages = request.app.state.pages
    if not isinstance(pages, Pages):
        raise TypeError("the application was not composed")
    return pages


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    form_target: str | None = None,
    **values: object,
) -> Response:
    """Render `template`. `form_target` is a source that a form of the page may redirect to:
    browsers hold the redirect after a form to form-action as well.
    """
    html = pages_of(request).environment.get_template(template).render(values)
    response = HTMLResponse(html, status_code=status)
    targets = ["'self'"] if form_target is None else ["'self'", form_target]
    response.headers["content-security-policy"] = _policy(targets)
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms (Fetch standard,
    # "append a request Origin header"), which is just what the CSRF check must refuse.
    response.headers["referrer-policy"] = "same-origin"
    return response


def _policy(form_action: Sequence[str]) -> str:
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        f"form-action {' '.join(form_action)}; frame-ancestors 'none'; base-uri 'none'"
    )


def qr_code(text: str) -> Markup:
    """The QR code as inline SVG; no style attribute, which the CSP would refuse."""
    svg = segno.make(text, error="m", micro=False).svg_inline(border=0, omitsize=True)
    labelled = svg.replace("<svg ", '<svg role="img" aria-label="QR code" ', 1)
    # segno's own output: digits and path commands, none of the text.
    return Markup(labelled)  # noqa: S704 - as said above


_STATIC_NAME = re.compile(r"[a-z]+\.[0-9a-f]{16}\.(?:css|svg)", re.ASCII)


async def static_file(request: Request) -> Response:
    """`GET /static/{name}`: a look-up in a table, never in a directory."""
    name = request.path_params["name"]
    found = pages_of(request).files.get(name) if _STATIC_NAME.fullmatch(name) else None
    if found is None:
        raise HTTPException(404)
    return Response(
        found.body,
        media_type=found.media_type,
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )
