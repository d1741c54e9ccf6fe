"""The cases about workers: one that is killed while it downloads a file, one that gets SIGTERM, and two at a time.

No case decides anything: see :mod:`harness.suites.ingest.cases`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.judges.ingest_uploads import have_overlapped
from harness.checks.record import NotExercisedError
from harness.ingest.pipeline_file import Status
from harness.ingest.store_requests import Fault
from harness.suites.ingest.awaiting import LONGEST_LEASE_S, require_awaited_lease
from harness.suites.ingest.cases import BUSY_S, upload_all
from harness.suites.ingest.programs import WORKERS
from harness.suites.ingest.uploading import REQUEST_S

if TYPE_CHECKING:
    from harness.suites.ingest.running import IngestRun

_A, _B = WORKERS
#: uploads of two workers
_SHARED = 20
#: a download that is under way when its worker ends, seconds
_LONG_S = 4.0
#: a download that is longer than the lease: times the lease
_PAST_LEASE = 1.4


def _is_downloading(run: IngestRun) -> bool:
    """Wait until a download is under way, and return whether one is in time."""
    return run.wait(
        lambda: any(request.ending == "open" for request in run.downloads()), "a download", run.patience_s + REQUEST_S
    )


def killed_worker(run: IngestRun) -> None:
    """A worker is killed while it downloads a file; another one has to take it over after the lease."""
    require_awaited_lease(run)
    run.use_prepared_database()
    run.start(_A)
    run.store.proxy.fail(Fault("slow", "GET", side="internal", delay_s=_LONG_S))
    uploads = [run.upload(), run.upload()]
    if not _is_downloading(run):
        if any(upload.error for upload in uploads):
            return
        raise NotExercisedError("no download was under way, so no worker could be killed during one")
    run.program(_A).kill()
    if any(run.look()[one.id].status is Status.INDEXED for one in uploads if one.id in run.rows):
        raise NotExercisedError("an upload was indexed before its worker was killed")
    run.healed_s = run.seconds
    run.store.proxy.heal()
    run.start_worker(_B)
    run.wait_until(Status.INDEXED)


def stops(run: IngestRun) -> None:
    """A worker gets SIGTERM while it downloads a file, and another one goes on; then all programs get it."""
    run.use_prepared_database()
    run.start(_A)
    run.store.proxy.fail(Fault("slow", "GET", side="internal", delay_s=_LONG_S / 2))
    upload = run.upload()
    if not upload.error and not _is_downloading(run):
        raise NotExercisedError("no download was under way, so no worker could be ended during one")
    run.stop(_A)
    run.store.proxy.heal()
    run.start_worker(_B)
    is_indexed = run.wait_until(Status.INDEXED)
    run.end_programs()
    if not is_indexed:
        require_awaited_lease(run)


def two_workers(run: IngestRun) -> None:
    """Two workers and more files than one of them claims at a time; one download takes longer than the lease."""
    run.use_prepared_database()
    run.start(_A, _B)
    lease_s = run.settings.lease_s
    first = run.presign(run.plan())
    if 0 < lease_s <= LONGEST_LEASE_S:
        # once: a client that gives up earlier gets the file at its next attempt
        delay_s = lease_s * _PAST_LEASE
        run.store.proxy.fail(Fault("slow", "GET", first.key, first=1, side="internal", delay_s=delay_s))
    run.store.proxy.fail(Fault("slow", "GET", side="internal", delay_s=BUSY_S))
    run.put(first)
    upload_all(run, [run.plan() for _ in range(_SHARED - 1)])
    if not run.wait_until(Status.INDEXED):
        return
    if "worker" in run.columns:
        if len(run.worker_names) < len(WORKERS):
            raise NotExercisedError("one worker did everything, so two of them never met")
    elif not have_overlapped(run.downloads()):
        raise NotExercisedError("no two downloads overlapped, so nothing shows that two workers met")
    run.require_awaited(lease_s, "a download that is longer than the lease", LONGEST_LEASE_S)
