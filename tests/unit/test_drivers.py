"""The comparison of drivers without a server: counting, and workers that fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from threading import Event
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from harness import places
from harness.database import Endpoint
from harness.drivers import measure as measure_module
from harness.drivers import worker as worker_module
from harness.drivers.measure import DRIVERS, NotInstalledError, installed, measure, merge
from harness.drivers.queries import TOPICS, Query, queries_of
from harness.drivers.sessions import SESSIONS
from harness.drivers.worker import WorkerFailedError, Workers
from harness.drivers.workload import WRONG, Job, Share, Tally, work
from harness.engine.owner import process_started
from harness.engine.processes import descendants
from harness.errors import HarnessError, TimedOutError, UsageError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

PSYCOPG = DRIVERS[0]
PASSWORD = "s3cr3t-c4n4ry"
NOWHERE = Endpoint(host="127.0.0.1", port=1, user="app", password=PASSWORD, dbname="postgres")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Collect the worker processes; all of them must have ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = popen(*arguments, **options)
        processes.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    yield processes
    assert processes
    assert all(has_ended(process) for process in processes)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the harness knows that a process has ended: none is left for its own end."""
    return process.returncode is not None


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace the worker by another program."""
    return lambda text: monkeypatch.setattr(worker_module, "_COMMAND", (sys.executable, "-c", text))


@pytest.fixture
def silent_server() -> Iterator[Endpoint]:
    """Run a server that accepts connections and never sends anything."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield replace(NOWHERE, port=listening.getsockname()[1])


# --- the application ------------------------------------------------------------------------------


class RefusedError(Exception):
    sqlstate = "26000"


class WrappedError(Exception):
    def __init__(self, orig: Exception) -> None:
        super().__init__("the text of the wrapper")
        self.orig = orig


