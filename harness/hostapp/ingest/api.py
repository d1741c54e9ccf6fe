"""The HTTP routes of the pipeline."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..correlation import correlation_id
from ..error_responses import error_responses
from ..log_lines import described
from ..requests import Callers, Observed, RefusedError, document_of
from .audit import Action
from .metrics import CONTENT_TYPE, STATUSES_QUERY, Metrics
from .validation import InvalidError, upload_request_from
from .work_queue import is_transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool
    from starlette.requests import Request

    from .settings import Settings
    from .storage import Storage

_LOG = logging.getLogger("ingest.api")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: for the query of /ready
_READY_S = 1.0

_INSERT = """
INSERT INTO ingest.uploads (id, project, filename, content_type, bucket, object_key, uploader, correlation_id,
                            url_expires_at)
VALUES (%(id)s, %(project)s, %(filename)s, %(content_type)s, %(bucket)s, %(key)s, %(uploader)s, %(correlation)s,
        now() + make_interval(secs => %(valid_s)s))
"""
_ENQUEUE = "INSERT INTO ingest.work (upload_id) VALUES (%(id)s)"
_STATE = """
SELECT status, object_key, project, filename, content_type, checksum, size_bytes, attempts, error, indexed_at
FROM ingest.upload_states WHERE id = %(id)s AND uploader = %(uploader)s
"""
_LAST_INDEXED = "SELECT max(indexed_at) FROM ingest.uploads WHERE status = 'indexed'"


class Api:
    """The endpoints. Uploads require a known token; those for monitoring do not."""

    def __init__(
        self, settings: Settings, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], storage: Storage
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._storage = storage
        self._callers = Callers(settings.actors)
        self._metrics = Metrics()
        self._looking: asyncio.Task[tuple[bool, str | None]] | None = None

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/uploads", self.create_upload, methods=["POST"]),
            Route("/uploads/{id}", self.show_upload, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        templates = {route.endpoint: route.path for route in routes}
        return Starlette(
            routes=routes,
            middleware=[Middleware(Observed, counters=self._metrics, routes=templates)],
            exception_handlers={**error_responses(_LOG, is_transient), InvalidError: _invalid},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _application: Starlette) -> AsyncIterator[None]:
        await self._pool.open(wait=False)
        try:
            yield
        finally:
            await self._pool.close(timeout=0.5)

    async def create_upload(self, request: Request) -> Response:
        """Create an upload, and return the address for its file: 201, or 400 with the errors by field."""
        actor = self._callers.require(request)
        wanted = upload_request_from(await document_of(request))
        upload = str(uuid.uuid4())
        key = f"{self._settings.s3_prefix}{wanted.project}/{upload}/{wanted.filename}"
        valid_s = self._settings.url_valid_s
        # before the row: its address expires first
        url = self._storage.presigned_put(key, content_type=wanted.content_type, valid_s=valid_s)
        correlation = correlation_id.get() or upload
        values = {
            "id": upload,
            "project": wanted.project,
            "filename": wanted.filename,
            "content_type": wanted.content_type,
            "bucket": self._settings.s3_bucket,
            "key": key,
            "uploader": f"{actor.type}:{actor.id}",
            "correlation": correlation,
            "valid_s": valid_s,
        }
        action = Action(name="upload_created", actor=actor, correlation=correlation, job=upload)
        async with self._pool.connection() as connection, action.async_transaction(connection):
            await connection.execute(_INSERT, values)
            await connection.execute(_ENQUEUE, values)
        _LOG.info("upload created", extra={"fields": {"upload_id": upload, "key": key}})
        headers = {"Content-Type": wanted.content_type}
        return JSONResponse({"uploadId": upload, "url": url, "objectKey": key, "headers": headers}, 201)

    async def show_upload(self, request: Request) -> Response:
        """Return the state of an upload to its uploader: 200 or 404. The extracted text is not part of it."""
        actor = self._callers.require(request)
        upload = request.path_params["id"].lower()
        if not _UUID.fullmatch(upload):
            raise RefusedError(404, {"error": "upload not found"})
        values = {"id": upload, "uploader": f"{actor.type}:{actor.id}"}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_STATE, values)).fetchone()
        if row is None:
            raise RefusedError(404, {"error": "upload not found"})
        status, key, project, filename, content_type, checksum, size, attempts, error, indexed_at = row
        return JSONResponse(
            {
                "uploadId": upload,
                "status": status,
                "objectKey": key,
                "projectId": project,
                "filename": filename,
                "contentType": content_type,
                "checksum": checksum,
                "size": size,
                "attempts": attempts,
                "error": error,
                "indexedAt": indexed_at.isoformat() if indexed_at else None,
            }
        )

    async def health(self, _request: Request) -> Response:
        """Report that the process is serving: 200."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """Report whether the database answers, and when a file was indexed last: 200 or 503."""
        # a query that takes longer is not cancelled, because cancelling waits for the database, too
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="readiness")
        done, _ = await asyncio.wait({self._looking}, timeout=_READY_S)
        answers, last_indexed = self._looking.result() if done else (False, None)
        answer = {"ready": answers, "database": answers, "lastIndexedAt": last_indexed}
        return JSONResponse(answer, 200 if answers else 503)

    async def _look(self) -> tuple[bool, str | None]:
        """Return whether the database answers, and when a file was indexed last."""
        try:
            async with self._pool.connection() as connection:
                row = await (await connection.execute(_LAST_INDEXED)).fetchone()
        except (psycopg.Error, OSError) as error:
            _LOG.warning("the database does not answer: %s", described(error))
            return False, None
        return True, row[0].isoformat() if row and row[0] else None

    async def metrics(self, _request: Request) -> Response:
        """Return the metrics in Prometheus' text format; 503 without the database, which has the counts of uploads."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(STATUSES_QUERY)).fetchall()
        return Response(self._metrics.exposition(dict(rows)), media_type=CONTENT_TYPE)


async def _invalid(_request: Request, error: Exception) -> Response:
    return JSONResponse({"errors": getattr(error, "errors", {})}, 400)
