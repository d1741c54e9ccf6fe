"""Controls of the suite: each lets a pipeline, the store, or what the harness reads, be as a broken pipeline leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.judges import ingest as judged
from harness.checks.judges.ingest_state import IngestState
from harness.checks.judges.ingest_uploads import Ingested
from harness.checks.registry import Control
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Status
from harness.suites.ingest.running import IngestRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check
    from harness.ingest.store_requests import StoreRequest

#: begins the command of a program: its shell goes on after SIGTERM, and after the program
_DEAF = ("/bin/sh", "-c", 'trap "" TERM; "$@"; while :; do sleep 1; done', "deaf")


class Break(Struct, frozen=True, kw_only=True):
    """One row of the table: what a broken pipeline would do or leave."""

    name: str
    #: the expectation that must not hold
    at: str
    environment: dict[str, str] = {}
    wrap: tuple[str, ...] = ()
    at_end: Callable[[IngestRun], None] | None = None
    state: Callable[[IngestState], IngestState] | None = None


# --- what the harness reads --------------------------------------------------------------------------------


def _rows(**changes: object) -> Callable[[IngestState], IngestState]:
    """Return a function that changes the row of the last upload."""

    def change(state: IngestState) -> IngestState:
        last = state.uploads[-1].id
        rows = {name: replace(row, **changes) if name == last else row for name, row in state.rows.items()}
        return replace(state, rows=rows)

    return change


def _without_last_row(state: IngestState) -> IngestState:
    last = state.uploads[-1].id
    return replace(state, rows={name: row for name, row in state.rows.items() if name != last})


def _failed_before(state: IngestState) -> IngestState:
    """Let the first upload have been failed for a moment."""
    first = replace(state.uploads[0], seen=(Status.FAILED, *state.uploads[0].seen))
    return replace(state, uploads=(first, *state.uploads[1:]))


def _later(seconds: float) -> Callable[[IngestState], IngestState]:
    """Return a function that lets every upload be indexed later."""

    def change(state: IngestState) -> IngestState:
        uploads = (
            replace(one, indexed_s=one.indexed_s + seconds) if one.indexed_s is not None else one
            for one in state.uploads
        )
        return replace(state, uploads=tuple(uploads), total_s=state.total_s + seconds, pause_s=0.0)

    return change


def _retries_at(delays: Callable[[IngestState, int, int], float]) -> Callable[[IngestState], IngestState]:
    """Return a function that gives the downloads of each upload other delays.

    :param delays: gets the number of the upload and of the failed download, and returns the delay after it, seconds.
    """

    def change(state: IngestState) -> IngestState:
        moved: list[StoreRequest] = []
        found = Ingested(state)
        for upload in state.uploads:
            at = 0.0
            for number, request in enumerate(found.attempts(upload)):
                at = request.at if number == 0 else at + delays(state, upload.number, number - 1)
                moved.append(replace(request, at=at, seconds=0.0))
        return replace(state, requests=tuple(moved), pause_s=0.0)

    return change


def _doubling(state: IngestState, _upload: int, number: int) -> float:
    return state.settings.nominal_s(number)


def _constant(state: IngestState, upload: int, _number: int) -> float:
    return state.settings.shortest_delay_s * (1 + upload % 4)


def _endless(state: IngestState, upload: int, number: int) -> float:
    return 1000.0 * (number + 1) + upload * state.settings.poll_s


def _downloaded_again(state: IngestState) -> IngestState:
    """Let each complete download have happened twice."""
    again = tuple(request for request in state.requests if request.is_download)
    return replace(state, requests=(*state.requests, *again))


def _tried_once(state: IngestState) -> IngestState:
    """Forget all downloads of an upload but the first one."""
    found = Ingested(state)
    later = {id(request) for upload in state.uploads for request in found.attempts(upload)[1:]}
    return replace(state, requests=tuple(one for one in state.requests if id(one) not in later))


def _tried_more_often(state: IngestState) -> IngestState:
    """Let each download have been tried as often as the cap, once more."""
    found = Ingested(state)
    more = (request for upload in state.uploads for request in found.attempts(upload)[:1] * state.settings.attempts)
    return replace(state, requests=(*state.requests, *more))


def _leaks(state: IngestState) -> IngestState:
    """Give the text of the first upload to all uploads with the same bytes."""
    first = state.uploads[0]
    same = {upload.id for upload in state.uploads if upload.sha256 == first.sha256}
    rows = {name: replace(row, text="a text") if name in same else row for name, row in state.rows.items()}
    return replace(state, rows=rows, columns=(*state.columns, "text"))


# --- what a pipeline does ----------------------------------------------------------------------------------


def _remove_upload(run: IngestRun) -> None:
    for upload in run.uploads.values():
        if upload.stored_s is not None:
            run.store.remove(upload.key)


def _remove_others(run: IngestRun) -> None:
    run.store.remove(run.store.other_key)


def _write_outside(run: IngestRun) -> None:
    run.store.write_inside_proxy("outside-of-the-prefix.txt")


_INDEXED = Break(
    name="an-upload-stays-pending", at=judged.NOT_INDEXED, state=_rows(status=Status.PENDING, word="uploaded")
)
_OTHER_CHECKSUM = Break(name="a-checksum-is-another", at=judged.CHECKSUM, state=_rows(checksum="0" * 64))
_FAILED_ONCE = Break(name="an-upload-was-failed-in-between", at=judged.FAILED, state=_failed_before)
_NOT_REPEATED = Break(name="no-download-is-repeated", at=judged.RETRIED, state=_tried_once)
_CAP = Break(name="downloads-exceed-the-cap", at=judged.ATTEMPTS, environment={"ATTEMPTS": "7"})
_BREAKS: dict[IngestCase, tuple[Break, ...]] = {
    IngestCase.END_TO_END: (
        _INDEXED,
        _OTHER_CHECKSUM,
        Break(name="an-upload-has-no-row", at=judged.LOST, state=_without_last_row),
        Break(name="the-time-of-indexing-is-missing", at=judged.INDEXED_AT, state=_rows(indexed_at=None)),
        Break(name="the-sample-is-indexed-late", at=judged.IN_TIME, state=_later(200.0)),
        Break(
            name="the-migration-fails",
            at=judged.MIGRATED,
            state=lambda state: replace(state, not_migrated="it printed nothing (exit code 1)"),
        ),
        Break(name="uploaded-files-are-removed", at=judged.OBJECTS, at_end=_remove_upload),
        Break(name="objects-of-others-are-removed", at=judged.OTHERS, at_end=_remove_others),
        Break(name="an-object-is-written-elsewhere", at=judged.OUTSIDE, at_end=_write_outside),
    ),
    IngestCase.LATENCY: (Break(name="uploads-are-indexed-late", at=judged.LATE, state=_later(60.0)),),
    IngestCase.THREE_RUNS: (_FAILED_ONCE, _INDEXED),
    IngestCase.RETRIES: (
        _CAP,
        Break(name="downloads-are-not-repeated", at=judged.RETRIED, environment={"ATTEMPTS": "1"}),
        Break(name="delays-stay-the-same", at=judged.GROWTH, state=_retries_at(_constant)),
        Break(name="delays-are-too-long", at=judged.LONGEST, state=_retries_at(_endless)),
        Break(name="delays-are-equal", at=judged.JITTER, state=_retries_at(_doubling)),
    ),
    IngestCase.STORE_FAILS: (
        Break(name="downloads-are-not-repeated", at=judged.NOT_INDEXED, environment={"ATTEMPTS": "1"}),
        _FAILED_ONCE,
        _NOT_REPEATED,
    ),
    IngestCase.DATABASE_FAILS: (
        _INDEXED,
        Break(name="an-upload-has-no-row", at=judged.LOST, state=_without_last_row),
    ),
    IngestCase.PERMANENT_FAILURE: (
        _CAP,
        Break(name="failing-uploads-are-tried-on-and-on", at=judged.NOT_FAILED, environment={"ATTEMPTS": "60"}),
        Break(name="an-upload-is-given-up-early", at=judged.FEWER, environment={"ATTEMPTS": "2"}),
        Break(
            name="a-healthy-upload-waits-behind-failing-ones",
            at=judged.HELD_UP,
            state=_rows(status=Status.PENDING, word="uploaded"),
        ),
    ),
    IngestCase.LATE_UPLOAD: (_FAILED_ONCE, _INDEXED),
    IngestCase.KILLED_WORKER: (Break(name="the-lease-does-not-end", at=judged.STUCK, environment={"LEASE_S": "3600"}),),
    IngestCase.DUPLICATES: (_INDEXED, _OTHER_CHECKSUM),
    IngestCase.OTHER_METADATA: (
        Break(name="metadata-are-those-of-another", at=judged.METADATA, state=_rows(project="project-a")),
        Break(name="text-goes-to-another-project", at=judged.LEAKED, state=_leaks),
    ),
    IngestCase.TWO_WORKERS: (Break(name="files-are-downloaded-twice", at=judged.TWICE, state=_downloaded_again),),
    IngestCase.CORRUPT_DOWNLOAD: (_OTHER_CHECKSUM, _NOT_REPEATED),
    IngestCase.STOPS: (Break(name="programs-ignore-sigterm", at=judged.IGNORED, wrap=_DEAF), _INDEXED),
}


def controls_of(check: Check, case: IngestCase) -> Iterator[Control]:
    """Yield the controls of one case."""
    for broken in _BREAKS.get(case, ()):
        yield Control(name=broken.name, check=check.id, at=broken.at, needs=(), apply=Applied(broken))


class Applied:
    """The function of a control that a row of the table describes."""

    def __init__(self, broken: Break) -> None:
        self._broken = broken

    def __call__(self, ctx: CheckContext) -> None:
        broken, pipeline = self._broken, ctx.pipeline
        pipeline.environment, pipeline.wrap = broken.environment, broken.wrap
        if broken.at_end:
            pipeline.at_end = broken.at_end
        if broken.state:
            pipeline.state = broken.state