class FakeSession:
    """A session with answers from the test. After an error, the rollback fails, too."""

    def __init__(self, answer: Callable[[Query], Sequence[Any] | None]) -> None:
        self._answer = answer
        self.opened = 0
        self.closed = 0
        self.broken = True
        self.refusal: Exception | None = None
        self.in_transactions: list[Query] = []
        self._inside = False

    async def open(self) -> None:
        if self.refusal:
            raise self.refusal
        self.opened += 1
        self.broken = False

    def usable(self) -> bool:
        return not self.broken

    def single(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._inside = True
        try:
            yield
        except WrappedError:
            self.broken = True
            raise RuntimeError("cannot roll back: the connection is closed") from None
        finally:
            self._inside = False

    async def fetch(self, query: Query) -> Sequence[Any] | None:
        if self._inside:
            self.in_transactions.append(query)
        return self._answer(query)

    async def close(self) -> None:
        self.closed += 1


def send(
    answer: Callable[[Query], Sequence[Any] | None], *, client: int = 0, count: int = 60
) -> tuple[Tally, FakeSession]:
    tally, session = Tally(), FakeSession(answer)
    asyncio.run(work(session, queries_of(client, count), tally))
    return tally, session


def test_correct_answers_are_counted() -> None:
    tally, session = send(lambda query: (query.answer(), 7))
    assert (tally.queries, tally.wrong, tally.errors, tally.server_pids) == (60, 0, {}, {7})
    assert len(session.in_transactions) == 12, "a fifth of the queries are in transactions of two"
    assert (session.opened, session.closed) == (1, 2), "one connection, closed before the first login and at the end"


def test_the_answer_to_another_text_or_number_is_wrong() -> None:
    text, _ = send(lambda query: (f"refund {query.number}", 7))
    number, _ = send(lambda query: (f"{query.topic} 1", 7))
    nothing, _ = send(lambda query: None)
    strange, _ = send(lambda query: (query.number,))
    assert [tally.wrong for tally in (text, number, nothing, strange)] == [60] * 4
    assert text.examples == {WRONG: "expected 'order 100000', got 'refund 100000'"}
    assert not text.errors


def test_errors_are_counted_by_sqlstate_and_the_client_continues() -> None:
    def answer(query: Query) -> Sequence[Any]:
        if query.topic == "invoice":
            raise RefusedError("no such statement\nHINT: a long story")
        return query.answer(), 7

    tally, _ = send(answer)
    assert tally.queries == 60
    assert tally.errors == {"26000": 15}
    assert tally.examples == {"26000": "no such statement"}


def test_an_error_in_a_transaction_counts_once_and_the_connection_is_replaced() -> None:
    queries = queries_of(0, 60)

    def answer(query: Query) -> Sequence[Any]:
        if query == queries[8]:
            raise WrappedError(RefusedError("no such statement"))
        return query.answer(), 7

    tally, session = send(answer)
    assert tally.queries == 60
    assert tally.errors == {"26000": 1}
    assert session.opened == 2


def test_an_error_without_a_sqlstate_is_counted_by_its_class() -> None:
    def answer(query: Query) -> Sequence[Any]:
        raise EOFError

    tally, _ = send(answer)
    assert tally.errors == {"EOFError": 60}
    assert tally.examples == {"EOFError": ""}


@pytest.mark.parametrize(
    ("refusal", "errors"),
    [
        (ConnectionRefusedError("no server"), {"ConnectionRefusedError": 5}),
        (RefusedError("the first statement of the driver collided"), {"26000": 60}),
    ],
)
def test_a_refused_client_stops_unless_the_statement_of_its_driver_collided(
    refusal: Exception, errors: dict[str, int]
) -> None:
    tally, session = Tally(), FakeSession(lambda query: (query.answer(), 7))
    session.refusal = refusal
    asyncio.run(work(session, queries_of(0, 60), tally))
    assert tally.errors == errors
    assert tally.queries == sum(errors.values())


def test_clients_send_the_same_texts_in_another_order() -> None:
    sent = [queries_of(client, 60) for client in range(24)]
    texts = {Query(topic, 0).sql("?") for topic in TOPICS}
    assert all({query.sql("?") for query in queries} == texts for queries in sent)
    assert {queries[0].topic for queries in sent} == set(TOPICS)
    numbers = [query.number for queries in sent for query in queries]
    assert len(set(numbers)) == 24 * 60
    # psycopg sends a smaller number as smallint, and a larger one as bigint
    assert min(numbers) > 2**15
    assert max(numbers) < 2**31


# --- results --------------------------------------------------------------------------------------


def test_every_driver_has_a_session() -> None:
    assert [driver.name for driver in DRIVERS] == list(SESSIONS)


def test_shares_are_merged() -> None:
    first = Share(
        queries=6,
        errors={"42P05": 1, "26000": 1},
        wrong=2,
        examples={"42P05": "first", WRONG: "expected this, got that"},
        server_pids=(1, 2),
        duration_s=0.5,
    )
    second = Share(
        queries=6,
        errors={"26000": 3},
        wrong=1,
        examples={"26000": f"password={PASSWORD}"},
        server_pids=(2, 3),
        duration_s=0.75,
    )
    merged = merge(PSYCOPG, [first, second], lambda text: text.replace(PASSWORD, "***"))
    assert (merged.queries, merged.wrong, merged.server_pids, merged.duration_s) == (12, 3, 3, 0.75)
    assert list(merged.errors.items()) == [("26000", 4), ("42P05", 1)]
    assert merged.examples == ("26000: password=***", "42P05: first", "wrong result: expected this, got that")
    assert merged.versions.startswith("psycopg 3.")
    assert not merged.clean


def test_a_result_without_queries_is_not_clean() -> None:
    nothing = merge(PSYCOPG, [], str)
    assert not nothing.clean
    assert replace(nothing, queries=1).clean
    assert not replace(nothing, queries=1, wrong=1).clean


# --- worker processes -----------------------------------------------------------------------------


def test_a_missing_driver_is_named() -> None:
    driver = replace(PSYCOPG, title="some driver", requires=("psycopg", "no_such_driver"))
    assert not installed(driver)
    with pytest.raises(NotInstalledError, match=r"some driver needs packages that are not installed: no_such_driver"):
        measure(driver, NOWHERE)


@pytest.mark.parametrize(("clients", "processes", "queries"), [(4, 1, 60), (2, 4, 60), (4, 2, 0)])
def test_one_process_and_idle_processes_are_refused(clients: int, processes: int, queries: int) -> None:
    with pytest.raises(UsageError, match="at least 2 processes"):
        measure(PSYCOPG, NOWHERE, clients=clients, processes=processes, queries=queries)


@pytest.mark.parametrize(
    ("text", "what", "detail"),
    [
        ("input(); import sys; sys.exit('it broke')", "with status 1 before it was ready", "it broke"),
        ("input(); import os; os.kill(os.getpid(), 9)", "by signal 9 before it was ready", ""),
        ("input(); print('ready', flush=True); input(); 1 / 0", "with status 1 without a result", "ZeroDivisionError"),
        ("input(); print('ready', flush=True); input(); print('result{}')", "wrote an invalid result", "result{}"),
        ("input(); print('ready', flush=True); input(); print('what?')", "without a result", "what?"),
        ("input(); print('ready', flush=True); input(); print('result', end='')", "without a result", "result"),
        ("input(); print('ready', flush=True)", "without a result", "ready"),
        ("input(); print('garbage')", "with status 0 before it was ready", "garbage"),
        ("input(); import sys; sys.stdout.buffer.write(bytes(range(256)))", "before it was ready", ""),
        ("import sys; sys.exit(input())", "before it was ready", "[redacted]"),
    ],
)
def test_a_failed_worker_is_an_error_with_its_output(
    started: list[subprocess.Popen[bytes]], script: Callable[[str], None], text: str, what: str, detail: str
) -> None:
    script(text)
    with Workers() as workers:
        with pytest.raises(WorkerFailedError) as caught:
            measure(PSYCOPG, NOWHERE, clients=2, processes=2, workers=workers)
        assert has_ended(started[0]), "it could be lent again"
    assert what in caught.value.what
    assert caught.value.where == "psycopg"
    assert detail in caught.value.detail
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("input(); import sys; print('loading', file=sys.stderr, flush=True); sys.stdin.read()", "be loaded"),
        ("input(); import sys; print('loading', file=sys.stderr); print('ready', flush=True); sys.stdin.read()", "end"),
    ],
)
def test_a_worker_that_hangs_is_ended_at_the_deadline(
    started: list[subprocess.Popen[bytes]],
    script: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    what: str,
) -> None:
    script(text)
    monkeypatch.setattr(measure_module, "_TO_REPORT_S", 0.2)
    with Workers() as workers:
        with pytest.raises(TimedOutError) as caught:
            measure(PSYCOPG, NOWHERE, clients=2, processes=2, deadline_s=1.5, workers=workers)
        assert has_ended(started[0])
    assert (
        f"waiting for psycopg at app@127.0.0.1:1/postgres to {what}; last seen: the process is running"
        in caught.value.what
    )
    assert "loading" in caught.value.detail


