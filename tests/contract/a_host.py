"""A host application for tests. It behaves correctly, or has one fault at a time."""

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
#: stands for personal data in a response; evidence must never hold it
PERSONAL = "the-diary-of-somebody-else"

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


class RequestedFailureError(Exception):
    """The request asked the host to fail after its write."""


def _fail() -> None:
    raise RequestedFailureError


class Host:
    """Serves `POST /posts` and `DELETE /posts/SLUG`, and runs jobs, on a database through the chain."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        #: the current fault; "" without one
        self.fault = ""
        self._stopped = Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                host.answer(self)

            def do_DELETE(self) -> None:
                actor = TOKENS.get((self.headers.get("authorization") or "").removeprefix("Bearer "))
                with host.connect() as client, client.transaction():
                    if actor:
                        host._set_actor(client, actor)
                    client.execute("DELETE FROM posts WHERE slug = %s", [self.path.rpartition("/")[2]])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._threads = [Thread(target=self._server.serve_forever, daemon=True), Thread(target=self._work, daemon=True)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def connect(self) -> psycopg.Connection[Any]:
        endpoint = self._endpoint
        return psycopg.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            dbname=endpoint.dbname,
            autocommit=True,
            prepare_threshold=None,
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        actor = TOKENS.get((request.headers.get("authorization") or "").removeprefix("Bearer "))
        with contextlib.suppress(OSError):
            match self.fault:
                case "error":
                    self._send(request, 500, {"error": PERSONAL})
                case "redirect":
                    self._send(request, 302, {}, {"location": f"https://{PERSONAL}.example/login"})
                case "stream":
                    self._stream(request)
                case "big":
                    self._send(request, 201, {"id": 1, "slug": "x" * 3_000_000})
                case _ if actor is None:
                    self._send(request, 401, {"error": "unknown token"})
                case "answers first":
                    post = json.loads(body)
                    self._send(request, 201, {"id": 1, "slug": post["slug"]})
                    self._stopped.wait(0.8)  # longer than a busy machine needs for the first look
                    self._write(request, post, actor)
                case "once more, later":
                    post = json.loads(body)
                    self._create(request, post, actor)
                    self._stopped.wait(0.3)
                    self._write(request, post, actor, "UPDATE posts SET title = 'a' WHERE slug = %s RETURNING id")
                case _:
                    self._create(request, json.loads(body), actor)

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(201)
        request.end_headers()
        while not self._stopped.wait(0.05):
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

    def _create(self, request: BaseHTTPRequestHandler, post: dict[str, Any], actor: str) -> None:
        try:
            identity = self._write(request, post, actor)
        except (psycopg.errors.UniqueViolation, RequestedFailureError):
            busy = self.fault == "busy" and "then" not in post
            self._send(request, 429 if busy else 422, {"errors": {"slug": ["is taken"]}})
            return
        slug = PERSONAL if self.fault == "another tenant" else post["slug"]
        self._send(request, 201, {"id": identity, "slug": slug})

    def _write(
        self,
        request: BaseHTTPRequestHandler,
        post: dict[str, Any],
        actor: str,
        statement: str = "INSERT INTO posts (slug, title) VALUES (%s, 'a') RETURNING id",
    ) -> int:
        named = "somebody-else" if self.fault == "another actor" else actor
        with self.connect() as client:
            with client.transaction():
                self._set_actor(client, named)
                [(identity,)] = client.execute(statement.encode(), [post["slug"]]).fetchall()
                client.execute(
                    "SELECT threadline_record_action('post_created', correlation_id => %s)",
                    [request.headers.get("x-correlation-id") or "none"],
                )
                if self.fault == "for the session":
                    client.execute(
                        "SELECT set_config('threadline.actor_ref', %s, false)",
                        [json.dumps({"type": "user", "id": named})],
                    )
                if self.fault == "twice":
                    client.execute("UPDATE posts SET title = 'b' WHERE slug = 'taken'")
                if post.get("then") == "fail" and self.fault != "half of it":
                    _fail()
            if self.fault == "two transactions":
                with client.transaction():
                    self._set_actor(client, named)
                    client.execute("UPDATE posts SET title = 'c' WHERE id = %s", [identity])
            if post.get("then") == "fail":  # too late: the write is committed
                _fail()
        return int(identity)

    def _set_actor(self, client: psycopg.Connection[Any], actor: str) -> None:
        client.execute(
            "SELECT set_config('threadline.actor_ref', %s, true)", [json.dumps({"type": "user", "id": actor})]
        )

    # --- jobs ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopped.wait(0.03):
            with self.connect() as client:
                while not client.closed and not self._stopped.wait(0.03):
                    if self.fault == "never":
                        continue
                    with contextlib.suppress(psycopg.Error):
                        self._run_next_job(client)

    def _run_next_job(self, client: psycopg.Connection[Any]) -> None:
        job = client.execute(
            "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1 WHERE id = (SELECT id FROM oban_jobs "
            "WHERE state IN ('available', 'retryable') ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, args"
        ).fetchone()
        if job is None:
            return
        identity, args = job
        state = "completed"
        if self.fault == "discards":
            state = "discarded"
        else:
            for _ in range(2 if self.fault == "runs twice" else 1):
                with client.transaction():
                    self._set_actor(client, args["actor_ref"]["id"])
                    client.execute("UPDATE posts SET title = %s WHERE id = %s", [args["title"], args["post_id"]])
                    client.execute(
                        "SELECT threadline_record_action('retitled', correlation_id => %s, job_id => %s)",
                        [args["correlation_id"], str(identity)],
                    )
        client.execute("UPDATE oban_jobs SET state = %s::oban_job_state WHERE id = %s", [state, identity])


@contextlib.contextmanager
def concurrent_writes(host: Host) -> Iterator[None]:
    """Write rows of another user to the same table while the block runs."""
    stopped = Event()

    def write() -> None:
        with host.connect() as client:
            while not stopped.wait(0.02):
                with client.transaction():
                    host._set_actor(client, "mallory")
                    client.execute("INSERT INTO posts (slug) VALUES (%s)", [f"of-another-{time.monotonic_ns()}"])

    thread = Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)
