"""The responses to errors that a route raises: each has a status, and nothing that failed is answered with 2xx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .log_lines import described
from .requests import RefusedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response


def error_responses(log: logging.Logger, is_unavailable: Callable[[psycopg.Error], bool]) -> dict[Any, Any]:
    """Return the handlers of an application, by the class of the error.

    :param log: gets a line for each error of the database.
    :param is_unavailable: returns whether the database could not be asked; else it rejected a statement.
    """

    async def database_error(_request: Request, error: Exception) -> Response:
        log.error("database error: %s", described(error))
        if isinstance(error, psycopg.Error) and is_unavailable(error):
            return JSONResponse({"error": "the database is unavailable"}, 503, headers={"retry-after": "1"})
        return JSONResponse({"error": "the database rejected the request; nothing was written"}, 500)

    return {HTTPException: _http_error, RefusedError: _refused, psycopg.Error: database_error}


async def _http_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return JSONResponse({"error": str(getattr(error, "detail", ""))}, status, headers=getattr(error, "headers", None))


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):
        raise error
    return JSONResponse(error.body, error.status, headers=error.headers)