def test_a_disturbed_measurement_ends_at_once(
    started: list[subprocess.Popen[bytes]], silent_server: Endpoint
) -> None:
    def disturbed() -> None:
        if descendants(started[0].pid):  # the clients wait for the server
            raise ConnectionAbortedError("the run was interrupted")

    at = replace(silent_server, closing=Event())  # as a lab gives it: the event stays in this process
    with Workers() as workers:
        with pytest.raises(ConnectionAbortedError, match="the run was interrupted"):
            measure(PSYCOPG, at, clients=2, processes=2, require_undisturbed=disturbed, workers=workers)
        assert has_ended(started[0])


def test_after_an_interrupt_no_process_runs(
    started: list[subprocess.Popen[bytes]], silent_server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_module, "poll", interrupted)
    with Workers() as workers:
        with pytest.raises(KeyboardInterrupt):
            measure(PSYCOPG, silent_server, clients=2, processes=2, workers=workers)
        assert has_ended(started[0])


def test_clients_without_an_answer_are_errors(started: list[subprocess.Popen[bytes]], silent_server: Endpoint) -> None:
    with Workers() as workers:
        measured = measure(PSYCOPG, silent_server, clients=3, processes=2, deadline_s=4, workers=workers)
        assert has_ended(started[0]), "clients hung, and it could be lent again"
    assert measured.errors == {"TimeoutError": 3}
    assert not measured.clean


