"""The reference pipeline's queue and migrations on real chains: claims, leases, lost answers, and the audit trail."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from msgspec.structs import replace

from harness.audit.target_loading import load_target
from harness.database import connect, create_database
from harness.engine.owner import Owner
from harness.errors import EngineUnavailableError
from harness.events import silent
from harness.host.command import url, variables
from harness.hostapp.ingest.audit import WORKER, Action
from harness.hostapp.ingest.content import Content
from harness.hostapp.ingest.work_queue import Claimed, LostClaimError, WorkQueue, is_transient
from harness.ingest.loading import find
from harness.job_engines.installation import Installed, install
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.waiting import NotYet, poll
from harness.wire.link import BLACK_HOLE, Link
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

REFERENCE = find("reference")
CONTENT = Content(sha256="0f" * 32, size=5, text="hello")
_CATALOGUE = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'ingest' AND table_name <> 'migrations'
UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
WHERE schemaname = 'ingest' AND tablename <> 'migrations'
UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
WHERE connamespace = 'ingest'::regnamespace AND conrelid::regclass::text <> 'ingest.migrations'
ORDER BY 1, 2
"""
_numbers = itertools.count()


class Pipeline:
    """A database of the reference pipeline on a running chain."""

    def __init__(self, lab: Lab, installed: Installed, template: str | None = None) -> None:
        self.lab = lab
        self._installed = installed
        self.name = f"ingest_{next(_numbers)}"
        with lab.connect_admin() as admin:
            create_database(admin, self.name, owner=lab.roles.owner.name, template=template)
            admin.run(f"GRANT CREATE ON DATABASE {self.name} TO {lab.roles.app.name}")

    def migrate(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the migration through the chain."""
        given = {**os.environ, **variables(self.lab.chain(self.name), self.lab.direct(self.name))}
        command = (*REFERENCE.command("migrate", self._installed.python), *arguments)
        return subprocess.Popen(
            command,
            env=given | self._installed.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def program(self, name: str, database_url: str, port: int, folder: Path) -> subprocess.Popen[str]:
        """Start the API or the worker, with a store that nobody runs; its output goes to a file."""
        given = {"DATABASE_URL": database_url, "PORT": str(port), "POLL_S": "0.05", "S3_BUCKET": "b"}
        given |= {"S3_ENDPOINT": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
        with (folder / "out").open("w") as out:
            return subprocess.Popen(
                REFERENCE.command(name, self._installed.python),
                env=os.environ | self._installed.environment | given,
                text=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with self.lab.connect_admin(self.name) as admin:
            return [tuple(row) for row in admin.rows(statement, list(values))]

    def catalogue(self) -> list[Any]:
        return self.rows(_CATALOGUE)

    def queue(self, worker: str, *, lease_s: float = 300) -> WorkQueue:
        return WorkQueue(self.connection, worker=worker, lease_s=lease_s)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(
            url(self.lab.chain(self.name)), autocommit=True, prepare_threshold=None, connect_timeout=20
        ) as opened:
            yield opened

    def add(self, count: int = 1, *, attempts: int = 0) -> list[str]:
        """Create uploads, as the API does, and return their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        with self.connection() as connection, connection.transaction():
            for name in ids:
                connection.execute(
                    "INSERT INTO ingest.uploads (id, project, filename, content_type, bucket, object_key, uploader, "
                    "correlation_id, url_expires_at) "
                    "VALUES (%s, 'p', 'f', 'text/plain', 'b', %s, 'user:ada', %s, now() + interval '1 hour')",
                    [name, name, f"c-{name}"],
                )
                connection.execute("INSERT INTO ingest.work (upload_id, attempts) VALUES (%s, %s)", [name, attempts])
        return ids

    def claimed(self, queue: WorkQueue) -> Claimed:
        """Add an upload, and claim it."""
        [name] = self.add()
        [upload] = queue.claim(10, [])
        assert upload.id == name
        return upload

    def pass_lease(self) -> None:
        self.rows("UPDATE ingest.work SET lease_until = now() - interval '1 second' RETURNING 1")

    def state(self, upload: Claimed) -> tuple[Any, ...]:
        [row] = self.rows("SELECT status, attempts, worker FROM ingest.upload_states WHERE id = %s", upload.id)
        return row  # type: ignore[no-any-return]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Lab, Installed]]:
    """A chain with a transaction pool; the suite `ingest` is tested on a server without one."""
    engine = require_engine("docker")
    try:
        installed = install(REFERENCE, silent)
    except EngineUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the packages of the reference pipeline are not available here: {error.what}")
    lab = stand_up(engine, load_topologies()["transaction"], Owner.me(new_run_id()), Redactor())
    try:
        yield lab, installed
    finally:
        lab.close()


@pytest.fixture
def empty(place: tuple[Lab, Installed]) -> Pipeline:
    return Pipeline(*place)


class Migrated(NamedTuple):
    """A database that two migrations at the same time have migrated, and that nobody is connected to."""

    name: str
    catalogue: list[Any]
    exit_codes: list[int]
    outputs: list[str]


@pytest.fixture(scope="module")
def migrated(place: tuple[Lab, Installed]) -> Migrated:
    pipeline = Pipeline(*place)
    both = [pipeline.migrate(), pipeline.migrate()]
    outputs = [migration.communicate()[0] for migration in both]
    exit_codes = [migration.returncode for migration in both]
    catalogue = pipeline.catalogue()
    with pipeline.lab.connect_admin() as admin:
        admin.rows("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [pipeline.name])
    return Migrated(pipeline.name, catalogue, exit_codes, outputs)


@pytest.fixture
def pipeline(place: tuple[Lab, Installed], migrated: Migrated) -> Pipeline:
    """A copy of the migrated database."""
    assert any(code == 0 for code in migrated.exit_codes), migrated.outputs
    return Pipeline(*place, migrated.name)


def test_migrations_at_the_same_time_make_one_schema(migrated: Migrated) -> None:
    assert migrated.exit_codes == [0, 0], migrated.outputs
    assert len(migrated.catalogue) > 20


def test_a_migration_has_a_way_back(pipeline: Pipeline, migrated: Migrated) -> None:
    for arguments in (("down",), ()):
        migration = pipeline.migrate(*arguments)
        output = migration.communicate()[0]
        assert migration.returncode == 0, output
        assert pipeline.catalogue() == ([] if arguments else migrated.catalogue)


def test_a_migration_of_an_unreachable_database_fails_without_a_traceback(empty: Pipeline) -> None:
    with empty.lab.connect_admin() as admin:
        admin.run(f"DROP DATABASE {empty.name}")
    migration = empty.migrate()
    output = migration.communicate()[0]
    assert migration.returncode == 1
    assert "the migration failed, and nothing was changed" in output
    assert "Traceback" not in output


def test_workers_that_claim_at_the_same_time_share_the_uploads(pipeline: Pipeline) -> None:
    ids = pipeline.add(24)
    queues = [pipeline.queue(f"w{number}") for number in range(6)]
    with ThreadPoolExecutor(len(queues)) as pool:
        shares = list(pool.map(lambda queue: [upload.id for upload in queue.claim(4, [])], queues))
    missed = [upload.id for upload in pipeline.queue("last").claim(24, [])]
    # SKIP LOCKED may leave some to a later claim, and gives none to two workers
    assert sorted([*itertools.chain(*shares), *missed]) == sorted(ids)


def test_a_row_that_somebody_locks_delays_no_claim(pipeline: Pipeline) -> None:
    locked, free = pipeline.add(2)
    with pipeline.connection() as other, other.transaction():
        other.execute("SELECT FROM ingest.work WHERE upload_id = %s FOR UPDATE", [locked])
        assert [upload.id for upload in pipeline.queue("w").claim(10, [])] == [free]


def test_an_upload_is_claimed_again_only_after_its_lease_and_by_another_worker(pipeline: Pipeline) -> None:
    first, second = pipeline.queue("first"), pipeline.queue("second")
    stale = pipeline.claimed(first)
    assert first.begin_attempt(stale) == 1
    assert pipeline.state(stale) == ("processing", 1, "first")
    assert second.claim(10, []) == []
    pipeline.pass_lease()
    # while it still works on the upload, it asks for others
    assert first.claim(10, [stale.id]) == []
    [upload] = second.claim(10, [])
    assert (upload.claim, upload.attempts) == (stale.claim + 1, 1)
    assert pipeline.state(stale) == ("uploaded_pending", 1, "second")


def test_a_worker_that_lost_its_claim_changes_nothing(pipeline: Pipeline) -> None:
    first, second = pipeline.queue("first"), pipeline.queue("second")
    stale = pipeline.claimed(first)
    pipeline.pass_lease()
    [upload] = second.claim(10, [])
    before = pipeline.rows("SELECT * FROM ingest.work")
    assert first.renew({stale.id: stale.claim}) == set()
    changes: list[Callable[[], object]] = [
        lambda: first.begin_attempt(stale),
        lambda: first.postpone(stale, 1),
        lambda: first.give_back(stale),
        lambda: first.finish(stale, CONTENT),
        lambda: first.fail(stale, "x"),
    ]
    for change in changes:
        with pytest.raises(LostClaimError):
            change()
    assert pipeline.rows("SELECT * FROM ingest.work") == before
    second.finish(upload, CONTENT)
    with pytest.raises(LostClaimError):
        first.fail(stale, "x")
    assert pipeline.state(stale) == ("indexed", 0, "second")


def test_a_lease_that_is_renewed_is_kept(pipeline: Pipeline) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    pipeline.pass_lease()
    assert queue.renew({upload.id: upload.claim, str(uuid.uuid4()): 1}) == {upload.id}
    assert pipeline.queue("other").claim(10, []) == []


@pytest.mark.parametrize(
    "let_go", [lambda queue, upload: queue.postpone(upload, 0.0), lambda queue, upload: queue.give_back(upload)]
)
def test_a_claim_that_was_let_go_gets_no_lease_from_a_renewal_or_an_attempt_that_comes_late(
    pipeline: Pipeline, let_go: Callable[[WorkQueue, Claimed], None]
) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    let_go(queue, upload)
    assert queue.renew({upload.id: upload.claim}) == set()
    with pytest.raises(LostClaimError):
        queue.begin_attempt(upload)
    [again] = pipeline.queue("other").claim(10, [])
    assert again.id == upload.id


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_a_result_whose_answer_got_lost_is_written_once(pipeline: Pipeline, end: str) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    queue.begin_attempt(upload)
    write = partial(queue.finish, upload, CONTENT) if end == "finish" else partial(queue.fail, upload, "missing")
    write()
    after = pipeline.rows("SELECT *, xmin::text FROM ingest.uploads")
    write()
    assert pipeline.rows("SELECT *, xmin::text FROM ingest.uploads") == after
    assert pipeline.state(upload) == ("indexed" if end == "finish" else "index_error", 1, "w")


def test_a_transaction_that_idles_ends_so_that_a_frozen_worker_holds_no_row(pipeline: Pipeline) -> None:
    written = Action(name="upload_indexed", actor=WORKER, correlation="c")
    with pipeline.connection() as connection:

        def frozen() -> None:
            with written.transaction(connection):
                row = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
                assert row == ("5s",)
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
                assert select.select([connection], [], [], 20)[0], "the server did not end the transaction"
                connection.execute("SELECT 1")

        with pytest.raises(psycopg.Error) as ended:
            frozen()
        assert is_transient(ended.value)


def test_programs_end_although_their_database_is_frozen(pipeline: Pipeline, tmp_path: Path) -> None:
    chain = pipeline.lab.chain(pipeline.name)
    link = Link(lambda: (chain.host, chain.port))
    link.start()
    host, port = link.address
    at, api = url(replace(chain, host=host, port=port)), closed_port()
    folders = {name: tmp_path / name for name in ("worker", "api")}
    programs: dict[str, subprocess.Popen[str]] = {}

    def printed() -> str:
        return "\n".join((folder / "out").read_text() for folder in folders.values())

    def ask() -> None:
        """Wait until a query of each program waits for a lock; the API begins one when it is asked for its readiness."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", api), timeout=5) as client:
            client.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.recv(1)
        waiting = pipeline.rows(
            "SELECT DISTINCT position('max(indexed_at)' in query) > 0 AS of_the_api FROM pg_stat_activity "
            "WHERE datname = %s AND wait_event_type = 'Lock'",
            pipeline.name,
        )
        if len(waiting) < len(programs):
            raise NotYet(f"{waiting}\n{printed()}")

    try:
        for name, folder in folders.items():
            folder.mkdir()
            programs[name] = pipeline.program(name, at, api, folder)
        with connect(pipeline.lab.admin(pipeline.name)) as admin:
            admin.run("BEGIN; LOCK TABLE ingest.work, ingest.uploads IN ACCESS EXCLUSIVE MODE")
            poll(ask, what="a query of each program", deadline_s=60)
            link.change(BLACK_HOLE)
            for program in programs.values():
                program.send_signal(signal.SIGTERM)
            assert [program.wait(20) for program in programs.values()] == [0, 0], printed()
    finally:
        for program in programs.values():
            program.kill()
            program.wait()
        link.close()
    for folder in folders.values():
        assert "stopped without an answer" in (folder / "out").read_text()


def test_a_worker_that_stops_gives_its_upload_back_without_an_attempt(pipeline: Pipeline) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    queue.begin_attempt(upload)
    queue.give_back(upload)
    [again] = pipeline.queue("other").claim(10, [])
    assert (again.id, again.attempts) == (upload.id, 0)


def test_a_postponed_upload_is_not_due_before_its_time(pipeline: Pipeline) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    queue.postpone(upload, 60, looked=True)
    assert queue.claim(10, []) == []
    pipeline.rows("UPDATE ingest.work SET due_at = now() RETURNING 1")
    [again] = queue.claim(10, [])
    assert (again.looks, again.attempts) == (1, 0)


def test_the_trail_names_the_worker_and_its_upload_and_has_no_row_for_a_lease(pipeline: Pipeline) -> None:
    queue = pipeline.queue("w")
    upload = pipeline.claimed(queue)
    target = load_target("reference")
    with connect(pipeline.lab.admin(pipeline.name)) as admin:
        target.install_in(admin)
        target.attach(admin, "ingest.uploads")
        admin.run(f"SELECT threadline_grant('{pipeline.lab.roles.app.name}')")
    queue.begin_attempt(upload)
    queue.renew({upload.id: upload.claim})
    queue.finish(upload, CONTENT)
    # the answer to the first one got lost
    queue.finish(upload, CONTENT)
    assert pipeline.rows("SELECT count(*) FROM audit_actions") == [(1,)]
    assert pipeline.rows(
        "SELECT c.op, t.actor_ref, a.name, a.correlation_id, a.job_id FROM audit_changes c "
        "JOIN audit_transactions t ON t.id = c.transaction_id JOIN audit_actions a ON a.id = t.action_id"
    ) == [("update", {"type": "job", "id": "ingest-worker"}, "upload_indexed", upload.correlation, upload.id)]
