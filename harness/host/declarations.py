"""What `harness.toml` says of a host: its environments, its audited paths, and commands of other test suites.

A secret is never written there: what is one is given by the name of an environment variable, `env:NAME`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from harness.model import Prepare

_Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
_Kept = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
_Line = Annotated[str, Meta(pattern=r"^[^\r\n]*\S[^\r\n]*$", max_length=300)]
_Table = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*$")]
_Variable = Annotated[str, Meta(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]
_Seconds = Annotated[float, Meta(gt=0, le=300)]
_Rows = Annotated[int, Meta(ge=1, le=10_000)]
_Status = Annotated[int, Meta(ge=100, le=599)]


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One HTTP request. Texts may hold `{unique}`, `{correlation}`, `{actor.type}`, `{actor.id}` and kept values."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    #: below the base URL, with its query
    path: Annotated[str, Meta(pattern=r"^/[^\r\n]*$")]
    headers: dict[str, str] = {}
    json: Any = None
    form: dict[str, str] = {}
    #: that the answer has when the step did what it is there for
    status: _Status = 200
    #: names for values of the JSON answer, each by its place in it: `post_id = "data.id"`
    keep: dict[_Kept, str] = {}
    #: what the JSON answer must hold, besides whatever else it holds
    answer: dict[str, Any] = {}


class ObanJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job that is put into Oban's table, for the host's own worker to perform."""

    worker: Annotated[str, Meta(min_length=1)]
    queue: Annotated[str, Meta(min_length=1)] = "default"
    #: of the worker; texts may hold the same as those of a step
    args: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 20
    #: the schema that Oban's tables are in
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*$")] = "public"


class Expected(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be found in the audit trail once a path was taken."""

    table: _Table
    operation: Literal["insert", "update", "delete"]
    #: columns and values by which the rows of this very request are told from everybody else's; one of them holds
    #: `{unique}`
    where: dict[str, Any] = {}
    #: the same for the row's key, where the operation leaves no row behind
    key: dict[str, Any] = {}
    #: what tells the rows in the table itself, where the trail calls its columns otherwise than the table does
    row: dict[str, Any] = {}
    #: changes of that table, in that transaction: no fewer, and no more
    rows: _Rows = 1
    #: rows that the table holds afterwards; where nothing is said as many as were written, and none once deleted
    left: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    #: the caller's by default
    actor: dict[str, str] | None = None
    #: that the action recorded with them carries; "" where the trail keeps none
    correlation: str = ""
    action: str = ""
    job_id: str = ""


class FailingVariant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same path, made to fail after it has begun to write: nothing of it may be left."""

    steps: tuple[Step, ...] = ()
    job: ObanJob | None = None
    #: what makes it fail, in one sentence
    why: _Line


class PathDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One audited path (STG-02)."""

    name: _Name
    title: _Line
    kind: Literal["HTTP", "job"]
    #: HTTP requests, one after the other; those of a job prepare or enqueue it
    steps: tuple[Step, ...] = ()
    #: a job that is put into Oban's table
    job: ObanJob | None = None
    #: a command that enqueues or performs the job
    command: tuple[str, ...] = ()
    expect: Expected | None = None
    #: the environments that have it; all when empty
    environments: tuple[str, ...] = ()
    #: it is not there, and why: one objective sentence
    not_applicable: str = ""
    #: for the rows to be there, seconds
    deadline_s: _Seconds = 15.0
    #: what comes of the same request a second time: `refused`, done `again`, or done `once` whatever is answered
    repeated: Literal["refused", "again", "once", ""] = ""
    fails: FailingVariant | None = None
    #: requests that take away what a request made, one after the other, once it was judged
    cleanup: tuple[Step, ...] = ()
    #: what the host does when the table's audit trigger is missing
    without_trigger: Literal["fails closed", "fails open"] = "fails closed"


class Caller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who calls the host: who the trail must name, and what proves it to the host."""

    actor: dict[str, str]
    #: of every request of theirs; a value that is a secret is `env:NAME`
    headers: dict[str, str] = {}


class Production(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What production is declared to be: facts as `identify` names them, and settings of the server."""

    #: who says so, and where it can be read
    declared_by: _Line
    facts: dict[str, str]


class EnvironmentDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An environment of class host."""

    #: the connection string that the application uses
    dsn: _Variable
    #: the server itself, past the pooler
    direct: _Variable | None = None
    #: PgBouncer's admin console
    console: _Variable | None = None
    #: a role that may read the audit trail, where the application's may not
    trail: _Variable | None = None
    #: of the host application: an address, or `env:NAME`
    base_url: Annotated[str, Meta(pattern=r"^(https?://[^\s@]+|env:[A-Za-z_][A-Za-z0-9_]*)$")] = ""
    #: of the application, as the STG-01 table has them
    application: str = ""
    pools: str = ""
    prepare: Prepare | None = None
    #: what runs there: `library = "threadline 0.6.1"`, `app = "3f2c1ab"`; of the environment, as `env:NAME`, too
    versions: dict[Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")], _Line] = {}
    callers: tuple[Caller, ...] = ()
    #: tables that must be captured, as schema.table
    audited_tables: tuple[_Table, ...] = ()
    #: a table that is there to be written to by checks, with a column of texts: `public.audit_canary(note)`
    canary: Annotated[str, Meta(pattern=r"^([A-Za-z_]\w*\.[A-Za-z_]\w*\([A-Za-z_]\w*\))?$")] = ""
    #: a schema in which checks may make a table, and drop it again
    scratch_schema: Annotated[str, Meta(pattern=r"^([A-Za-z_]\w*)?$")] = ""
    #: what is declared of the chain, by the names of `identify`'s facts; a finding that contradicts it is an Issue
    declared: dict[str, str] = {}
    production: Production | None = None
    #: another environment to compare with, whose evidence says what production is
    compare_with: str = ""
    #: for everything that is asked of it at once, seconds
    deadline_s: _Seconds = 10.0


class CommandDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command of another test suite, run behind topologies: a row of the parity table."""

    name: _Name
    title: _Line
    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: where it is run, below the project's folder
    folder: str = ""
    #: JUnit XML that it writes: globs below that folder
    junit: tuple[str, ...] = ()
    topologies: tuple[str, ...] = ()
    deadline_s: Annotated[float, Meta(gt=0, le=7200)] = 600.0
