"""The cases of the suite: the situations that a pipeline is brought into, and how long its answer is awaited.

No case decides anything: it creates the situation, and :mod:`harness.checks.judges.ingest` compares what is left. A
situation that did not come about is Not run.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.checks.judges.ingest import FEWEST_RETRIED
from harness.checks.judges.ingest_state import IngestState
from harness.checks.judges.ingest_uploads import Ingested, jitter_of, percentile
from harness.checks.record import NotExercisedError
from harness.database import connect
from harness.ingest.pipeline_file import Status
from harness.ingest.store_requests import Fault, Kind
from harness.suites.ingest.awaiting import require_awaited_lease, require_retries
from harness.suites.ingest.outage import database_down
from harness.suites.ingest.programs import WORKERS
from harness.suites.ingest.running import STARTS_S
from harness.suites.ingest.uploading import REQUEST_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.judges.ingest_state import Upload
    from harness.suites.ingest.running import IngestRun

_A, _B = WORKERS
#: uploads of the case of latency, and those before PostgreSQL restarts
_MEASURED, _EARLY = 20, 10
_RUNS = 3
#: uploads whose downloads always fail: many, because jitter is random
_RETRIED = 24
#: clients that upload at the same time
_CLIENTS = 6
#: a late upload is not later than this, seconds
_LATEST_S = 30.0
#: how much longer than its own retries a pipeline waits for a late upload, seconds
_LATER_S = 3.0
#: a download that keeps workers busy, seconds
BUSY_S = 0.3
_FAILED_TWICE = 2
#: a download that ends after PostgreSQL has gone down, seconds
_THROUGH_S = 2.0
#: how long PostgreSQL is down, seconds
_OUTAGE_S = 1.5
#: the kinds of failures that end
_TRANSIENT: tuple[Kind, ...] = ("unavailable", "cut", "partial", "down")


def upload_all(run: IngestRun, uploads: Iterable[Upload]) -> list[Upload]:
    """Ask for all addresses and upload all files, several at a time."""
    with ThreadPoolExecutor(_CLIENTS) as pool:
        return list(pool.map(lambda upload: run.put(run.presign(upload)), list(uploads)))


def end_to_end(run: IngestRun) -> None:
    """A deployment from nothing: migrations through the chain, then API and worker, then a sample."""
    began = time.monotonic()
    run.use_own_database()
    run.start(_A)
    run.upload()
    run.wait_until(Status.INDEXED)
    run.total_s = time.monotonic() - began
    if _so_far(run).is_too_late:
        run.require_a_responsive_machine()


def latency(run: IngestRun) -> None:
    """One upload after the other, each awaited. Between them the harness does the same without the pipeline."""
    run.use_prepared_database()
    run.start(_A)
    run.upload()
    if not run.wait_until(Status.INDEXED):
        return
    floor = []
    for _ in range(_MEASURED):
        floor.append(_round_trip_s(run))
        if not run.wait_until(Status.INDEXED, [run.upload()]):
            break
    run.floor_s = percentile(floor, 95)
    if _so_far(run).is_late:
        run.require_a_responsive_machine()


def _round_trip_s(run: IngestRun) -> float:
    """Return how long store and database alone take, seconds. No connection of the pipeline's pool is held meanwhile."""
    with connect(run.ctx.lab.chain(run.database), application_name="pooler-harness floor") as client:
        began = time.monotonic()
        run.store.round_trip()
        client.value("SELECT 1")
        return time.monotonic() - began


def three_runs(run: IngestRun) -> None:
    """The same three times, each with a database and programs of its own."""
    for _ in range(_RUNS):
        run.use_prepared_database()
        run.start(_A)
        run.upload()
        run.upload()
        if not run.wait_until(Status.INDEXED):
            return
        run.look()


