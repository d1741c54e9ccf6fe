"""Waits of the cases, and how long they have to be by the settings of a pipeline."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.errors import TimedOutError
from harness.ingest.pipeline_file import Status
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.judges.ingest_state import Upload
    from harness.suites.ingest.running import IngestRun

#: one answer of a probe, seconds
PROBE_S = 5.0
#: until a line or a counter is there that follows an upload, seconds
FOLLOWS_S = 8.0
#: how far apart the clocks of this machine's programs are, seconds
CLOCKS_S = 2.0
#: a longer lease is not awaited, seconds
LONGEST_LEASE_S = 15.0


def require_indexed(run: IngestRun, upload: Upload) -> Upload:
    """Wait until an upload is indexed, and return it.

    :raises NotExercisedError: when it is not: other cases say why.
    """
    # an upload whose file the store does not have is not awaited
    if upload.stored_s is None or not run.wait_until(Status.INDEXED, [upload]):
        raise NotExercisedError(f"the upload was not indexed, so the case shows nothing{because(upload)}")
    return run.uploads[upload.number]


def because(upload: Upload) -> str:
    return f": {upload.error}" if upload.error else ""


def require_awaited_lease(run: IngestRun) -> None:
    """Require that the lease of a worker that is gone ends while the harness waits: it may return what is missing."""
    lease_s = run.settings.lease_s
    run.require_awaited(lease_s, "the lease", LONGEST_LEASE_S)
    run.require_awaited(lease_s + run.retries_s(1) + run.next_s, "an upload after the end of its lease")


def require_retries(run: IngestRun, times: int) -> None:
    """Require that the pipeline tries again after so many failed downloads, while the harness waits.

    :raises NotApplicableError: when it promises a single attempt.
    """
    if run.settings.attempts == 1:
        raise NotApplicableError("the pipeline promises a single attempt, so a failed download is not tried again")
    run.require_awaited(run.retries_s(times) + run.next_s, "the retries of a download")


def wait_for(run: IngestRun, seen: Callable[[], bool], what: str, deadline_s: float) -> bool:
    """Wait until a condition holds that needs no row of the pipeline, and return whether it does in time."""

    def look() -> None:
        run.ctx.require_undisturbed()
        if not seen():
            raise NotYet(what)

    with contextlib.suppress(TimedOutError):
        poll(look, what=what, deadline_s=deadline_s, interval_s=0.05)
        return True
    return False
