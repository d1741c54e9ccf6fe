"""The judge of ingest pipelines: the results of uploads, by the pipeline's own tables and by the store's journal.

The history holds the uploads as operations, and the faults. The final state holds what was sent, the rows, and every
request that reached the store: only this journal shows downloads and attempts.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.judges import Judge, compared
from harness.checks.judges.ingest_service import OF_THE_SERVICE, judge_service
from harness.checks.judges.ingest_state import IngestState
from harness.checks.judges.ingest_uploads import Ingested, jitter_of, leaked, percentile
from harness.checks.pauses import MOST_RUNNABLE, TOO_SLOW_S
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from harness.checks.judges.ingest_state import ProgramExit, Upload
    from harness.model import Expectation
    from harness.model.history import History

#: names of expectations, which controls break
REFUSED = "uploads that the pipeline or the store refused"
LOST = "uploads without a row"
NOT_INDEXED = "uploads that are not indexed"
FAILED = "uploads that failed permanently and must not"
CHECKSUM = "indexed uploads with another checksum"
INDEXED_AT = "indexed uploads without a time"
MIGRATED = "migrated through the chain"
IN_TIME = "ready and indexed within two minutes"
LATE = "95 % of uploads indexed within the promised time"
ATTEMPTS = "uploads with more downloads than the cap"
FEWER = "uploads that failed before the cap of downloads"
RETRIED = "uploads that were not tried again"
GROWTH = "delays of retries grow"
LONGEST = "retries after the longest delay"
JITTER = "delays of retries differ between uploads"
NOT_FAILED = "uploads that always fail and are not failed"
HELD_UP = "uploads next to a failing one that are not indexed"
STUCK = "uploads of a killed worker that are not indexed"
TWICE = "uploads that were downloaded twice"
METADATA = "uploads with the metadata of another one"
LEAKED = "uploads with text of another project"
EXITS = "exits of programs"
LOOPS = "programs that exit again and again"
IGNORED = "programs that ignore SIGTERM"
OUTSIDE = "requests that write or remove outside of the prefix"
OTHERS = "objects of others that are gone or changed"
OBJECTS = "uploaded files that are gone or changed"
#: whatever the store answers: a pipeline that got a wrong answer, or none, does not have to break these
_OF_THE_PIPELINE = OF_THE_SERVICE | {CHECKSUM, INDEXED_AT, METADATA, LEAKED, OUTSIDE}
#: whatever the harness refuses, and however slow the machine is; a store that fails may lose objects
_OF_THE_STORE = frozenset({OTHERS, OBJECTS})
#: uploads whose retries are compared: fewer show nothing about growth and jitter
FEWEST_RETRIED = 6
#: the last delay of retries exceeds the first one by this factor, where the nominal one doubles
_GROWS = 1.15
#: of a retry after the longest delay, besides polls: the worker does something else first, seconds
_LATE_RETRY_S = 3.0
#: what follows from programs that exit again and again
_FOLLOWS = frozenset({NOT_INDEXED, NOT_FAILED, HELD_UP, STUCK, RETRIED, FEWER})
_LONGEST_CAUSE = 200


# --- what every case expects -----------------------------------------------------------------------------


def _safe(found: Ingested) -> Iterator[Expectation]:
    """Yield what holds in every case: checksums, and objects that nobody asked the pipeline to touch."""
    state = found.state
    if "checksum" in state.columns:
        wrong = sum((row.checksum or "").lower() != upload.sha256 for upload, row in found.indexed)
        yield compared(CHECKSUM, wrong, 0)
    if "indexed_at" in state.columns:
        yield compared(INDEXED_AT, sum(not row.indexed_at for _, row in found.indexed), 0)
    outside = {request.named for request in state.requests if request.changes_others}
    yield compared(OUTSIDE, len(outside), 0)
    yield compared(OTHERS, state.others_lost, 0)
    yield compared(OBJECTS, state.uploads_lost, 0)
    last = [one for one in state.exits if one.program in state.given_up][-1:]
    yield _counted(LOOPS, len(state.given_up), *map(_said, last))


def _counted(name: str, number: int, cause: str = "") -> Expectation:
    """Return an expectation of a number that has to be 0; another one is shown with its cause."""
    found = compared(name, number, 0)
    return replace(found, observed=f"{found.observed} ({cause})") if number and cause else found


def _unended(found: Ingested, name: str, uploads: Iterable[Upload]) -> Expectation:
    """Return an expectation of no such upload; the states of the others are the cause."""
    rows = [found.row(upload) for upload in uploads]
    states = sorted({row.word if row else "without a row" for row in rows})
    return _counted(name, len(rows), ", ".join(states))


def _over_cap(found: Ingested, counts: Collection[int]) -> Expectation:
    over = [count for count in counts if count > found.cap]
    return _counted(ATTEMPTS, len(over), f"up to {max(over)} downloads, and the cap is {found.cap}" if over else "")


def _said(exited: ProgramExit) -> str:
    """Return how a program exited, and the last that it printed."""
    code = "not started again" if exited.code is None else f"exit code {exited.code}"
    return f"{exited.program}, {code}: {exited.last[:_LONGEST_CAUSE] or 'it printed nothing'}"


def _accepted(found: Ingested) -> Iterator[Expectation]:
    errors = [upload.error for upload in found.state.uploads if upload.error]
    yield _counted(REFUSED, len(errors), *errors[:1])
    yield compared(LOST, sum(found.row(upload) is None for upload in found.stored), 0)


def _all_indexed(found: Ingested) -> Iterator[Expectation]:
    yield from _accepted(found)
    yield _unended(found, NOT_INDEXED, found.unindexed(found.ending("indexed")))


def _no_exit(found: Ingested) -> Iterator[Expectation]:
    yield _counted(EXITS, len(found.state.exits), *map(_said, found.state.exits[:1]))


def _no_false_failure(found: Ingested) -> Iterator[Expectation]:
    """No upload that ends well was failed permanently before."""
    yield compared(FAILED, sum(Status.FAILED in upload.seen for upload in found.ending("indexed")), 0)


# --- cases -----------------------------------------------------------------------------------------------


def _end_to_end(found: Ingested) -> Iterator[Expectation]:
    state = found.state
    if state.not_migrated is not None:
        yield compared(MIGRATED, state.not_migrated or "yes", "yes")
    yield from _all_indexed(found)
    is_indexed = len(found.indexed) == len(state.uploads)  # else no time was measured
    if is_indexed and (state.pause_s <= TOO_SLOW_S or not found.is_too_late):
        yield compared(IN_TIME, f"{state.total_s:.0f} s" if found.is_too_late else "yes", "yes")
    yield from _no_exit(found)


def _latency(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    if found.latencies and (not found.is_late or found.state.pause_s <= TOO_SLOW_S):
        yield compared(LATE, f"{percentile(found.latencies, 95):.2f} s" if found.is_late else "yes", "yes")
    yield from _no_exit(found)


def _runs(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    yield from _no_false_failure(found)
    yield from _no_exit(found)


def _retries(found: Ingested) -> Iterator[Expectation]:
    """Every download fails."""
    yield from _accepted(found)
    counts = [len(found.attempts(upload)) for upload in found.stored]
    yield _over_cap(found, counts)
    # a worker may not have come to an upload yet
    given_up = (
        upload for upload in found.stored if found.status(upload) is Status.FAILED and len(found.attempts(upload)) == 1
    )
    yield compared(RETRIED, 0 if found.cap == 1 else sum(1 for _ in given_up), 0)
    if max(counts, default=0) <= found.cap and found.state.pause_s <= TOO_SLOW_S:
        yield from _delays(found)


def _delays(found: Ingested) -> Iterator[Expectation]:
    settings = found.state.settings
    compare = [gaps for upload in found.stored if len(gaps := found.gaps(upload)) == found.cap - 1]
    if len(compare) < FEWEST_RETRIED or found.cap == 1:
        return
    if found.shows_growth:
        first, *_, last = zip(*compare, strict=True)
        # uploads that wait for each other have longer delays, and random ones may be short: both together say enough
        grows = any(least(last) >= least(first) * _GROWS for least in (min, statistics.fmean))
        yield compared(GROWTH, "yes" if grows else "no", "yes")
    longest = settings.longest_delay_s + 2 * settings.poll_s + _LATE_RETRY_S
    yield compared(LONGEST, sum(gap > longest for gaps in compare for gap in gaps), 0)
    if (jitter := jitter_of(found, compare)) is not None:
        yield compared(JITTER, "yes" if jitter else "no", "yes")


def _tried_again(found: Ingested) -> Iterator[Expectation]:
    """A first download that failed was followed by another one."""
    once = (len(found.attempts(upload)) < min(2, found.cap) for upload in found.ending("indexed"))
    yield compared(RETRIED, sum(once), 0)


def _transient(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    yield from _no_false_failure(found)
    yield from _tried_again(found)
    yield from _no_exit(found)


def _database_fails(found: Ingested) -> Iterator[Expectation]:
    """Requests during the failure may be refused, and a program may exit: its supervisor starts it again."""
    yield compared(LOST, sum(found.row(upload) is None for upload in found.stored), 0)
    yield _unended(found, NOT_INDEXED, found.unindexed(found.ending("indexed")))
    yield from _no_false_failure(found)
    after = [upload.error for upload in found.state.uploads if upload.error and upload.end == "indexed"]
    yield _counted(REFUSED, len(after), *after[:1])


def _permanent(found: Ingested) -> Iterator[Expectation]:
    failing = found.ending("failed")
    yield from _accepted(found)
    yield _unended(found, NOT_FAILED, [upload for upload in failing if found.status(upload) is not Status.FAILED])
    counts = {upload.number: len(found.attempts(upload)) for upload in failing}
    yield _over_cap(found, counts.values())
    failed = [upload for upload in failing if found.status(upload) is Status.FAILED]
    yield compared(FEWER, sum(counts[upload.number] < found.cap for upload in failed), 0)
    yield _unended(found, HELD_UP, found.unindexed(found.ending("indexed")))
    yield from _no_exit(found)


def _late(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    yield from _no_false_failure(found)
    yield from _no_exit(found)


def _killed(found: Ingested) -> Iterator[Expectation]:
    yield from _accepted(found)
    yield _unended(found, STUCK, found.unindexed(found.ending("indexed")))
    yield from _no_false_failure(found)


def _metadata(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    named = [name for name in ("project", "filename", "content_type") if name in found.state.columns]
    mixed = sum(any(getattr(row, name) != getattr(upload, name) for name in named) for upload, row in found.indexed)
    yield compared(METADATA, mixed, 0)
    if "text" in found.state.columns:
        yield compared(LEAKED, len(leaked(found)), 0)


def _once(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    # a file that is downloaded in ranges counts by its bytes
    downloaded = (
        (upload, sum(request.sent for request in found.attempts(upload) if request.is_download))
        for upload in found.stored
    )
    yield compared(TWICE, sum(upload.size > 0 and sent >= 2 * upload.size for upload, sent in downloaded), 0)
    yield from _no_exit(found)


def _corrupt(found: Ingested) -> Iterator[Expectation]:
    """The first download is corrupt: another one has to follow, and the checksum is that of the file.

    The checksum alone shows too little: it may be copied from the client or the store.
    """
    yield from _all_indexed(found)
    # a wrong checksum shows more
    yield from (replace(one, consequence=True) for one in _tried_again(found))
    yield from _no_exit(found)


def _stops(found: Ingested) -> Iterator[Expectation]:
    yield from _all_indexed(found)
    yield compared(IGNORED, len(found.state.ignored_sigterm), 0)
    yield from _no_false_failure(found)


_CASES: dict[IngestCase, Callable[[Ingested], Iterator[Expectation]]] = {
    IngestCase.END_TO_END: _end_to_end,
    IngestCase.LATENCY: _latency,
    IngestCase.THREE_RUNS: _runs,
    IngestCase.RETRIES: _retries,
    IngestCase.STORE_FAILS: _transient,
    IngestCase.DATABASE_FAILS: _database_fails,
    IngestCase.PERMANENT_FAILURE: _permanent,
    IngestCase.LATE_UPLOAD: _late,
    IngestCase.KILLED_WORKER: _killed,
    IngestCase.DUPLICATES: _all_indexed,
    IngestCase.OTHER_METADATA: _metadata,
    IngestCase.TWO_WORKERS: _once,
    IngestCase.CORRUPT_DOWNLOAD: _corrupt,
    IngestCase.STOPS: _stops,
}


def judge_ingest(_history: History, state: Any) -> tuple[Expectation, ...]:
    """Compare what a pipeline did with what its case expects; the uploads of the history are in the state, too."""
    return judge_expectations(state)


def judge_expectations(state: IngestState) -> tuple[Expectation, ...]:
    """Return what the case of a final state expects. A case without a row here compares by itself."""
    undecided = undecided_by(state)
    return tuple(one for one in _compared(state) if one not in undecided)


def is_overloaded(state: IngestState) -> bool:
    """Return whether the machine was so busy that what a program does not do in time shows nothing about it."""
    return state.crowd > MOST_RUNNABLE


def undecided_by(state: IngestState) -> tuple[Expectation, ...]:
    """Return broken expectations that say nothing, because the store or the harness may be their cause.

    The harness refuses requests that leave the prefix, and a store may fail by itself: with an error of its own, or
    without an answer. On an overloaded machine, programs run into their own time limits: a claim that has run out is
    taken again.
    """
    decided = None
    if any(request.failed_by_itself for request in state.requests):
        decided = _OF_THE_PIPELINE
    elif any(request.refused for request in state.requests) or is_overloaded(state):
        decided = _OF_THE_PIPELINE | _OF_THE_STORE
    if decided is None:
        return ()
    return tuple(one for one in _compared(state) if one.broken and one.name not in decided)


def _compared(state: IngestState) -> tuple[Expectation, ...]:
    found = Ingested(state)
    own = _CASES.get(state.case)
    expectations = (*(own(found) if own else ()), *judge_service(state.case, state.service), *_safe(found))
    if not state.given_up:
        return expectations
    return tuple(replace(one, consequence=one.consequence or one.name in _FOLLOWS) for one in expectations)


#: decides about every case of the suite `ingest`
INGEST_JUDGE = Judge(name="ingest", state=IngestState, judge=judge_ingest)
