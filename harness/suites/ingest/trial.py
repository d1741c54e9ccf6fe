"""A trial of a pipeline: one upload, shown step by step. It is not evidence: the checks of the suite are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from harness.checks.judges.ingest import judge_expectations
from harness.checks.record import NotExercisedError
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Status
from harness.suites.ingest.conclusion import disturbances, final_state, undecided, unnamed_state
from harness.suites.ingest.programs import API, WORKERS
from harness.suites.ingest.running import STARTS_S, IngestRun

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.judges.ingest_state import Upload
    from harness.ingest.loading import LoadedPipeline

_A = WORKERS[0]
#: gets the name of a step, and what was seen
Show = Callable[[str, str], None]


class Trial(Struct, frozen=True, kw_only=True):
    """The end of a trial."""

    #: seconds from the confirmation of the store until the upload was seen as indexed; None if it was not
    indexed_s: float | None = None
    #: one sentence for each thing that is wrong
    wrong: tuple[str, ...] = ()
    #: the last lines of each program that printed some
    output: dict[str, str] = {}


def try_pipeline(ctx: CheckContext, pipeline: LoadedPipeline, show: Show) -> Trial:
    """Migrate an empty database, start API and worker, upload a file, and return what is wrong.

    :param show: called with each step.
    :raises NotExercisedError: when the run is interrupted, or packages or the store are missing.
    """
    with IngestRun(ctx, pipeline, IngestCase.END_TO_END) as run:
        return _Follow(run, show).through()


class _Follow:
    """Follows one upload."""

    def __init__(self, run: IngestRun, show: Show) -> None:
        self._run = run
        self._show = show
        self._shown_requests = 0
        self._word = ""

    def through(self) -> Trial:
        run = self._run
        wrong: list[str] = []
        try:
            self._until_indexed()
            run.require_loadable()
            run.require_found()
            wrong += filter(None, (unnamed_state(run),))
        except NotExercisedError as error:
            run.ctx.require_undisturbed()
            wrong += filter(None, (str(error), disturbances(run.requests())))
        if not wrong:
            state = final_state(run)
            expectations = judge_expectations(state)
            wrong += [
                f"{one.name}: expected {one.expected}, observed {one.observed}" for one in expectations if one.broken
            ]
            wrong += filter(None, (undecided(state),))
        run.end_programs()
        upload = next(iter(run.uploads.values()), None)
        indexed_s = upload.indexed_s if upload else None
        return Trial(
            indexed_s=max(0.0, indexed_s - upload.stored_s) if indexed_s and upload and upload.stored_s else None,
            wrong=tuple(wrong),
            output={name: "\n".join(lines) for name in (API, _A) if (lines := run.printed.get(name))},
        )

    def _until_indexed(self) -> None:
        run, file = self._run, self._run.pipeline.file
        began = time.monotonic()
        run.use_own_database()
        failed = f"through the chain it failed, directly it did not: {run.not_migrated}" if run.not_migrated else "done"
        self._show("migrate", f"{failed} after {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        run.start(_A)
        ready = f"GET {file.health}: {run.get(file.health).status}" if file.health else "its port is open"
        self._show("start", f"the API is ready after {time.monotonic() - began:.1f} s ({ready})")
        upload = run.presign(run.plan())
        self._show("presign", _presigned(file.presign.path, upload, run))
        upload = run.put(upload)
        if upload.stored_s is None:
            return
        self._show("upload", f"PUT {urlsplit(run.url(upload)).netloc}: {upload.size} bytes are stored")
        run.wait(lambda: self._look(upload) is Status.INDEXED, "an indexed upload", run.patience_s + STARTS_S)

    def _look(self, upload: Upload) -> Status | None:
        run = self._run
        since = f"+{run.seconds - (upload.stored_s or 0.0):.2f} s"
        requests = [one for one in run.requests() if one.side == "internal" and one.ending != "open"]
        for request in requests[self._shown_requests :]:
            named = f"{request.method} {request.key or request.bucket}"
            refused = f"; the harness refused it: it {request.refused}" if request.refused else ""
            self._show("store", f"{since}  {named}: {request.status or request.ending}, {request.sent} bytes{refused}")
        self._shown_requests = len(requests)
        row = run.rows.get(upload.id)
        if row and row.word != self._word:
            self._word = row.word
            self._show("row", f"{since}  {row.word!r}, which is {row.status}")
        return row.status if row else None


def _presigned(path: str, upload: Upload, run: IngestRun) -> str:
    answer = run.answers[upload.number]
    method = run.pipeline.file.presign.method
    return f"{method} {path}: {upload.error or f'{answer.status}, id {upload.id}, key {upload.key}'}"
