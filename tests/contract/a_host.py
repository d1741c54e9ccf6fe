"""A host application for the tests, which does what it is told to: right, or wrong in one way at a time."""

from __future__ import annotations

import contextlib
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.database import Endpoint

TOKENS = {"token-of-ada-1234": "ada", "token-of-bob-1234": "bob"}
SECRET_OF_ANOTHER = "the-diary-of-somebody-else"

SCHEMA = """
CREATE TABLE public.posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, slug text UNIQUE, title text);
CREATE TYPE public.oban_job_state AS ENUM ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded',
    'cancelled');
CREATE TABLE public.oban_jobs (id bigserial PRIMARY KEY, state public.oban_job_state NOT NULL DEFAULT 'available',
    queue text NOT NULL DEFAULT 'default', worker text NOT NULL, args jsonb NOT NULL DEFAULT '{}',
    meta jsonb NOT NULL DEFAULT '{}', attempt int NOT NULL DEFAULT 0, max_attempts int NOT NULL DEFAULT 20,
    scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()), cancelled_at timestamp);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.posts, public.oban_jobs TO harness_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO harness_app;
"""


class FailedError(Exception):
    """What the host was told to do once it had written."""


def _fail() -> None:
    raise FailedError


class Host:
    """Serves `POST /posts`, and performs jobs, on a database through the chain."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        #: what it does wrong: "" for nothing
        self.wrong = ""
        self._ended = Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                host.answer(self)

            def do_DELETE(self) -> None:
                actor = TOKENS.get((self.headers.get("authorization") or "").removeprefix("Bearer "))
                with host.connect() as client, client.transaction():
                    if actor:
                        host._declare(client, actor)
                    client.execute("DELETE FROM posts WHERE slug = %s", [self.path.rpartition("/")[2]])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_told: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._threads = [Thread(target=self._server.serve_forever, daemon=True), Thread(target=self._work, daemon=True)]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def connect(self) -> psycopg.Connection[Any]:
        at = self._endpoint
        return psycopg.connect(
            host=at.host,
            port=at.port,
            user=at.user,
            password=at.password,
            dbname=at.dbname,
            autocommit=True,
            prepare_threshold=None,
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        actor = TOKENS.get((request.headers.get("authorization") or "").removeprefix("Bearer "))
        with contextlib.suppress(OSError):
            match self.wrong:
                case "error":
                    self._send(request, 500, {"error": SECRET_OF_ANOTHER})
                case "redirect":
                    self._send(request, 302, {}, {"location": f"https://{SECRET_OF_ANOTHER}.example/login"})
                case "stream":
                    self._stream(request)
                case "big":
                    self._send(request, 201, {"id": 1, "slug": "x" * 3_000_000})
                case _ if actor is None:
                    self._send(request, 401, {"error": "who are you?"})
                case "answers first":
                    told = json.loads(body)
                    self._send(request, 201, {"id": 1, "slug": told["slug"]})
                    self._ended.wait(0.3)
                    self._write(request, told, actor)
                case "once more, later":
                    told = json.loads(body)
                    self._create(request, told, actor)
                    self._ended.wait(0.3)
                    self._write(request, told, actor, "UPDATE posts SET title = 'a' WHERE slug = %s RETURNING id")
                case _:
                    self._create(request, json.loads(body), actor)

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(201)
        request.end_headers()
        while not self._ended.wait(0.05):
            request.wfile.write(b" ")

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: Any, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        text = json.dumps(data).encode()
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def _create(self, request: BaseHTTPRequestHandler, told: dict[str, Any], actor: str) -> None:
        try:
            identity = self._write(request, told, actor)
        except (psycopg.errors.UniqueViolation, FailedError):
            busy = self.wrong == "busy" and "then" not in told
            self._send(request, 429 if busy else 422, {"errors": {"slug": ["is taken"]}})
            return
        slug = SECRET_OF_ANOTHER if self.wrong == "another tenant" else told["slug"]
        self._send(request, 201, {"id": identity, "slug": slug})

    def _write(
        self,
        request: BaseHTTPRequestHandler,
        told: dict[str, Any],
        actor: str,
        statement: str = "INSERT INTO posts (slug, title) VALUES (%s, 'a') RETURNING id",
    ) -> int:
        named = "somebody-else" if self.wrong == "another actor" else actor
        with self.connect() as client:
            with client.transaction():
                self._declare(client, named)
                [(identity,)] = client.execute(statement.encode(), [told["slug"]]).fetchall()
                client.execute(
                    "SELECT threadline_record_action('post_created', correlation_id => %s)",
                    [request.headers.get("x-correlation-id") or "none"],
                )
                if self.wrong == "for the session":
                    client.execute(
                        "SELECT set_config('threadline.actor_ref', %s, false)",
                        [json.dumps({"type": "user", "id": named})],
                    )
                if self.wrong == "twice":
                    client.execute("UPDATE posts SET title = 'b' WHERE slug = 'taken'")
                if told.get("then") == "fail" and self.wrong != "half of it":
                    _fail()
            if self.wrong == "two transactions":
                with client.transaction():
                    self._declare(client, named)
                    client.execute("UPDATE posts SET title = 'c' WHERE id = %s", [identity])
            if told.get("then") == "fail":  # too late: it is committed
                _fail()
        return int(identity)

    def _declare(self, client: psycopg.Connection[Any], actor: str) -> None:
        client.execute(
            "SELECT set_config('threadline.actor_ref', %s, true)", [json.dumps({"type": "user", "id": actor})]
        )

    # --- jobs ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ended.wait(0.03):
            with self.connect() as client:
                while not client.closed and not self._ended.wait(0.03):
                    if self.wrong == "never":
                        continue
                    with contextlib.suppress(psycopg.Error):
                        self._perform(client)

    def _perform(self, client: psycopg.Connection[Any]) -> None:
        taken = client.execute(
            "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1 WHERE id = (SELECT id FROM oban_jobs "
            "WHERE state IN ('available', 'retryable') ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, args"
        ).fetchone()
        if taken is None:
            return
        identity, args = taken
        state = "completed"
        if self.wrong == "fails for good":
            state = "discarded"
        else:
            for _ in range(2 if self.wrong == "runs twice" else 1):
                with client.transaction():
                    self._declare(client, args["actor_ref"]["id"])
                    client.execute("UPDATE posts SET title = %s WHERE id = %s", [args["title"], args["post_id"]])
                    client.execute(
                        "SELECT threadline_record_action('retitled', correlation_id => %s, job_id => %s)",
                        [args["correlation_id"], str(identity)],
                    )
        client.execute("UPDATE oban_jobs SET state = %s::oban_job_state WHERE id = %s", [state, identity])


@contextlib.contextmanager
def somebody_else_writes(host: Host) -> Iterator[None]:
    """Let others write to the same table all the while."""
    ended = Event()

    def write() -> None:
        with host.connect() as client:
            while not ended.wait(0.005):
                with client.transaction():
                    host._declare(client, "mallory")
                    client.execute("INSERT INTO posts (slug) VALUES (%s)", [f"of-another-{time.monotonic_ns()}"])

    thread = Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
