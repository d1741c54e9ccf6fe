"""Waits of the cases about a pipeline as a service."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
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


def require_indexed(run: IngestRun, upload: Upload) -> Upload:
    """Wait until an upload is indexed, and return it.

    :raises NotExercisedError: when it is not: other cases say why.
    """
    if not run.wait_until(Status.INDEXED, [upload]):
        raise NotExercisedError(f"the upload was not indexed, so the case shows nothing{because(upload)}")
    return run.uploads[upload.number]


def because(upload: Upload) -> str:
    return f": {upload.error}" if upload.error else ""


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