def retries(run: IngestRun) -> None:
    """All downloads fail. The journal of the store shows how often and when each one is tried."""
    run.use_prepared_database()
    run.start(_A)
    run.store.proxy.fail(Fault("unavailable", "GET", side="internal"))
    # one after the other: uploads that wait for each other would have other delays
    uploads = [run.upload(end="any") for _ in range(_RETRIED)]
    _await_attempts(run, [upload for upload in uploads if upload.stored_s is not None])
    found = _so_far(run)
    if run.settings.attempts == 1 or any(len(found.attempts(one)) > found.cap for one in found.stored):
        return
    compared = [gaps for one in found.stored if len(gaps := found.gaps(one)) == found.cap - 1]
    if len(compared) < FEWEST_RETRIED:
        raise NotExercisedError(f"only {len(compared)} uploads were tried until the cap, so their delays show nothing")
    run.require_a_responsive_machine()
    if found.promises_growth and not found.shows_growth:
        raise NotExercisedError("the delays grow by less than a poll, so growth can neither be shown nor excluded")
    if jitter_of(found, compared) is None:
        raise NotExercisedError("the delays differ by less than a poll, so jitter can neither be shown nor excluded")


def _await_attempts(run: IngestRun, uploads: list[Upload]) -> None:
    """Wait until the downloads of uploads end: at the cap and some time after it, or after a quiet time."""
    quiet_s = run.settings.longest_delay_s + 3 * run.settings.poll_s + _LATER_S
    seen, changed = -1, time.monotonic()

    def ended() -> bool:
        nonlocal seen, changed
        attempts = len(run.downloads(*uploads))
        if attempts != seen:
            seen, changed = attempts, time.monotonic()
        done = all(run.status(upload) is Status.FAILED for upload in uploads)
        return time.monotonic() - changed > (quiet_s if seen and (done or seen >= len(uploads)) else 2 * quiet_s)

    run.wait(ended, "the last retry", 60.0)


def _so_far(run: IngestRun) -> Ingested:
    return Ingested(
        IngestState(
            case=run.case,
            settings=run.settings,
            uploads=tuple(run.uploads.values()),
            rows=run.rows,
            requests=run.requests(),
            total_s=run.total_s,
            floor_s=run.floor_s,
        )
    )


def store_fails(run: IngestRun) -> None:
    """The first downloads of each file fail, each in another way, and later ones do not."""
    times = min(_FAILED_TWICE, run.settings.attempts - 1)
    require_retries(run, times)
    run.use_prepared_database()
    run.start(_A)
    uploads = [run.presign(run.plan()) for _ in _TRANSIENT]
    for kind, upload in zip(_TRANSIENT, uploads, strict=True):
        run.store.proxy.fail(Fault(kind, "GET", upload.key, first=times, side="internal"))
    uploads = [run.put(upload) for upload in uploads]
    run.wait_until(Status.INDEXED, deadline_s=run.retries_s(times) + run.patience_s + STARTS_S)
    if not any(request.fault for request in run.downloads()) and not any(upload.error for upload in uploads):
        raise NotExercisedError("no download met a failure of the store")


def database_fails(run: IngestRun) -> None:
    """PostgreSQL restarts while files are being downloaded; then further files are uploaded."""
    run.use_prepared_database()
    run.start(_A, _B)
    run.store.proxy.fail(Fault("slow", "GET", side="internal", delay_s=BUSY_S))
    early = upload_all(run, [run.plan() for _ in range(_EARLY)])
    run.wait(lambda: any(run.status(one) is Status.INDEXED for one in early), "an indexed upload", run.patience_s * 2)
    # some of it is done; what follows is under way when the database fails, or the outage meets nothing
    run.store.proxy.heal()
    run.store.proxy.fail(Fault("slow", "GET", side="internal", delay_s=_THROUGH_S))
    since = run.seconds
    upload_all(run, [run.plan() for _ in range(_CLIENTS)])

    def under_way() -> bool:
        return any(request.ending == "open" and request.at > since for request in run.downloads())

    if not run.wait(under_way, "a download", run.patience_s * 2 + REQUEST_S):
        raise NotExercisedError("no download was under way, so the database could not fail during one")
    with database_down(run.ctx):
        # the workers look for uploads meanwhile, and finish downloads
        run.wait(lambda: False, "the outage", _OUTAGE_S)
    run.store.proxy.heal()
    _await_an_address(run)
    upload_all(run, [run.plan() for _ in range(3)])
    if not run.wait_until(Status.INDEXED):
        require_awaited_lease(run)


