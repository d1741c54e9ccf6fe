"""Final states of ingest pipelines for tests: of a pipeline that does everything right, by case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.judges.ingest import judge_ingest
from harness.checks.judges.ingest_state import End, IngestState, Upload, UploadRow
from harness.checks.judges.ingest_words import WORKS, outcome
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Settings, Status
from harness.ingest.store_requests import StoreRequest
from harness.model.history import History, Opening

if TYPE_CHECKING:
    from types import ModuleType

    from harness.model import Expectation

PREFIX = "p/"
COLUMNS = ("id", "key", "status", "checksum", "indexed_at", "worker", "text", "project", "filename", "content_type")
SETTINGS = Settings(attempts=4, shortest_delay_s=0.2, longest_delay_s=2.0, lease_s=3.0, poll_s=0.05)
_HISTORY = History(
    opening=Opening(topology="direct", check="ingest.x", judge="ingest", started_at="2026-01-01T00:00:00Z")
)


def upload(
    number: int, *, end: End = "indexed", sha256: str = "", project: str = "a", kind: str = "text/plain"
) -> Upload:
    """Return an upload that ended as it has to."""
    last = Status.FAILED if end == "failed" else Status.INDEXED
    return Upload(
        number=number,
        id=f"u{number}",
        key=f"{PREFIX}u{number}/file",
        sha256=sha256 or f"{number:064x}",
        size=100,
        filename=f"file-{number}.txt",
        project=project,
        content_type=kind,
        end=end,
        presigned_s=1.0,
        stored_s=2.0,
        indexed_s=2.5 if last is Status.INDEXED else None,
        seen=(Status.PENDING, Status.PROCESSING, last),
    )


def row(of: Upload, status: Status | None = None) -> UploadRow:
    """Return what a pipeline says about an upload."""
    status = status or of.seen[-1]
    return UploadRow(
        id=of.id,
        key=of.key,
        status=status,
        word=status,
        checksum=of.sha256,
        indexed_at="2026-01-01",
        worker="A",
        text="text" if of.content_type.startswith("text/") else None,
        project=of.project,
        filename=of.filename,
        content_type=of.content_type,
    )


def download(of: Upload, at: float, *, status: int = 200) -> StoreRequest:
    """Return a download by the pipeline, complete if the store answered 200."""
    sent = of.size if status == 200 else 0
    return StoreRequest(
        at=at,
        seconds=0.01,
        side="internal",
        method="GET",
        bucket="b",
        key=of.key,
        status=status,
        sent=sent,
        fault="unavailable" if status == 503 else "",
        ending="complete",
    )


def retried(of: Upload, *gaps: float) -> tuple[StoreRequest, ...]:
    """Return downloads that fail, one after each gap."""
    at, found = 3.0, list[StoreRequest]()
    for gap in (0.0, *gaps):
        at += gap + (0.01 if found else 0.0)
        found.append(download(of, at, status=503))
    return tuple(found)


def state(case: IngestCase, *uploads: Upload, requests: tuple[StoreRequest, ...] | None = None) -> IngestState:
    """Return a final state in which each upload ended as it has to."""
    uploads = uploads or (upload(1), upload(2))
    return IngestState(
        case=case,
        settings=SETTINGS,
        uploads=uploads,
        rows={one.id: row(one) for one in uploads},
        columns=COLUMNS,
        requests=tuple(download(one, 2.2) for one in uploads) if requests is None else requests,
        prefix=PREFIX,
        not_migrated="" if case is IngestCase.END_TO_END else None,
        total_s=4.0,
    )


def judge(found: IngestState) -> tuple[Expectation, ...]:
    """Return what the judge says about a final state."""
    return judge_ingest(_HISTORY, found)


def broken(found: IngestState) -> set[str]:
    """Return the names of the expectations that do not hold."""
    return {one.name for one in judge(found) if one.broken}


def words(found: IngestState) -> str:
    """Return what the table says."""
    return outcome(judge(found))


def expectations_of(module: ModuleType) -> set[str]:
    """Return the names of all expectations of a judge."""
    return {value for name, value in vars(module).items() if name[0] != "_" and name.isupper() and isinstance(value, str)}


__all__ = ["WORKS", "broken", "download", "expectations_of", "judge", "retried", "row", "state", "upload", "words"]
