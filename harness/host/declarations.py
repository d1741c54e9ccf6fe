"""The parts of `harness.toml` about a host: environments, audited paths, commands of other test suites, migrations.

The file never holds a secret: the declaration names an environment variable instead, as `env:NAME`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from harness.lab.credentials import CommandRole
from harness.model import Prepare

_Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
_Kept = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
_Line = Annotated[str, Meta(pattern=r"^[^\r\n]*\S[^\r\n]*$", max_length=300)]
_Table = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*$")]
#: a table of which the harness only compares the name: neither part has quotes, whatever SQL needs
_LedgerTable = Annotated[str, Meta(pattern=r'^[^\s".]+\.[^\s"]+$')]
_Variable = Annotated[str, Meta(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]
#: headers of HTTP, as RFC 9110 writes them: the harness cannot send others
Headers = dict[
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")], Annotated[str, Meta(pattern=r"^[\t -~]*\Z")]
]
_Seconds = Annotated[float, Meta(gt=0, le=300)]
_Rows = Annotated[int, Meta(ge=1, le=10_000)]
_Status = Annotated[int, Meta(ge=100, le=599)]


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One HTTP request.

    Its texts may hold the placeholders `{unique}`, `{correlation}`, `{actor.type}`, `{actor.id}` and kept values.
    """

    #: the method of the request
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    #: appended to the base URL; may have a query
    path: Annotated[str, Meta(pattern=r"^/[^\r\n]*\Z")]
    #: headers in addition to those of the caller
    headers: Headers = {}
    #: the body as JSON
    json: Any = None
    #: the body as the fields of a form
    form: dict[str, str] = {}
    #: the status of the response when the step succeeds
    status: _Status = 200
    #: values of the JSON response to store as placeholders, each by its path: `post_id = "data.id"`
    keep: dict[_Kept, str] = {}
    #: values that the JSON response must hold, each by its path; it may hold more
    answer: dict[str, Any] = {}


class ObanJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job that the harness inserts into Oban's table, for the host's own worker to run."""

    #: the name of the worker
    worker: Annotated[str, Meta(min_length=1)]
    #: the queue of the job
    queue: Annotated[str, Meta(min_length=1)] = "default"
    #: arguments of the worker; texts may hold the same placeholders as in a step
    args: dict[str, Any] = {}
    #: the column `meta` of the job; texts may hold the same placeholders
    meta: dict[str, Any] = {}
    #: the column `max_attempts` of the job
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 20
    #: the schema of Oban's tables
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*$")] = "public"


class Expected(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows that the audit trail must hold after a path ran."""

    #: the table that the path writes to
    table: _Table
    #: what the path does with its rows
    operation: Literal["insert", "update", "delete"]
    #: columns and values that identify the rows of this request among all others; one of them holds `{unique}` or a
    #: kept value
    where: dict[str, Any] = {}
    #: the same for the key of the row, for operations that leave no row behind
    key: dict[str, Any] = {}
    #: identifies the rows in the table itself, where the trail uses other column names than the table
    row: dict[str, Any] = {}
    #: changes of the table in the transaction: exactly this number
    rows: _Rows = 1
    #: rows that the table holds afterwards; by default, as many as were written, and none after a delete
    left: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    #: by default, the actor of the caller
    actor: dict[str, str] | None = None
    #: the correlation id of the action that the trail stores with the rows; "" where the trail stores none
    correlation: str = ""
    #: the name of that action
    action: str = ""
    #: the job of that action
    job_id: str = ""


class FailingVariant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same path, made to fail after it has begun to write: it must leave no row behind."""

    steps: tuple[Step, ...] = ()
    job: ObanJob | None = None
    #: the cause of the failure, in one sentence
    why: _Line


class PathDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One audited path (STG-02)."""

    #: the name in the id of the check: `path.NAME`
    name: _Name
    #: the path in the report, such as `POST /posts`
    title: _Line
    #: whether the rows are written by the request, or by a job
    kind: Literal["HTTP", "job"]
    #: HTTP requests, sent in order; for a path of kind job, they prepare or enqueue the job
    steps: tuple[Step, ...] = ()
    #: a job that the harness inserts into Oban's table
    job: ObanJob | None = None
    #: a command that enqueues or performs the job
    command: tuple[str, ...] = ()
    expect: Expected | None = None
    #: the environments that have this path; all of them when empty
    environments: tuple[str, ...] = ()
    #: why the host does not have this path, in one objective sentence
    not_applicable: str = ""
    #: for each request, and for the rows to appear in the trail, seconds
    deadline_s: _Seconds = 15.0
    #: the effect of a second, identical request: `refused`, `again` (a second write), or `once` (no second write)
    repeated: Literal["refused", "again", "once", ""] = ""
    fails: FailingVariant | None = None
    #: requests that remove what an attempt created, sent in order once it was judged
    cleanup: tuple[Step, ...] = ()
    #: what the host does when the table's audit trigger is missing
    without_trigger: Literal["fails closed", "fails open"] = "fails closed"


class Caller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user of the host: the actor that the trail must name, and the headers that authenticate it."""

    #: the actor, with its `type` and `id`
    actor: dict[str, str]
    #: sent with each of its requests; a secret is `env:NAME`
    headers: Headers = {}


class Production(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The declared properties of production: facts, by the names that `identify` uses, and settings of the server."""

    #: the person who declares them, and where they are documented
    declared_by: _Line
    #: facts by name, such as `pool_mode`, each with its value in production
    facts: dict[str, str]


class EnvironmentDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An environment of class host."""

    #: the connection string that the application uses
    dsn: _Variable
    #: the server itself, past the pooler
    direct: _Variable | None = None
    #: PgBouncer's admin console
    console: _Variable | None = None
    #: a role that may read the audit trail, where the application's role may not
    trail: _Variable | None = None
    #: address of the host application, or `env:NAME`
    base_url: Annotated[str, Meta(pattern=r"^(https?://[^\s@]+|env:[A-Za-z_][A-Za-z0-9_]*)$")] = ""
    #: description of the application, for the STG-01 table
    application: str = ""
    #: description of the pools, for the STG-01 table
    pools: str = ""
    #: how the application runs repeated statements, where it is known
    prepare: Prepare | None = None
    #: deployed versions, such as `library = "threadline 0.6.1"` or `app = "3f2c1ab"`; a value may be `env:NAME`
    versions: dict[Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")], _Line] = {}
    callers: tuple[Caller, ...] = ()
    #: tables that must be captured, as schema.table
    audited_tables: tuple[_Table, ...] = ()
    #: a captured table that checks may write to, with its text column: `public.audit_canary(note)`
    canary: Annotated[str, Meta(pattern=r"^([A-Za-z_]\w*\.[A-Za-z_]\w*\([A-Za-z_]\w*\))?$")] = ""
    #: a schema in which checks may create a table and drop it again
    scratch_schema: Annotated[str, Meta(pattern=r"^([A-Za-z_]\w*)?$")] = ""
    #: declared properties of the chain, by the names of `identify`'s facts; a contradicting finding is an Issue
    declared: dict[str, str] = {}
    production: Production | None = None
    #: another environment, whose evidence describes production
    compare_with: str = ""
    #: for all queries that recognise the chain together, seconds
    deadline_s: _Seconds = 10.0


#: the logins that the harness chooses if a declaration names none: a CI service lets its user create databases and
#: roles, and migrations mostly run as the owner of their database
DEFAULT_COMMAND_ROLE: CommandRole = "createdb"
DEFAULT_MIGRATION_ROLE: CommandRole = "owner"


class CommandDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command of another test suite, run behind topologies: a row of the parity table."""

    #: the name in the id of the check: `command.NAME`
    name: _Name
    #: the command in the report
    title: _Line
    #: the words of the command line; no shell reads them
    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: working directory, below the project's folder
    folder: str = ""
    #: JUnit XML files that it writes: globs below that folder
    junit: tuple[str, ...] = ()
    #: the topologies to run it behind; all of them when empty
    topologies: tuple[str, ...] = ()
    #: what the command's login may do; without it the harness chooses `createdb`, and a command that fails because its
    #: login is not a superuser is Not run
    role: CommandRole | None = None
    #: seconds after which the command is ended, and the row is Not run
    deadline_s: Annotated[float, Meta(gt=0, le=7200)] = 600.0

    @property
    def checks(self) -> tuple[str, ...]:
        """The ids of its checks."""
        return (f"command.{self.name}",)

    @property
    def login(self) -> CommandRole:
        """What the login of the command may do."""
        return self.role or DEFAULT_COMMAND_ROLE

    @property
    def words(self) -> tuple[str, ...]:
        """The words of its command lines."""
        return self.command


class MigrationCase(StrEnum):
    """A case of the suite `migrations`, as the ids of its checks end."""

    TWICE = "twice"
    SAME_SCHEMA = "same-schema"
    DOWN_UP = "down-up"
    CONCURRENT = "concurrent"
    STARTS = "starts"


class MigrationDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The migrations of a project's schema, as commands. Each one gets an empty database of its own."""

    #: the name in the ids of the checks: `migrations.NAME-twice`
    name: _Name
    #: the migrations in the report
    title: _Line
    #: brings an empty database to the newest schema; a second run changes nothing. No shell reads the words
    up: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: the way back: to an earlier schema, or to the empty database
    down: tuple[str, ...] = ()
    #: whether the way back leads to the empty database, so that an object that it leaves is an Issue
    down_empties: bool = False
    #: another way to the same schema, such as the command that developers run
    local: tuple[str, ...] = ()
    #: the application's own start, which must not change the schema: it ends by itself, or runs until SIGTERM
    starts: tuple[str, ...] = ()
    #: working directory, below the project's folder
    folder: str = ""
    #: the schemas that are compared; all but those of PostgreSQL when empty
    schemas: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    #: tables of the migration tool that are not compared, in addition to those of tools that the harness knows; without
    #: quotes
    ledger: tuple[_LedgerTable, ...] = ()
    #: what the login of the commands may do; without it the harness chooses `owner`, and a missing right is Not run
    role: CommandRole | None = None
    #: whether the project runs its migrations past the pooler: they get the address of the server itself
    direct: bool = False
    #: of each command, seconds; one that is ended then makes its row Not run
    deadline_s: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    #: an application that runs and listens on no port has started after so many seconds
    starts_s: Annotated[float, Meta(gt=0, le=300)] = 10.0

    @property
    def checks(self) -> tuple[str, ...]:
        """The ids of its checks."""
        return tuple(f"migrations.{self.name}-{case}" for case in MigrationCase)

    @property
    def login(self) -> CommandRole:
        """What the login of its commands may do."""
        return self.role or DEFAULT_MIGRATION_ROLE

    @property
    def words(self) -> tuple[str, ...]:
        """The words of its command lines."""
        return (*self.up, *self.down, *self.local, *self.starts)
