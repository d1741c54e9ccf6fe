"""Common handling of requests: ids, authentication, body size, log line, counters, and a response on any error."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from . import correlation, validation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .settings import Actor

_LOG = logging.getLogger("hostapp.http")
#: polled by machines every few seconds, so they are logged at debug level only
_PROBES = {"/health", "/ready", "/metrics"}
_ERROR = 500


class RefusedError(Exception):
    """The request is rejected, with a status and a JSON body."""

    def __init__(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(status))
        self.status = status
        self.body = body
        self.headers = headers


class Callers:
    """Maps bearer tokens to actors. It stores digests only, and lookup time does not depend on the token."""

    def __init__(self, tokens: Mapping[str, Actor]) -> None:
        self._actors = [(_digest(token), actor) for token, actor in tokens.items()]

    def require(self, request: Request) -> Actor:
        """Return the actor of a request.

        :raises RefusedError: 401, when the request has no valid token.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            sent = _digest(token.strip())
            for digest, actor in self._actors:
                if hmac.compare_digest(digest, sent):
                    return actor
        raise RefusedError(
            401, {"error": "missing or invalid bearer token"}, {"www-authenticate": 'Bearer realm="hostapp"'}
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", errors="surrogateescape")).digest()


async def document_of(request: Request) -> Any:
    """Read the JSON body of a request, up to a size limit.

    :raises RefusedError: 413 when it is too large, 400 when it is not JSON.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > validation.LARGEST_BODY:
            raise RefusedError(
                413, {"error": f"the body is larger than {validation.LARGEST_BODY} bytes"}, {"connection": "close"}
            )
    try:
        return validation.decoded(bytes(body))
    except ValueError:
        raise RefusedError(400, {"error": "invalid JSON in the body"}) from None


class RequestCounters(Protocol):
    """The counters of an application, as far as requests are counted."""

    def count_request(self, method: str, route: str, status: int) -> None: ...


class Observed:
    """ASGI middleware: reads the ids of a request, returns them in the response, and logs and counts the request."""

    def __init__(self, app: ASGIApp, counters: RequestCounters, routes: Mapping[Any, str]) -> None:
        """Wrap an application.

        :param routes: endpoint to path template. The path itself may hold personal data, so it is never logged.
        """
        self._app = app
        self._counters = counters
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        headers = Headers(scope=scope)
        ids = {
            "x-correlation-id": correlation.given_or_fresh(headers.get("x-correlation-id")),
            "x-request-id": correlation.given_or_fresh(headers.get("x-request-id")),
        }
        correlation.correlation_id.set(ids["x-correlation-id"])
        correlation.request_id.set(ids["x-request-id"])

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message).update(ids)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:  # noqa: BLE001 -- the client gets a response with its ids after any error
            _LOG.exception("the request failed")
            if not status:
                await JSONResponse({"error": "internal error"}, _ERROR)(scope, receive, answer)
        finally:
            route = self._routes.get(scope.get("endpoint"), "unmatched")
            # clients may send any word as the method; unknown ones must not become labels
            method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST"} else "other"
            self._counters.count_request(method, route, status)
            quiet = route in _PROBES and status < _ERROR
            fields = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round((time.monotonic() - began) * 1000, 1),
            }
            _LOG.log(logging.DEBUG if quiet or route in _PROBES else logging.INFO, "request", extra={"fields": fields})
