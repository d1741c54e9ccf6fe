"""The final state of a pipeline under test: what was sent, what its tables say, and what the store was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.judges.ingest_service import ServiceSeen
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Settings, Status
from harness.ingest.store_requests import StoreRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

#: how an upload has to end. `any`: the case says nothing about its end
End = Literal["indexed", "failed", "any"]


class Upload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One upload as the harness sent it. Seconds count from the beginning of the check."""

    #: from 1 on in each check
    number: int
    #: what the pipeline calls it, and the key of its object; "" if the pipeline gave no address
    id: str = ""
    key: str = ""
    sha256: str
    size: int
    filename: str
    project: str
    content_type: str
    correlation: str = ""
    end: End = "indexed"
    #: when its address was there, and when the store had confirmed the file; None if not
    presigned_s: float | None = None
    stored_s: float | None = None
    #: when it was seen as indexed for the first time; None if never
    indexed_s: float | None = None
    #: the states that it was seen in, in their order
    seen: tuple[Status, ...] = ()
    #: why one of the two requests failed; "" if none did
    error: str = ""


def without_ends(uploads: Iterable[Upload]) -> tuple[Upload, ...]:
    """Return the uploads of a case that ended early: the harness did not wait for their ends, so these show nothing."""
    return tuple(replace(upload, end="any") for upload in uploads)


class UploadRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the pipeline's own tables say about an upload. A column that its query lacks is None."""

    id: str
    key: str
    status: Status
    #: in the pipeline's own words
    word: str
    checksum: str | None = None
    indexed_at: str | None = None
    worker: str | None = None
    text: str | None = None
    project: str | None = None
    filename: str | None = None
    content_type: str | None = None
    correlation: str | None = None


class ProgramExit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A program that exited by itself."""

    program: str
    #: None for one that could not be started again
    code: int | None
    seconds: float
    last: str = ""


class IngestState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the judge needs besides the history."""

    case: IngestCase
    settings: Settings
    uploads: tuple[Upload, ...] = ()
    #: by the id of the upload
    rows: dict[str, UploadRow] = {}
    #: the columns of the pipeline's query
    columns: tuple[str, ...] = ()
    #: their seconds count from the beginning of the check, too
    requests: tuple[StoreRequest, ...] = ()
    #: keys have to begin with it
    prefix: str = ""
    exits: tuple[ProgramExit, ...] = ()
    #: programs that exited so often that they were not started again
    given_up: tuple[str, ...] = ()
    #: programs that went on after SIGTERM until SIGKILL ended them
    ignored_sigterm: tuple[str, ...] = ()
    #: why migrating through the chain failed; "" if it did not, None if the case does not migrate
    not_migrated: str | None = None
    #: from clean volumes to the last upload that is indexed, seconds
    total_s: float = 0.0
    #: when the fault of the case was healed, or its worker was killed; None if neither happened
    healed_s: float | None = None
    #: the 95th percentile of the same transfer and statement without the pipeline, at the same time, seconds
    floor_s: float = 0.0
    #: objects that are gone, or have other contents: those of others next to the prefix, and the uploaded ones
    others_lost: int = 0
    uploads_lost: int = 0
    #: the longest time for which the machine kept the harness itself waiting, seconds
    pause_s: float = 0.0
    #: the most tasks for each core that wanted to run at the same time, on average over five seconds
    crowd: float = 0.0
    #: what a case about the service saw; None for the other cases
    service: ServiceSeen | None = None
