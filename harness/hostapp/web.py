"""The HTTP routes of the application."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import correlation, counters, validation
from .audited import Action, NotAuditedError, attest, audited_transaction, is_unreachable
from .error_responses import error_responses
from .jobs import QUEUE, TitleChange
from .requests import Callers, Observed, RefusedError, document_of

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from starlette.requests import Request

    from .jobs import Tools
    from .readiness import ReadinessProbe
    from .runner import Runner
    from .settings import Actor

ACTION = "post_created_via_api"

_LOG = logging.getLogger("hostapp.http")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_POST_ID = re.compile(r"[0-9]{1,18}")
_NO_POST = {"error": "post not found"}

_CHANGES = """
SELECT c.id::text, c.op, c.table_schema || '.' || c.table_name, c.table_pk, c.changed_fields, c.data_after
FROM public.audit_changes c WHERE c.transaction_id = %s
ORDER BY c.captured_at, c.id
"""


class Host:
    """The endpoints of the application. All require a valid token, except the three for monitoring."""

    def __init__(self, tools: Tools, runner: Runner, probe: ReadinessProbe) -> None:
        self._tools = tools
        self._runner = runner
        self._probe = probe
        self._callers = Callers(tools.settings.tokens)

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/api/posts", self.create_post, methods=["POST"]),
            Route("/api/posts/{id}/title", self.change_title, methods=["POST"]),
            Route("/api/jobs/pause", self.pause_jobs, methods=["POST"]),
            Route("/api/jobs/resume", self.resume_jobs, methods=["POST"]),
            Route("/api/audit_transactions/{id}/changes", self.list_changes, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        templates = {route.endpoint: route.path for route in routes}
        return Starlette(
            routes=routes,
            middleware=[Middleware(Observed, counters=self._tools.counters, routes=templates)],
            exception_handlers={**error_responses(_LOG, is_unreachable), NotAuditedError: _not_audited},
        )

    async def create_post(self, request: Request) -> Response:
        """Create a post, audited: 201, or 422 with the errors by field."""
        actor = self._callers.require(request)
        document = await document_of(request)
        try:
            post = validation.post_from(document)
            created = await self._created(actor, post)
        except validation.InvalidError as error:
            return JSONResponse({"errors": error.errors}, 422)
        self._tools.counters.count_write("http")
        return JSONResponse(created, 201)

    async def _created(self, actor: Actor, post: validation.Post) -> dict[str, Any]:
        action = Action(
            name=ACTION, correlation_id=correlation.correlation_id.get(), request_id=correlation.request_id.get()
        )
        try:
            async with self._audited(actor) as connection:
                inserted = await connection.execute(
                    "INSERT INTO public.posts (title, slug) VALUES (%s, %s) RETURNING id, inserted_at",
                    [post.title, post.slug],
                )
                row = await inserted.fetchone()
                if row is None:
                    raise NotAuditedError("the INSERT returned no row")
                record = await attest(connection, actor, action, op="insert", post_id=row[0])
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name != "posts_slug_key":
                raise
            raise validation.InvalidError({"slug": ["has already been taken"]}) from None
        fields = {"post_id": row[0], "audit_transaction_id": record}
        _LOG.info("post created", extra={"fields": fields})
        return {
            "id": row[0],
            "title": post.title,
            "slug": post.slug,
            "inserted_at": row[1].isoformat(),
            "audit_transaction_id": record,
        }

    def _audited(self, actor: Actor) -> Any:
        return audited_transaction(
            self._tools.pool, actor, statement_timeout_s=self._tools.settings.statement_timeout_s
        )

    async def change_title(self, request: Request) -> Response:
        """Enqueue a title change, in the transaction that checks the post: 202, 404 or 422."""
        actor = self._callers.require(request)
        document = await document_of(request)
        try:
            title = validation.title_from(document)
        except validation.InvalidError as error:
            return JSONResponse({"errors": error.errors}, 422)
        text = request.path_params["id"]
        if not _POST_ID.fullmatch(text):
            raise RefusedError(404, _NO_POST)
        change = TitleChange(
            actor=actor, correlation_id=correlation.correlation_id.get(), post_id=int(text), title=title
        )
        async with self._tools.pool.connection() as connection, connection.transaction():
            await self._require_post(connection, change.post_id)
            job = await self._runner.enqueue(change, connection)
        _LOG.info("job enqueued", extra={"fields": {"job_id": job, "post_id": change.post_id}})
        return JSONResponse({"job_id": job, "correlation_id": change.correlation_id}, 202)

    async def pause_jobs(self, request: Request) -> Response:
        """Pause the queue until it is resumed, whoever restarts meanwhile: 200."""
        actor = self._callers.require(request)
        await self._runner.pause(actor)
        _LOG.info("jobs paused")
        return JSONResponse({"queue": QUEUE, "paused": True})

    async def resume_jobs(self, request: Request) -> Response:
        """Resume the queue: 200."""
        self._callers.require(request)
        await self._runner.resume()
        _LOG.info("jobs resumed")
        return JSONResponse({"queue": QUEUE, "paused": False})

    async def _require_post(self, connection: AsyncConnection[tuple[Any, ...]], post_id: int) -> None:
        # locks the row, so that the post is not deleted before the commit
        found = await connection.execute("SELECT FROM public.posts WHERE id = %s FOR SHARE", [post_id])
        if not found.rowcount:
            raise RefusedError(404, _NO_POST)

    async def list_changes(self, request: Request) -> Response:
        """List the changes of an audit transaction, oldest first; none for an unknown one."""
        self._callers.require(request)
        record = request.path_params["id"]
        if not _UUID.fullmatch(record):
            raise RefusedError(400, {"error": "invalid audit transaction id"})
        async with self._tools.pool.connection() as connection:
            rows = await (await connection.execute(_CHANGES, [record])).fetchall()
        changes = []
        for change, op, table, key, changed_fields, data_after in rows:
            entry = {
                "audit_change_id": change,
                "op": op,
                "table": table,
                "key": key,
                "changed_fields": changed_fields,
            }
            changes.append(entry if data_after is None else entry | {"data_after": data_after})
        return JSONResponse({"audit_transaction_id": record.lower(), "changes": changes})

    async def health(self, _request: Request) -> Response:
        """Report that the process is serving: 200."""
        return JSONResponse({"status": "ok", "version": self._tools.settings.version})

    async def ready(self, _request: Request) -> Response:
        """Report whether the application is ready: 200 or 503."""
        state = await self._probe.look()
        return JSONResponse(msgspec.to_builtins(state), 200 if state.ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Return the counters in Prometheus' text format."""
        text = self._tools.counters.exposition(self._tools.settings.version, self._tools.pool.get_stats())
        return Response(text, media_type=counters.CONTENT_TYPE)


async def _not_audited(_request: Request, error: Exception) -> Response:
    _LOG.error("the write was rolled back: %s", error)
    return JSONResponse({"error": "the write was rolled back, because it could not be audited"}, 500)
