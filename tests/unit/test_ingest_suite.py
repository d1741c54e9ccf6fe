"""The parts of the suite `ingest` that need no server: its cases, its controls, and what it keeps."""

from __future__ import annotations

import contextlib
import re
import socket
from threading import Event, Thread
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from harness import places
from harness.checks.judges import ingest as judged
from harness.checks.judges import ingest_service
from harness.checks.judges.ingest_state import ProgramExit
from harness.checks.judges.ingest_uploads import Ingested
from harness.checks.judges.ingest_words import SHORT
from harness.checks.record import NotExercisedError
from harness.checks.registry import Check, Control
from harness.ingest.cases import IngestCase
from harness.ingest.loading import REFERENCE, find
from harness.ingest.pipeline_file import Status
from harness.job_engines.workers import Supervisor, WorkerExit
from harness.suites.ingest.asking import ask
from harness.suites.ingest.awaiting import require_indexed
from harness.suites.ingest.conclusion import late_file, measured, unnamed_state
from harness.suites.ingest.programs import Programs
from harness.suites.ingest.rows import CASES, ingest_checks
from harness.suites.ingest.running import IngestRun
from tests.tables import each_row
from tests.unit.ingested import expectations_of, retried, row, state, upload

#: breaks that no control makes, because only a program could; the judge has a mutation for each
_BY_THE_JUDGE = {judged.REFUSED, judged.LOOPS, judged.EXITS}


def _declared() -> tuple[list[Check], list[Control]]:
    found = list(ingest_checks(find(REFERENCE)))
    return [one for one in found if isinstance(one, Check)], [one for one in found if isinstance(one, Control)]


def test_each_case_of_the_judge_is_a_check_with_a_control() -> None:
    checks, controls = _declared()
    assert {row.case for row in CASES} >= set(judged._CASES)
    assert {control.check for control in controls} == {check.id for check in checks}
    assert len({(control.check, control.name) for control in controls}) == len(controls)


def test_each_expectation_is_broken_by_a_control_or_by_a_mutation_of_the_judge() -> None:
    _, controls = _declared()
    assert {control.at for control in controls} >= expectations_of(judged) - _BY_THE_JUDGE


def test_each_expectation_has_words_for_the_table() -> None:
    assert set(SHORT) == expectations_of(judged) | expectations_of(ingest_service)


@each_row("case", IngestCase)
def test_each_case_says_what_was_measured(case: IngestCase) -> None:
    said = measured(Ingested(state(case)))
    assert said
    assert "  " not in said


def test_delays_are_shown_only_up_to_the_cap() -> None:
    one = upload(1, end="any")
    within = state(IngestCase.RETRIES, one, requests=retried(one, 0.2, 0.4, 0.8))
    beyond = state(IngestCase.RETRIES, one, requests=retried(one, *[0.1] * 8))
    assert measured(Ingested(within)) == (
        "1 upload, 4 downloads each, cap 4; delays 0.20 to 0.20 s, 0.40 to 0.40 s, 0.80 to 0.80 s"
    )
    assert measured(Ingested(beyond)) == "1 upload, 9 downloads each, cap 4"


def test_the_document_has_each_check_with_its_priority() -> None:
    text = (places.SHIPPED / "docs" / "ingest.md").read_text()
    rows = re.findall(r"^\| `(ingest\.[a-z-]+)` \| ((?:D\d\d(?:, )?)+|-) \| (P[0-3]) \|", text, re.MULTILINE)
    assert {(check, severity) for check, _, severity in rows} == {
        (f"ingest.{row.case}", str(row.severity)) for row in CASES
    }
    # of the properties of a pipeline as it runs, each has a check
    numbers = {number for _, listed, _ in rows for number in re.findall(r"\d\d", listed)}
    assert {f"{number:02}" for number in (1, 2, 4, *range(9, 23), 25, 26, 31, 32)} == numbers


def test_an_exit_counts_once_however_often_programs_end() -> None:
    exited = WorkerExit(worker="A", exit_code=1, seconds=1.0, ran_s=1.0)
    programs = object.__new__(Programs)
    programs._programs, programs._earlier_exits, programs._earlier_given_up = {}, [exited], set()
    programs._earlier_output = {}
    programs.ignored_sigterm = set()
    for _ in range(3):
        programs._supervisor = Supervisor()
        programs.end_programs()
    assert programs.exits == [ProgramExit(program="A", code=1, seconds=1.0)]