def test_a_missing_server_is_an_error_of_each_client(started: list[subprocess.Popen[bytes]]) -> None:
    measured = measure(PSYCOPG, NOWHERE, clients=2, processes=2)
    assert measured.errors == {"OperationalError": 10}
    assert (measured.queries, measured.server_pids) == (10, 0)
    assert PASSWORD not in msgspec.json.encode(measured).decode()


def test_a_worker_serves_one_job_after_another(started: list[subprocess.Popen[bytes]]) -> None:
    with Workers() as workers:
        for driver, endpoint, count in ((PSYCOPG, NOWHERE, 2), (DRIVERS[1], replace(NOWHERE, host="127.0.0.2"), 3)):
            measured = measure(driver, endpoint, clients=count, processes=2, workers=workers)
            assert measured.driver == driver.name
            assert measured.errors == {"OperationalError": 5 * count}
            assert endpoint.host in measured.examples[0]
        assert len(started) == 1
        assert not has_ended(started[0])


def test_an_idle_worker_that_has_ended_is_replaced(started: list[subprocess.Popen[bytes]]) -> None:
    with Workers() as workers:
        measure(PSYCOPG, NOWHERE, clients=2, processes=2, workers=workers)
        started[0].kill()
        started[0].wait()
        assert measure(PSYCOPG, NOWHERE, clients=2, processes=2, workers=workers).queries == 10
    assert len(started) == 2


def test_workers_at_the_same_time_are_different_ones_and_end_with_the_last_job(
    started: list[subprocess.Popen[bytes]],
) -> None:
    workers = Workers()
    with workers.taken() as one:
        with workers.taken() as other:
            assert other is not one
        with workers:
            one.is_idle = True
    assert all(has_ended(process) for process in started)


def test_the_output_of_an_earlier_job_is_not_that_of_a_later_one(
    started: list[subprocess.Popen[bytes]], script: Callable[[str], None]
) -> None:
    script(
        """
import sys
for said in ("the first job", "the second job"):
    input()
    print(said, file=sys.stderr)
    print("ready", flush=True)
    input()
    if said == "the second job":
        sys.exit(3)
    print("result[]", flush=True)
"""
    )
    with Workers() as workers:
        assert measure(PSYCOPG, NOWHERE, clients=2, processes=2, workers=workers).queries == 0
        with pytest.raises(WorkerFailedError, match="with status 3 without a result") as caught:
            measure(PSYCOPG, NOWHERE, clients=2, processes=2, workers=workers)
    assert len(started) == 1
    assert caught.value.detail == "the second job"


def test_a_loaded_worker_ends_when_stdin_is_closed() -> None:
    job = msgspec.json.encode(Job(driver="psycopg", endpoint=NOWHERE, shares=((0,), (1,)), queries=1))
    done = subprocess.run(
        [sys.executable, "-m", "harness.drivers.workload"],
        cwd=places.PACKAGE.parent,
        input=job + b"\n",
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"ready\n", b"")


@pytest.mark.parametrize("how", ["stdin is closed", "the worker is killed"])
def test_a_worker_and_its_processes_end_with_the_process_that_started_them(how: str, silent_server: Endpoint) -> None:
    job = Job(driver="psycopg", endpoint=silent_server, shares=((0,), (1,)), queries=1)
    with subprocess.Popen(
        [sys.executable, "-m", "harness.drivers.workload"],
        cwd=places.PACKAGE.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"ready\n"
            process.stdin.write(b"60\n")
            process.stdin.flush()

            def forked() -> list[int]:
                if len(children := descendants(process.pid)) < len(job.shares):
                    raise NotYet(f"{len(children)} processes")
                return children

            children = poll(forked, what="a process for each share", deadline_s=20)
            if how == "the worker is killed":
                process.kill()
            process.stdin.close()
            assert process.wait(timeout=20) == (1 if how == "stdin is closed" else -9)

            def gone() -> None:
                if left := [pid for pid in children if process_started(pid) is not None]:
                    raise NotYet(f"{left} are running")

            poll(gone, what="the end of the forked processes", deadline_s=20)
        finally:
            process.kill()


def test_the_errors_are_errors_for_users() -> None:
    assert issubclass(NotInstalledError, HarnessError)
    assert issubclass(WorkerFailedError, HarnessError)
