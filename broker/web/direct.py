"""The hot routes, served without FastAPI's way to them.

Owns: matching them, and turning a refusal into its answer as FastAPI's exception
handlers do. They stay in the route table as well, which answers other methods
and documents them. Plain ASGI, innermost: edge, headers and body limits hold
here as everywhere. What is left out (exception middleware, exit stack, router) is 3 % of
an issuance's CPU (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.errors import BrokerError
from broker.web.problems import on_http_exception, respond

Handler = Callable[[Request], Awaitable[Response]]


class Direct:
    """`posts`: handlers of POST by their exact path."""

    def __init__(self, app: ASGIApp, *, posts: Mapping[str, Handler]) -> None:
        self._app = app
        self._posts = posts
        self._routes = {path: Route(path, handler) for path, handler in posts.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None
        if scope["type"] == "http" and scope["method"] == "POST":
            handler = self._posts.get(scope["path"])
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._routes[scope["path"]]
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except BrokerError as refusal:
            response = respond(request, refusal)
        except HTTPException as refusal:
            response = await on_http_exception(request, refusal)
        await response(scope, receive, send)