@pytest.mark.parametrize(
    ("started", "given_up", "lost"),
    [
        (set(), set(), False),
        ({"api"}, {"api"}, False),
        ({"api", "A"}, {"A"}, True),
        ({"api", "A", "B"}, {"A"}, False),
        ({"api", "A", "B"}, {"A", "B"}, True),
        # another run of the same check
        ({"api", "A"}, {"B"}, False),
    ],
)
def test_workers_are_lost_once_all_that_were_started_are_given_up(
    started: set[str], given_up: set[str], lost: bool
) -> None:
    programs = object.__new__(Programs)
    programs._supervisor, programs._started, programs._earlier_given_up = None, started, given_up
    assert programs.has_lost_its_workers is lost


def test_an_upload_that_was_refused_is_not_indexed() -> None:
    refused = replace(upload(1), stored_s=None, error="the API answered 200, expected 201")
    with pytest.raises(NotExercisedError, match="the API answered 200, expected 201"):
        require_indexed(object.__new__(IngestRun), refused)


def test_an_answer_that_never_ends_has_a_deadline_of_its_own() -> None:
    """Each piece arrives in time, so no timeout of a socket ends it."""
    ended = Event()

    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as client:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n")
            while not ended.wait(0.02):
                client.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Thread(target=drip, args=(listener,), daemon=True)
        server.start()
        reply = ask("PUT", f"http://127.0.0.1:{listener.getsockname()[1]}/key", body=b"x", deadline_s=0.3)
        ended.set()
        server.join()
    assert (reply.status, reply.failure) == (0, "no complete response within 0.3 s")


@each_row(
    ("url", "failure"),
    [
        ("s3://bucket/key", "not an HTTP address"),
        ("http://[::1/key", "not an HTTP address"),
        ("http://[::1:99999/key", "not an HTTP address"),
        ("http://host:99999/key", "not an HTTP address"),
        ("http://a host/key", "not an HTTP address"),
        ("http://host\0/key", "not an HTTP address"),
        ("http:///key", "not an HTTP address"),
        ("", "not an HTTP address"),
        ("http://127.0.0.1:1/key", "unreachable: ConnectionRefusedError"),
    ],
)
def test_a_request_to_nowhere_has_not_arrived(url: str, failure: str) -> None:
    reply = ask("PUT", url, body=b"", deadline_s=5)
    assert (reply.status, str(reply), reply.arrived, reply.succeeded) == (0, failure, False, False)


@pytest.mark.parametrize(
    ("stored_s", "attempts", "case", "status", "is_late"),
    [
        (9.0, 4, IngestCase.TWO_WORKERS, Status.FAILED, True),
        (1.2, 4, IngestCase.TWO_WORKERS, Status.FAILED, False),
        (9.0, 1, IngestCase.TWO_WORKERS, Status.FAILED, True),
        # a pipeline that gives a client no time at all
        (1.2, 1, IngestCase.TWO_WORKERS, Status.FAILED, False),
        (9.0, 4, IngestCase.TWO_WORKERS, Status.PROCESSING, False),
        (9.0, 4, IngestCase.LATE_UPLOAD, Status.FAILED, False),
    ],
)
def test_a_file_that_a_slow_harness_stores_late_is_no_finding(
    stored_s: float, attempts: int, case: IngestCase, status: Status, is_late: bool
) -> None:
    sent = replace(upload(1), presigned_s=1.0, stored_s=stored_s)
    settings = replace(find(REFERENCE).file.settings, attempts=attempts)
    run = SimpleNamespace(uploads={1: sent}, case=case, settings=settings, status=lambda _: status)
    assert bool(late_file(cast("IngestRun", run))) is is_late


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("done", "an upload is in the state 'done', which is in no list of [statuses]; name it there"),
        ("processing", ""),
    ],
)
def test_a_state_that_the_description_does_not_name_is_no_verdict_about_the_pipeline(word: str, reason: str) -> None:
    sent = upload(1)
    found = replace(row(sent, Status.PENDING), word=word)
    run = SimpleNamespace(uploads={1: sent}, look=lambda: {sent.id: found}, pipeline=find(REFERENCE))
    assert unnamed_state(cast("IngestRun", run)) == reason