def _await_an_address(run: IngestRun) -> None:
    """Wait until the API gives addresses again; the last upload shows it, and is one of those that have to be indexed."""

    def given() -> bool:
        asked = run.presign(run.plan(end="any"))
        if asked.error:
            return False
        run.put(run.expect(asked, "indexed"))
        return True

    run.wait(given, "an address after the outage", run.patience_s)


def permanent_failure(run: IngestRun) -> None:
    """Two files can never be downloaded; a third one next to them can."""
    run.require_awaited(run.failed_s + run.next_s, "a permanent failure")
    run.use_prepared_database()
    run.start(_A)
    failing = [run.presign(run.plan(end="failed")) for _ in range(2)]
    for upload in failing:
        run.store.proxy.fail(Fault("unavailable", "GET", upload.key, side="internal"))
    failing = [run.put(upload) for upload in failing]
    healthy = run.upload()
    run.wait_until(Status.INDEXED, [healthy])
    run.wait_until(Status.FAILED, failing, deadline_s=run.failed_s + run.patience_s)
    _await_attempts(run, [upload for upload in failing if upload.stored_s is not None])


def late_upload(run: IngestRun) -> None:
    """A client gets its address, and uploads the file only after every retry would have ended."""
    settings = run.settings
    wait_s = run.failed_s + settings.poll_s + _LATER_S
    run.require_awaited(wait_s, "every retry before a late upload", _LATEST_S)
    if wait_s + REQUEST_S > settings.url_valid_s:
        raise NotExercisedError(
            f"an address is valid for {settings.url_valid_s:g} s, which is too short for a late upload"
        )
    run.use_prepared_database()
    run.start(_A)
    upload = run.presign(run.plan())
    if not upload.error:
        until = time.monotonic() + wait_s
        run.wait(
            lambda: time.monotonic() > until or run.status(upload) is Status.FAILED, "a late upload", wait_s + REQUEST_S
        )
        run.put(upload)
    run.wait_until(Status.INDEXED)


def duplicates(run: IngestRun) -> None:
    """The same file twice at the same time, from the same project, under two workers."""
    run.use_prepared_database()
    run.start(_A, _B)
    contents = b"the same text in two files\n"
    upload_all(run, [run.plan(contents, filename=f"copy-{number}.txt") for number in (1, 2)])
    run.wait_until(Status.INDEXED)


def other_metadata(run: IngestRun) -> None:
    """Files with the same bytes from two projects and of two kinds, one after the other, and one with bytes of its own.

    A pipeline that reuses what it knows about a checksum may give one project what it extracted for another one.
    """
    run.use_prepared_database()
    run.require_columns("project")
    run.start(_A)
    contents, kind = b"a text that project A has sent first\n", "application/octet-stream"
    first = run.upload(contents, project="project-a", filename="a.txt")
    if not run.wait_until(Status.INDEXED, [first]):
        return
    run.upload(contents, project="project-b", filename="b.bin", content_type=kind)
    run.upload(b"other bytes of project B\n", project="project-b", filename="own.bin", content_type=kind)
    run.wait_until(Status.INDEXED)


def corrupt_download(run: IngestRun) -> None:
    """One byte of the first download is another one; the ETag of the object shows it."""
    require_retries(run, 1)
    run.use_prepared_database()
    run.require_columns("checksum")
    run.start(_A)
    upload = run.presign(run.plan())
    run.store.proxy.fail(Fault("corrupt", "GET", upload.key, first=1, side="internal"))
    run.put(upload)
    run.wait_until(Status.INDEXED)
    if not run.uploads[upload.number].error and not any(request.fault for request in run.downloads(upload)):
        raise NotExercisedError("no download was corrupt")
