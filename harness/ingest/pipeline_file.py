"""The TOML description of an ingest pipeline: how it is started and asked, where its state is, and what it promises.

A pipeline takes uploads: a client asks its API for a presigned address, and puts a file there; a worker downloads the
file, and indexes it. The table `[ingest]` of `harness.toml` describes a pipeline of the project, and a file of its own
has the same keys at its top level. `docs/ingest.md` explains them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

from harness.host.declarations import Caller, Headers, Step
from harness.job_engines.target_file import Packages

_Line = Annotated[str, Meta(min_length=1, max_length=400)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]
_Command = Annotated[tuple[str, ...], Meta(min_length=1)]
_Path = Annotated[str, Meta(pattern=r"^(/[^\r\n]*)?\Z")]
_Header = Annotated[str, Meta(pattern=r"^([A-Za-z][A-Za-z0-9-]*)?$")]
_Table = Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*)?$")]


class Status(StrEnum):
    """The states of an upload, whatever a pipeline calls them."""

    #: it waits for its file, or for a worker
    PENDING = "pending"
    #: a worker has claimed it
    PROCESSING = "processing"
    #: it is done
    INDEXED = "indexed"
    #: it failed finally, and no attempt follows
    FAILED = "failed"


class Commands(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[commands]`: programs with their arguments.

    Placeholders: `{folder}` is the folder of the pipeline's file, and `{python}` the program that the packages were
    installed for. Addresses and settings are in the environment.
    """

    #: creates the schema; a second call changes nothing
    migrate: _Command
    #: serves the API on 127.0.0.1, port PORT, in the foreground until SIGTERM ends it
    api: _Command
    #: works in the foreground until SIGTERM or SIGKILL ends it
    worker: _Command


class Queries(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sql]`: questions to the pipeline's own tables. They run on the direct connection, as a superuser."""

    #: one row for each upload, with the columns `id`, `key` (of the object) and `status` (in the pipeline's own words);
    #: where it has them, also `checksum` (sha256, hexadecimal), `indexed_at`, `worker`, `text` (extracted), `project`,
    #: `filename`, `content_type` and `correlation`. A check that needs a column that is missing is N/A
    uploads: Annotated[str, Meta(min_length=1)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[settings]`: what the pipeline promises with the settings that its programs get.

    Each one is also in the environment of its programs, in capital letters: `attempts` is ATTEMPTS.
    """

    #: downloads of a file that always fails, and after which the upload fails finally
    attempts: Annotated[int, Meta(ge=1, le=20)] = 4
    #: the delay after the first failed download, seconds
    shortest_delay_s: _Seconds = 0.2
    #: no delay is longer, seconds
    longest_delay_s: _Seconds = 2.0
    #: after how many seconds an upload of a worker that is gone is taken over; 0: never
    lease_s: Annotated[float, Meta(ge=0, le=86_400)] = 3.0
    #: how often an idle worker looks for uploads, seconds
    poll_s: _Seconds = 0.2
    #: how long a presigned address is valid, seconds
    url_valid_s: _Seconds = 900.0
    #: within how many seconds 95 % of the uploads are indexed
    latency_p95_s: _Seconds = 5.0

    def nominal_s(self, number: int) -> float:
        """Return the delay after a failed download without jitter, as it is usually computed.

        :param number: of the failed download, from 0.
        """
        return min(self.longest_delay_s, self.shortest_delay_s * 2.0**number)


class Logs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[logs]`: each line that API and worker print to stdout is a JSON object with these keys."""

    #: when it was printed: ISO 8601 with its zone
    time: _Line = "ts"
    #: such as `info` or `error`
    level: _Line = "level"
    #: an object with what the line is about
    context: _Line = "ctx"


class Pipeline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pipeline: the table `[ingest]`, or a file of its own."""

    #: as its project spells it
    title: _Line
    #: one sentence: what it is
    summary: str = ""
    packages: Packages = Packages()
    commands: Commands
    #: added to the environment of its programs; `{S3_ENDPOINT}` and the like are replaced by the variables of that name
    environment: dict[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    #: asks for a presigned address. Placeholders: `{filename}`, `{project}`, `{content_type}`, `{correlation}` and
    #: `{unique}`. It keeps `id`, `url` and `key`: `keep = { id = "uploadId", url = "url", key = "objectKey" }`
    presign: Step
    #: headers of the upload itself, with the same placeholders
    upload_headers: Headers = field(default_factory=lambda: {"Content-Type": "{content_type}"})
    #: answers 2xx while the process lives. "" where the pipeline has none, and what needs it is N/A, also below
    health: _Path = "/health"
    #: answers 2xx while uploads can be taken and indexed, and says when one was indexed
    ready: _Path = "/ready"
    #: counters in the text format of Prometheus; "" where the pipeline has none
    metrics: _Path = ""
    #: the counter of indexed uploads in the text of `metrics`
    indexed_counter: str = ""
    #: the header that carries the correlation id of a request; "" where the pipeline reads none
    correlation_header: _Header = ""
    #: who uploads; the harness asks as the first one
    callers: tuple[Caller, ...] = ()
    #: the audited table with one row for each upload; "" where its writes are not audited
    audited_table: _Table = ""
    #: the pipeline's own words for each state; further states count as pending
    statuses: dict[Status, tuple[str, ...]]
    sql: Queries
    settings: Settings = Settings()
    #: the form of log lines; without this table, the check of log lines is N/A
    logs: Logs | None = None
    #: seconds within which a program has to be ready
    starts_s: _Seconds = 20.0
