"""The conclusion of a case: what the judge gets, what was measured, and what is kept of a case that is not OK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harness.checks.judges.ingest import is_overloaded, undecided_by
from harness.checks.judges.ingest_service import service_measured
from harness.checks.judges.ingest_state import IngestState, without_ends
from harness.checks.judges.ingest_uploads import Ingested, percentile
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Status
from harness.suites.ingest.programs import API, WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.ingest.store_requests import StoreRequest
    from harness.suites.ingest.running import IngestRun

#: the last lines of a program's output that are kept
_KEPT_LINES = 400
#: a client that is not slow has uploaded a small file within, seconds
_PROMPT_S = 1.0
#: the outcome where the situation did not come about, or every finding may have another cause than the pipeline
UNDECIDED = "undecided"
#: the fact that names the requests which the harness refused, or the store did not answer as it should
DISTURBED = "disturbed"


def final_state(run: IngestRun, reason: str = "") -> IngestState:
    """Return everything that the judge needs besides the history. Programs still run while it is read.

    :param reason: why the situation did not come about: the ends of uploads show nothing then.
    """
    rows = run.look()
    uploads = tuple(run.uploads.values())
    # before the journal is read, so that it has the request that removed an object
    others_lost, uploads_lost = run.store.others_lost(), run.store.uploads_lost(uploads)
    return run.ctx.pipeline.state(
        IngestState(
            case=run.case,
            settings=run.settings,
            uploads=without_ends(uploads) if reason else uploads,
            rows={upload.id: rows[upload.id] for upload in uploads if upload.id in rows},
            columns=run.columns,
            requests=run.requests(),
            prefix=run.store.prefix,
            exits=tuple(run.exits),
            given_up=run.given_up,
            ignored_sigterm=tuple(sorted(run.ignored_sigterm)),
            not_migrated=run.not_migrated,
            total_s=round(run.total_s, 2),
            healed_s=run.healed_s,
            floor_s=round(run.floor_s, 3),
            others_lost=others_lost,
            uploads_lost=uploads_lost,
            pause_s=round(run.pauses.longest_s, 2),
            # a control is to break its check on a slow machine, too
            crowd=0.0 if run.ctx.control else round(run.pauses.crowd, 1),
            service=run.service,
        )
    )


def unnamed_state(run: IngestRun) -> str:
    """Return why the ends of uploads cannot be judged: one has a state that the description does not name; else ""."""
    rows = run.look()
    for upload in run.uploads.values():
        row = rows.get(upload.id)
        if row and upload.end not in {"any", row.status} and not run.pipeline.names_state(row.word):
            return f"an upload is in the state {row.word!r}, which is in no list of [statuses]; name it there"
    return ""


def late_file(run: IngestRun) -> str:
    """Return why failed uploads show nothing: the harness itself uploaded a file so late that retries ended before; else "".

    The case `late-upload` does this on purpose; in other cases it is a slow machine. A pipeline whose retries end sooner
    than any client uploads has no such excuse.
    """
    if run.case is IngestCase.LATE_UPLOAD:
        return ""
    retries_s = sum(map(run.settings.nominal_s, range(run.settings.attempts - 1)))
    longest_s = max(retries_s / 2, _PROMPT_S)
    for upload in run.uploads.values():
        late_s = (upload.stored_s or 0.0) - (upload.presigned_s or 0.0)
        if upload.end == "indexed" and run.status(upload) is Status.FAILED and late_s > longest_s:
            return f"a file was stored {late_s:.1f} s after its address was given, so retries may have ended before"
    return ""


def undecided(state: IngestState) -> str:
    """Return why broken expectations say nothing about the pipeline, and which ones; "" without such ones."""
    names = ", ".join(f"{one.name} (expected {one.expected}, observed {one.observed})" for one in undecided_by(state))
    causes = ", and ".join(filter(None, (disturbances(state.requests), _overload(state))))
    return f"{causes}, which may be the cause of this: {names}" if names else ""


def _overload(state: IngestState) -> str:
    return f"{state.crowd:.0f} tasks wanted to run on each core of this machine" if is_overloaded(state) else ""


def disturbances(requests: Iterable[StoreRequest]) -> str:
    """Return the requests that the harness refused, and those that the store did not answer as it should."""
    requests = tuple(requests)
    refused = [f"{one.named} ({one.refused})" for one in requests if one.refused]
    failed = [f"{one.named} ({one.status or 'no answer'})" for one in requests if one.failed_by_itself]
    words = []
    if refused:
        words.append(f"the harness refused {_first_of(refused)}")
    if failed:
        words.append(f"the object store failed by itself at {_first_of(failed)}")
    return ", and ".join(words)


def _first_of(named: list[str]) -> str:
    return named[0] if len(named) == 1 else f"{_numbered(len(named), 'request')}, the first one {named[0]}"


def record_facts(run: IngestRun, state: IngestState) -> None:
    """Record what was measured, for the table and for a reader of an Issue."""
    ctx = run.ctx
    ctx.fact("measured", measured(Ingested(state)))
    ctx.fact("longest pause of the machine", f"{run.pauses.longest_s:.2f} s")
    ctx.fact("tasks for each core that wanted to run", f"{run.pauses.crowd:.1f} at most, over five seconds")
    if exits := state.exits:
        ctx.fact("exits of programs", len(exits))
        ctx.fact("last line of the last exit", exits[-1].last)
    if state.ignored_sigterm:
        ctx.fact("ended by SIGKILL, because SIGTERM did not end them", ", ".join(state.ignored_sigterm))
    if said := disturbances(state.requests):
        ctx.fact(DISTURBED, said)
    if words := sorted({f"{row.word}" for row in state.rows.values()}):
        ctx.fact("states at the end", ", ".join(words))


def measured(found: Ingested) -> str:
    """Return what was measured in a case, in a few words."""
    state = found.state
    indexed = f"{len(found.indexed)} of {_numbered(len(state.uploads), 'upload')} indexed"
    words = [indexed] if state.uploads else []
    match state.case:
        case IngestCase.END_TO_END:
            words.append(f"after {state.total_s:.1f} s")
        case IngestCase.LATENCY:
            p50, p95 = percentile(found.latencies, 50), percentile(found.latencies, 95)
            words.append(
                f"p50 {p50:.2f} s, p95 {p95:.2f} s, promised {state.settings.latency_p95_s:g} s; "
                f"store and database alone p95 {state.floor_s:.2f} s"
            )
        case IngestCase.RETRIES | IngestCase.PERMANENT_FAILURE:
            words = [_numbered(len(found.stored), "upload"), _attempts(found)]
        case IngestCase.STORE_FAILS | IngestCase.CORRUPT_DOWNLOAD:
            words.append(_attempts(found))
        case IngestCase.KILLED_WORKER:
            after = [one.indexed_s - state.healed_s for one in found.stored if one.indexed_s and state.healed_s]
            words += [f"{max(after):.1f} s after the end of its worker"] if after else []
        case IngestCase.TWO_WORKERS:
            downloads = sum(one.is_download for upload in found.stored for one in found.attempts(upload))
            words.append(_numbered(downloads, "download"))
        case _:
            pass
    if state.service and (said := service_measured(state.service)):
        words.append(said)
    return ", ".join(words)


def _numbered(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _attempts(found: Ingested) -> str:
    """Return the downloads of each upload, and the delays between them."""
    counts = sorted({len(found.attempts(upload)) for upload in found.stored})
    said = f"{' or '.join(map(str, counts)) or 'no'} download{'' if counts == [1] else 's'} each, cap {found.cap}"
    if counts and counts[-1] > found.cap:
        return said
    delays = [found.gaps(upload) for upload in found.stored if len(found.attempts(upload)) == max(counts, default=0)]
    ranges = [f"{min(column):.2f} to {max(column):.2f} s" for column in zip(*delays, strict=False)]
    return f"{said}; delays {', '.join(ranges)}" if ranges else said


def keep_logs(run: IngestRun) -> None:
    """Keep what programs printed, and the journal of the store, next to the evidence of a case that is not OK."""
    lab, check = run.ctx.lab, run.ctx.check + (f"+{run.ctx.control}" if run.ctx.control else "")
    names = []
    for program in (API, *WORKERS):
        if lines := run.printed.get(program):
            lab.keep_artifact(check, f"{program}.log", "\n".join(lines[-_KEPT_LINES:]) + "\n")
            names.append(f"{program}.log")
    if requests := run.requests():
        encoded = (msgspec.json.encode(request).decode() for request in requests)
        lab.keep_artifact(check, "store-requests.jsonl", "\n".join(encoded) + "\n")
        names.append("store-requests.jsonl")
    run.ctx.fact("kept", ", ".join(names) or "no program was started")
