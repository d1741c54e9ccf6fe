"""The final state of jobs: the effects, what the engine says, and what else the judge needs besides the history."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.job_engines.target_file import Case, Settings

#: how a job has to end; a job in a transaction that was rolled back, or that was cancelled, must never begin
End = Literal["done", "failed", "cancelled", "never"]
#: why a case shows less than it should: jobs were still being done, or the harness itself took too many connections
Unsettled = Literal["", "progress", "shortage"]
#: states of a job that the engine does not run again
TERMINAL = frozenset({"done", "failed", "cancelled"})


class Effect(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the database of effects."""

    #: since the opening of the history, by the server's clock
    seconds: float
    key: int
    phase: str
    worker: str = ""
    attempt: int | None = None
    #: the engine's own id of the job
    job: str = ""


class ExitedWorker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker that exited by itself."""

    worker: str
    #: None for a worker that could not be started again
    code: int | None
    seconds: float
    #: the SQLSTATEs that it printed
    sqlstates: tuple[str, ...] = ()
    #: its last line
    last: str = ""


class AuditedChange(Struct, frozen=True, kw_only=True):
    """A change in the trail that a job made."""

    key: int
    actor: str
    correlation: str
    job: str


class Foreseen(Struct, frozen=True, kw_only=True):
    """A documented limit of the engine or of the pooler, which the expectation of that name may show."""

    #: "" for every expectation
    expectation: str
    outcome: str


class JobsState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the judge needs besides the history."""

    case: Case
    settings: Settings
    #: how each job has to end, by key
    ends: dict[int, End] = {}
    effects: tuple[Effect, ...] = ()
    #: what the engine says at the end, by key; it may have deleted a job that ended
    states: dict[int, str] = {}
    #: the states of jobs right after a stale worker reported its result, by key
    after_stale: dict[int, str] = {}
    #: the jobs that the engine held for running when their worker was killed, between two attempts
    interrupted: tuple[int, ...] = ()
    exits: tuple[ExitedWorker, ...] = ()
    #: workers that exited so often that they were not started again
    given_up: tuple[str, ...] = ()
    #: why the schema could not be created through the chain; "" if it was
    not_installed: str = ""
    unsettled: Unsettled = ""
    #: how long nothing had happened when the check stopped to wait, seconds
    waited_s: float = 0.0
    #: the longest time for which the machine kept the harness itself waiting, seconds
    pause_s: float = 0.0
    #: what is left on servers, or with a frozen worker, by the name of the expectation
    left: dict[str, int] = {}
    changes: tuple[AuditedChange, ...] = ()
    #: what each job was given: its actor and its correlation
    actor: str = ""
    correlation: str = ""
    foreseen: tuple[Foreseen, ...] = ()
