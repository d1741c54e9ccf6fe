"""The reference host on real chains: every write is either audited or rolled back."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from harness.audit.target_loading import load_target
from harness.database import SqlError, connect, create_database
from harness.engine.docker_engine import DockerEngine
from harness.engine.docker_labels import LABEL_BUILD, LABEL_PID
from harness.engine.owner import Owner
from harness.errors import EngineUnavailableError, ImageUnavailableError
from harness.lab.host import HOST, QUEUE, WORKER, HostService, start_host
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.waiting import NotYet, poll
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client

pytestmark = pytest.mark.engine

DATABASE = "blog"
ADA, BOB = {"type": "user", "id": "ada"}, {"type": "admin", "id": "bob"}
#: part of every title; it must never appear in a log
CANARY = "titles-must-not-be-logged"
INSERT_TRIGGER, UPDATE_TRIGGER = "!threadline_audit_insert", "!threadline_audit_update"


class Blog:
    """The reference host on a running chain, with a connection to its database."""

    def __init__(self, lab: Lab, host: HostService, owner: Client) -> None:
        self.lab, self.host, self.owner = lab, host, owner
        self._slugs = iter(range(10_000))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        caller: str | None = "ada",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """Send a request and return status, headers and decoded body."""
        address = self.host.service.endpoint()
        sent = dict(headers or {})
        if caller:
            sent["authorization"] = f"Bearer {self.host.tokens.get(caller, caller)}"
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        try:
            connection.request(method, path, raw, sent)
            response = connection.getresponse()
            text = response.read().decode()
            is_json = "json" in (response.getheader("content-type") or "")
            return (
                response.status,
                {key.lower(): value for key, value in response.getheaders()},
                json.loads(text) if is_json else text,
            )
        finally:
            connection.close()

    def slug(self) -> str:
        return f"slug-{next(self._slugs)}"

    def created(self, **more: Any) -> dict[str, Any]:
        body = {"post": {"title": f"{CANARY} first", "slug": self.slug()}}
        status, _, post = self.request("POST", "/api/posts", body, **more)
        assert status == 201, post
        return dict(post)

    def job(self, identity: int) -> tuple[str, int, list[dict[str, Any]]]:
        [row] = self.owner.rows("SELECT state::text, attempt, errors FROM oban_jobs WHERE id = %s", [identity])
        return row

    def when(self, identity: int, *states: str) -> tuple[str, int, list[dict[str, Any]]]:
        def probe() -> tuple[str, int, list[dict[str, Any]]]:
            if (seen := self.job(identity))[0] not in states:
                raise NotYet(str(seen))
            return seen

        return poll(probe, what=f"job {identity} to be {states}", deadline_s=20)

    def retitled(self, post: int, title: str, **more: Any) -> int:
        status, _, body = self.request("POST", f"/api/posts/{post}/title", {"title": title}, **more)
        assert status == 202, body
        return int(body["job_id"])

    def insert_job(self, args: dict[str, Any]) -> int:
        return int(
            self.owner.value(
                "INSERT INTO oban_jobs (worker, queue, args, max_attempts) VALUES (%s, %s, %s::jsonb, 5) RETURNING id",
                [WORKER, QUEUE, json.dumps(args)],
            )
        )

    def title(self, post: int) -> str:
        return str(self.owner.value("SELECT title FROM posts WHERE id = %s", [post]))

    def actions(self, correlation_id: str) -> list[Any]:
        return self.owner.rows(
            "SELECT a.name, a.actor_ref, a.request_id, a.job_id, t.id::text, t.actor_ref, c.op, c.table_pk "
            "FROM audit_actions a JOIN audit_transactions t ON t.action_id = a.id "
            "JOIN audit_changes c ON c.transaction_id = t.id WHERE a.correlation_id = %s ORDER BY a.inserted_at",
            [correlation_id],
        )

    def count(self) -> tuple[int, ...]:
        [row] = self.owner.rows(
            "SELECT (SELECT count(*) FROM posts), (SELECT count(*) FROM audit_actions), (SELECT count(*) FROM audit_changes)"
        )
        return tuple(row)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.host.logs().splitlines()]

    def when_ready_is(self, status: int) -> Any:
        def probe() -> Any:
            seen, _, body = self.request("GET", "/ready", caller=None)
            if seen != status:
                raise NotYet(f"{seen} {body}")
            return body

        return poll(probe, what=f"/ready to answer {status}", deadline_s=20)


#: each engine and each kind of chain
PLACES = [("docker", "transaction"), ("native", "direct")]
#: for what an engine does to the host, and for what the host does whatever its chain is
in_a_container, without_a_container = (
    pytest.mark.parametrize("blog", [place], ids="-".join, indirect=True) for place in PLACES
)


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def blog(request: pytest.FixtureRequest) -> Iterator[Blog]:
    engine_name, topology = request.param
    engine = require_engine(engine_name)
    lab = stand_up(engine, load_topologies()[topology], Owner.me(new_run_id()), Redactor())
    try:
        with lab.connect_admin() as admin:
            create_database(admin, DATABASE, owner=lab.roles.owner.name)
        with connect(lab.owner(DATABASE)) as owner:
            target = load_target("reference")
            target.install_in(owner)
            try:
                host = start_host(lab, DATABASE, [ADA, BOB])
            except (EngineUnavailableError, ImageUnavailableError) as error:
                if os.environ.get("CI"):
                    raise
                pytest.skip(f"the reference host is not available here: {error.what}")
            target.attach(owner, "public.posts")
            owner.run("SELECT threadline_grant('harness_app', reading => true)")
            blog = Blog(lab, host, owner)
            yield blog
            blog.owner.close()  # a test that restarts the server replaces the connection
    finally:
        lab.close()


@pytest.fixture
def disabled(blog: Blog) -> Iterator[Callable[[str], None]]:
    """Return a function that disables a capture trigger until the test ends."""
    triggers: list[str] = []

    def disable(trigger: str) -> None:
        blog.owner.run(f'ALTER TABLE public.posts DISABLE TRIGGER "{trigger}"')
        triggers.append(trigger)

    yield disable
    for trigger in triggers:
        blog.owner.run(f'ALTER TABLE public.posts ENABLE TRIGGER "{trigger}"')


def test_a_created_post_is_listed_by_its_audit_transaction(blog: Blog) -> None:
    sent = {"x-correlation-id": "corr created", "x-request-id": "req-created"}
    body = {"post": {"title": f"{CANARY} <ü>", "slug": blog.slug()}}
    status, headers, post = blog.request("POST", "/api/posts", body, headers=sent)
    assert status == 201
    assert set(post) == {"id", "title", "slug", "inserted_at", "audit_transaction_id"}
    assert post["title"] == body["post"]["title"]
    assert datetime.fromisoformat(post["inserted_at"]).utcoffset() is not None
    assert sent.items() <= headers.items()
    status, _, listed = blog.request(
        "GET", f"/api/audit_transactions/{post['audit_transaction_id']}/changes", caller="bob"
    )
    assert status == 200
    assert listed["audit_transaction_id"] == post["audit_transaction_id"]
    [change] = listed["changes"]
    assert (change["op"], change["table"], change["key"]) == ("insert", "public.posts", {"id": post["id"]})
    assert change["data_after"]["slug"] == post["slug"]
    key = {"id": post["id"]}
    expected = ("post_created_via_api", ADA, "req-created", None, post["audit_transaction_id"], ADA, "insert", key)
    assert blog.actions("corr created") == [expected]


def test_each_write_names_its_own_caller(blog: Blog) -> None:
    for number, (caller, actor) in enumerate([("ada", ADA), ("bob", BOB)] * 4):
        blog.created(caller=caller, headers={"x-correlation-id": f"own-{number}"})
        [(_, of_action, _, _, _, of_transaction, _, _)] = blog.actions(f"own-{number}")
        assert of_action == of_transaction == actor


def test_a_request_without_a_valid_token_is_rejected(blog: Blog) -> None:
    before = blog.count()
    record = "00660c71-cca0-8fcb-8000-0000000002f6"
    requests = (
        ("POST", "/api/posts"),
        ("POST", "/api/posts/1/title"),
        ("GET", f"/api/audit_transactions/{record}/changes"),
    )
    for (method, path), caller in itertools.product(requests, (None, "nobody-s-token", "")):
        status, headers, body = blog.request(method, path, b"{" if method == "POST" else None, caller=caller)
        assert (status, set(body)) == (401, {"error"})
        assert headers["www-authenticate"].startswith("Bearer")
    assert blog.count() == before


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({"post": "text"}, 422, {"post"}),
        ({"post": {}}, 422, {"title", "slug"}),
        ({"post": {"title": 1, "slug": "fine"}}, 422, {"title"}),
        ({"post": {"title": "x" * 201, "slug": "fine"}}, 422, {"title"}),
        (b"{", 400, None),
        (b'{"post": {"title": "' + b"x" * 70_000, 413, None),
    ],
)
def test_an_invalid_post_is_rejected(blog: Blog, body: Any, status: int, fields: set[str] | None) -> None:
    before = blog.count()
    answered, _, response = blog.request("POST", "/api/posts", body)
    assert answered == status
    assert set(response["errors"]) == fields if fields else response["error"]
    assert blog.count() == before


def test_a_slug_is_unique(blog: Blog) -> None:
    post = blog.created()
    before = blog.count()
    status, _, body = blog.request("POST", "/api/posts", {"post": {"title": "other", "slug": post["slug"]}})
    assert (status, body) == (422, {"errors": {"slug": ["has already been taken"]}})
    assert blog.count() == before


def test_unknown_and_invalid_ids_are_rejected(blog: Blog) -> None:
    for identity in ("9223372036854775807", "0", "x", "9" * 5000):
        status, _, _ = blog.request("POST", f"/api/posts/{identity}/title", {"title": "new"})
        assert status == 404
    status, _, body = blog.request("GET", "/api/audit_transactions/nonsense/changes")
    assert (status, body) == (400, {"error": "invalid audit transaction id"})
    unknown = "00660c71-cca0-8fcb-8000-ffffffffffff"
    status, _, body = blog.request("GET", f"/api/audit_transactions/{unknown}/changes")
    assert (status, body) == (200, {"audit_transaction_id": unknown, "changes": []})
    assert blog.request("GET", "/nowhere")[0] == 404
    assert blog.request("GET", "/api/posts")[0] == 405


def test_a_job_changes_a_title_with_the_actor_and_correlation_of_its_request(blog: Blog) -> None:
    post = blog.created()
    ids = {"x-correlation-id": "corr-job", "x-request-id": "req-job"}
    job = blog.retitled(post["id"], f"{CANARY} second", caller="bob", headers=ids)
    assert blog.when(job, "completed")[1] == 1
    assert blog.title(post["id"]) == f"{CANARY} second"
    [(name, actor, request, job_id, record, of_transaction, op, key)] = blog.actions("corr-job")
    assert (name, actor, request, job_id) == ("post_title_changed_by_job", BOB, None, str(job))
    assert (of_transaction, op, key) == (BOB, "update", {"id": post["id"]})
    lines = [line for line in blog.lines() if line.get("correlation_id") == "corr-job"]
    assert {line["ctx"] for line in lines} == {"http", "job"}
    assert {"request", "job enqueued", "job started", "job ended"} <= {line["msg"] for line in lines}
    assert {line["job_id"] for line in lines if line["ctx"] == "job"} == {job}
    status, _, listed = blog.request("GET", f"/api/audit_transactions/{record}/changes")
    assert status == 200
    assert sorted(listed["changes"][0]["changed_fields"]) == ["title", "updated_at"]


def test_a_paused_queue_runs_no_job_until_it_is_resumed(blog: Blog) -> None:
    post = blog.created()
    assert blog.request("POST", "/api/jobs/pause", caller=None)[0] == 401
    for _ in range(2):  # the first pause counts
        assert blog.request("POST", "/api/jobs/pause")[2] == {"queue": QUEUE, "paused": True}
    job = blog.retitled(post["id"], f"{CANARY} paused")
    # the scheduler finds a delayed job: it has looked at the queue
    later = blog.retitled(post["id"], f"{CANARY} after the pause")
    blog.owner.run("UPDATE oban_jobs SET state = 'scheduled' WHERE id = %s", [later])
    blog.when(later, "available")
    assert blog.job(job)[:2] == ("available", 0)
    assert blog.request("POST", "/api/jobs/resume")[2] == {"queue": QUEUE, "paused": False}
    assert blog.when(job, "completed")[1] == 1
    assert blog.when(later, "completed")[1] == 1


def test_invalid_ids_are_replaced(blog: Blog) -> None:
    sent = {"x-correlation-id": "x" * 257, "x-request-id": ""}
    _, headers, _ = blog.request("GET", "/health", headers=sent)
    assert 0 < len(headers["x-correlation-id"]) <= 256
    assert headers["x-request-id"]


def test_a_write_without_an_audit_row_is_rolled_back(blog: Blog, disabled: Callable[[str], None]) -> None:
    disabled(INSERT_TRIGGER)
    before = blog.count()
    status, _, body = blog.request("POST", "/api/posts", {"post": {"title": "unaudited", "slug": blog.slug()}})
    assert (status, set(body)) == (500, {"error"})
    assert blog.count() == before


def test_a_write_is_rolled_back_when_the_trail_rejects_it(blog: Blog) -> None:
    signature = "threadline_record_action(text, jsonb, text, text, text, text, text, text, text, text)"
    before = blog.count()
    blog.owner.run(f"REVOKE EXECUTE ON FUNCTION {signature} FROM harness_app")
    try:
        status, _, _ = blog.request("POST", "/api/posts", {"post": {"title": "unaudited", "slug": blog.slug()}})
    finally:
        blog.owner.run(f"GRANT EXECUTE ON FUNCTION {signature} TO harness_app")
    assert status == 500
    assert blog.count() == before


def test_a_job_without_an_audit_row_fails_and_is_retried(blog: Blog, disabled: Callable[[str], None]) -> None:
    post = blog.created()
    disabled(UPDATE_TRIGGER)
    job = blog.retitled(post["id"], f"{CANARY} closed", headers={"x-correlation-id": "corr-closed"})
    _, attempt, errors = blog.when(job, "retryable")
    assert attempt == 1
    assert "NotAuditedError" in errors[0]["error"]
    assert blog.title(post["id"]) == post["title"]
    assert blog.actions("corr-closed") == []
    wait = blog.owner.value(
        "SELECT extract(epoch FROM scheduled_at - attempted_at)::float FROM oban_jobs WHERE id = %s", [job]
    )
    assert 1 <= wait < 3
    blog.owner.run(f'ALTER TABLE public.posts ENABLE TRIGGER "{UPDATE_TRIGGER}"')
    assert blog.when(job, "completed")[1] == 2
    assert blog.title(post["id"]) == f"{CANARY} closed"
    assert len(blog.actions("corr-closed")) == 1


def test_a_job_that_is_delivered_twice_has_one_effect(blog: Blog) -> None:
    post = blog.created()
    job = blog.retitled(post["id"], f"{CANARY} once", headers={"x-correlation-id": "corr-once"})
    blog.when(job, "completed")
    later = blog.retitled(post["id"], f"{CANARY} later")
    blog.when(later, "completed")
    blog.owner.run("UPDATE oban_jobs SET state = 'available', completed_at = NULL WHERE id = %s", [job])
    assert blog.when(job, "completed")[1] == 2
    assert blog.title(post["id"]) == f"{CANARY} later"
    assert len(blog.actions("corr-once")) == 1


def test_an_unchanged_title_writes_nothing(blog: Blog) -> None:
    post = blog.created()
    before = blog.count()
    job = blog.retitled(post["id"], post["title"], headers={"x-correlation-id": "corr-same"})
    blog.when(job, "completed")
    assert blog.count() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "missing arguments: actor_ref, post_id, title"),
        ({"actor_ref": {"type": "robot"}, "post_id": 1, "title": "t"}, "invalid actor_ref"),
        ({"actor_ref": ADA, "post_id": "1", "title": "t"}, "invalid post_id"),
        ({"actor_ref": ADA, "post_id": 1, "title": 1}, "title must be text"),
        ({"actor_ref": ADA, "post_id": 1, "title": "t", "correlation_id": 1}, "invalid correlation_id"),
        ({"actor_ref": ADA, "post_id": 2**62, "title": "t"}, "does not exist"),
    ],
)
def test_a_job_with_invalid_arguments_is_not_retried(blog: Blog, args: dict[str, Any], message: str) -> None:
    _, attempt, errors = blog.when(blog.insert_job(args), "cancelled")
    assert attempt == 1
    assert message in errors[0]["error"]


def test_a_job_without_a_correlation_has_one_effect(blog: Blog) -> None:
    post = blog.created()
    job = blog.insert_job({"actor_ref": ADA, "post_id": post["id"], "title": f"{CANARY} bare"})
    blog.when(job, "completed")
    assert blog.title(post["id"]) == f"{CANARY} bare"
    count = blog.count()
    blog.owner.run("UPDATE oban_jobs SET state = 'available', completed_at = NULL WHERE id = %s", [job])
    blog.when(job, "completed")
    assert blog.count() == count


def test_listen_is_used_only_without_a_transaction_pool(blog: Blog) -> None:
    with blog.lab.connect_admin() as admin:
        listening = admin.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN %%'", [DATABASE]
        )
    assert (listening > 0) is (blog.lab.topology.pooler is None)


def test_counters_increase_with_each_request_and_job(blog: Blog) -> None:
    def read() -> dict[str, float]:
        _, headers, text = blog.request("GET", "/metrics", caller=None)
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    before = read()
    post = blog.created()
    blog.when(blog.retitled(post["id"], f"{CANARY} counted"), "completed")
    after = read()
    for name in (
        'hostapp_requests_total{method="POST",route="/api/posts",status="201"}',
        'hostapp_audited_writes_total{path="http"}',
        'hostapp_audited_writes_total{path="job"}',
        'hostapp_jobs_total{outcome="completed"}',
    ):
        assert after[name] == before.get(name, 0) + 1
    assert 0 < after["hostapp_pool_size"] <= blog.lab.topology.host.pool_size


@without_a_container
def test_a_second_start_changes_nothing_in_the_database(blog: Blog) -> None:
    def fingerprint() -> list[Any]:
        return blog.owner.rows(
            "SELECT c.relname, c.relkind::text, c.relacl::text, a.attname, format_type(a.atttypid, a.atttypmod) "
            "FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
            "WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, a.attnum"
        )

    before = fingerprint()
    second = start_host(blog.lab, DATABASE, [ADA])
    try:
        assert second.base_url != blog.host.base_url
        assert second.tokens["ada"] != blog.host.tokens["ada"]
        assert fingerprint() == before

        def logged() -> None:
            """The line follows the first answer, which ended the start."""
            if "ready" not in second.logs():
                raise NotYet("the host has not logged that it is ready")

        poll(logged, what="the log of the host", deadline_s=20)
    finally:
        second.close()
    second.close()
    assert not second.service.state().running
    assert "ready" in second.logs()


@pytest.mark.parametrize("how", ["paused", "down"])
def test_the_host_survives_an_outage_of_the_database(blog: Blog, how: str) -> None:
    post = blog.created()
    job = blog.retitled(post["id"], f"{CANARY} before {how}")
    blog.when(job, "completed")
    server = blog.lab.postgres
    blog.owner.commit()
    (server.pause if how == "paused" else server.stop)()
    try:
        began = time.monotonic()
        body = blog.when_ready_is(503)
        assert time.monotonic() - began < 10
        assert body["database"] is False
        assert datetime.fromisoformat(body["last_successful_job_at"]).utcoffset() is not None
        assert blog.request("GET", "/health", caller=None)[0] == 200
        assert blog.request("GET", "/metrics", caller=None)[0] == 200
    finally:
        (server.resume if how == "paused" else server.restart)()
    if how == "down":
        poll_until_connected(blog)
    body = blog.when_ready_is(200)
    assert body["database"]
    assert body["job_runner"]
    job = blog.retitled(post["id"], f"{CANARY} after {how}")
    blog.when(job, "completed")
    assert blog.host.service.state().running


def poll_until_connected(blog: Blog) -> None:
    def probe() -> Client:
        try:
            return connect(blog.lab.owner(DATABASE), connect_timeout_s=3)
        except SqlError as error:
            raise NotYet(str(error)) from None

    blog.owner = poll(probe, what="PostgreSQL to accept connections", deadline_s=20)


def test_a_discarded_job_makes_the_host_not_ready_until_another_succeeds(blog: Blog) -> None:
    blog.when_ready_is(200)
    job = blog.insert_job({})
    blog.when(job, "cancelled")
    assert blog.request("GET", "/ready", caller=None)[0] == 200
    blog.owner.run(
        "UPDATE oban_jobs SET state = 'discarded', cancelled_at = NULL, discarded_at = timezone('UTC', clock_timestamp()) "
        "WHERE id = %s",
        [job],
    )
    body = blog.when_ready_is(503)
    assert (body["database"], body["job_runner"]) == (True, False)
    post = blog.created()
    blog.when(blog.retitled(post["id"], f"{CANARY} well"), "completed")
    blog.when_ready_is(200)


@in_a_container
def test_sigterm_stops_the_host_in_time_and_a_restart_works(blog: Blog) -> None:
    service = blog.host.service
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 5
    assert not service.state().running
    assert "exit code 0" in service.state().detail
    service.restart()
    blog.host.when_ready()
    blog.created()


@without_a_container
def test_sigterm_stops_the_host_in_time_while_the_database_is_frozen(blog: Blog) -> None:
    service = blog.host.service
    blog.lab.postgres.pause()
    try:
        blog.when_ready_is(503)
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 5
        assert not service.state().running
    finally:
        blog.lab.postgres.resume()
    service.restart()
    blog.host.when_ready()


def test_every_log_line_is_json_and_holds_no_secret(blog: Blog) -> None:
    text = blog.host.logs()
    assert CANARY not in text
    assert "slug-" not in text
    for secret in (*blog.host.tokens.values(), *blog.lab.roles.secrets()):
        assert secret not in text
    for line in blog.lines():
        assert {"ts", "level", "ctx", "msg"} <= set(line)
        assert datetime.fromisoformat(line["ts"]).utcoffset() is not None
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        assert line["ctx"] in {"http", "job", "app", "database", "oban"}
    assert blog.host.service.name in blog.lab.logs()


def test_the_image_holds_neither_certificates_nor_a_package_index() -> None:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    engine.prepare((HOST,), lambda _: None)
    try:
        tag, _ = engine.origin(HOST)
    except ImageUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.what)
    history = json.dumps(engine._api.history(tag))  # type: ignore[no-untyped-call]
    assert "pip.conf" not in history
    assert "ca-bundle" not in history
    container = engine._api.create_container(tag, ["true"])["Id"]
    try:
        with pytest.raises(Exception, match="Could not find the file /build"):
            engine._api.get_archive(container, "/build")
    finally:
        engine._api.remove_container(container, force=True)
    # the build stages that used them are removed
    unfinished = engine._api.images(filters={"dangling": True, "label": LABEL_BUILD})
    assert [image for image in unfinished if image["Labels"][LABEL_PID] == str(os.getpid())] == []
