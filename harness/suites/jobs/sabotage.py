"""Controls of the suite: each lets the effects, or what the engine says, be as a broken engine would leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import jobs as judged
from harness.checks.registry import MOVES, Capability, Control
from harness.job_engines.target_file import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check
    from harness.job_engines.target_file import Settings


_POOLER = Capability(
    "a pooler",
    "no pooler is between the application and PostgreSQL",
    lambda topology: topology.pooler is not None,
)


class _Break(Struct, frozen=True, kw_only=True):
    """One row of the table: what a broken engine would leave, in the terms of the database of effects."""

    name: str
    #: the expectation that must not hold
    at: str
    #: the body of a trigger that runs before each effect is inserted; NEW is the effect
    before: str = ""
    #: the same after it
    after: str = ""
    #: further statements
    sql: str = ""
    #: replaces the query for the states of jobs
    states: str = ""
    #: statements in the database of the engine, as a superuser
    engine: str = ""
    needs: tuple[Capability, ...] = ()
    #: whether it keeps an effect from happening that the case awaits
    in_vain: bool = False
    #: whether it needs jobs that renew their lease themselves: else none of them is silent
    renewed_by_job: bool = False


def _again(condition: str, key: str = "NEW.key") -> str:
    """Return the body of a trigger that repeats an effect, of the same job or of another one."""
    return (
        f"IF {condition} THEN INSERT INTO effects (key, phase, attempt) VALUES ({key}, NEW.phase, NEW.attempt); END IF;"
    )


def _trigger(when: str, table: str, body: str, result: str) -> str:
    """Return statements that let a function in PL/pgSQL run for each row that the harness or a program inserts."""
    name = f"broken_{when}_{table}"
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $b$ BEGIN {body} RETURN {result}; END $b$; "
        f"CREATE TRIGGER {name} {when} INSERT ON {table} FOR EACH ROW WHEN (pg_trigger_depth() = 0) "
        f"EXECUTE FUNCTION {name}();"
    )


def _planned(word: str, other: str = "") -> str:
    """Return statements that replace a word in what audited jobs write; all of it, if there is no other word."""
    planned = f"replace(NEW.sql, '{word}', '{other}')" if other else "''"
    return _trigger("before", "plan", f"NEW.sql := {planned};", "NEW")


_DONE_TWICE = _Break(name="a-job-is-done-twice", at=judged.TWICE, after=_again("NEW.phase = 'done' AND NEW.key = 1"))
_FORBIDDEN = _Break(
    name="a-job-begins-that-must-not", at=judged.FORBIDDEN, after=_again("NEW.phase = 'begin' AND NEW.key = 2", "1")
)
_UNFINISHED = _Break(
    name="the-end-of-a-job-is-lost",
    at=judged.UNFINISHED,
    in_vain=True,
    before="IF NEW.phase = 'done' AND NEW.key = 1 THEN RETURN NULL; END IF;",
    # the engine believes that it is done
    states="SELECT 1, 'done'",
)
_NO_RUN = "IF NEW.phase = 'begin' AND {} THEN RETURN NULL; END IF;"
_BREAKS: dict[Case, tuple[_Break, ...]] = {
    Case.WORKS: (
        _DONE_TWICE,
        _UNFINISHED,
        _Break(name="the-state-of-a-job-is-another", at=judged.STATES, states="SELECT 1, 'failed'"),
        _Break(
            name="a-job-is-not-enqueued",
            at=judged.NOT_ENQUEUED,
            before="IF NEW.phase = 'enqueued' AND NEW.key = 1 THEN RAISE 'not enqueued'; END IF;",
        ),
    ),
    Case.IDLE: (
        _Break(
            name="a-job-begins-late",
            at=judged.IDLE,
            before="IF NEW.phase = 'begin' AND NEW.key = 1 THEN NEW.at := NEW.at + interval '300 s'; END IF;",
        ),
        _Break(
            name="jobs-begin-later-than-next-to-the-pooler",
            at=judged.SLOWER,
            before="IF NEW.phase = 'begin' AND NEW.key BETWEEN 1 AND 99 THEN NEW.at := NEW.at + interval '300 s'; END IF;",
            needs=(_POOLER,),
        ),
    ),
    Case.FAULTS: (_UNFINISHED,),
    Case.CLAIMS: (
        _Break(
            name="a-job-is-taken-over-early",
            at=judged.EARLY,
            before="IF NEW.phase = 'begin' THEN NEW.at := coalesce((SELECT min(at) + interval '100 ms' FROM effects "
            "WHERE key = NEW.key AND phase = 'begin'), NEW.at); END IF;",
        ),
        _Break(
            name="the-result-of-a-stale-worker-counts",
            at=judged.STALE,
            engine="CREATE SEQUENCE looks",
            # only the first look is before the return of that worker
            states="SELECT 1, CASE nextval('looks') WHEN 1 THEN 'running' ELSE 'done' END",
        ),
        _Break(
            name="a-job-stays-with-its-frozen-worker",
            at=judged.KEPT_BY_FROZEN,
            before=_NO_RUN.format("NEW.key = 1 AND NEW.worker = 'B'"),
        ),
        _Break(
            name="a-job-begins-again-after-its-end",
            at=judged.AGAIN,
            # of the job that nobody takes over: where a stale result counts, the case ends before the other job does
            after="IF NEW.phase = 'done' AND NEW.key = 2 THEN INSERT INTO effects (at, key, phase) "
            "VALUES (NEW.at + interval '60 s', 2, 'begin'); END IF;",
        ),
    ),
    Case.HEARTBEAT: (
        _Break(
            name="a-job-with-a-heartbeat-is-taken-over",
            at=judged.RENEWED,
            after=_again("NEW.phase = 'begin' AND NEW.key = 1"),
        ),
        _Break(
            name="a-silent-job-is-kept",
            at=judged.KEPT,
            renewed_by_job=True,
            before=_NO_RUN.format("NEW.key = 2 AND EXISTS (SELECT FROM effects WHERE key = 2 AND phase = 'begin')"),
        ),
    ),
    Case.RETRIES: (
        _Break(name="an-attempt-is-repeated", at=judged.ATTEMPTS, after=_again("NEW.phase = 'begin' AND NEW.key = 1")),
    ),
    Case.CANCEL: (_FORBIDDEN,),
    Case.APPROVE: (
        _DONE_TWICE,
        _Break(
            name="a-job-goes-on-late",
            at=judged.WAITED,
            before="IF NEW.phase = 'done' THEN NEW.at := NEW.at + interval '300 s'; END IF;",
        ),
        _Break(
            name="a-job-goes-on-unapproved",
            at=judged.UNAPPROVED,
            before="IF NEW.phase = 'done' THEN NEW.at := NEW.at - interval '300 s'; END IF;",
        ),
    ),
    Case.CRON: (
        _Break(name="a-window-has-two-runs", at=judged.WINDOWS, after=_again("NEW.phase = 'begin'")),
        _Break(name="no-window-has-a-run", at=judged.NO_WINDOW, in_vain=True, before=_NO_RUN.format("NEW.key = 1")),
    ),
    Case.FORK: (_DONE_TWICE,),
    Case.CHILDREN: (
        _DONE_TWICE,
        _Break(
            name="a-parent-ends-early",
            at=judged.ORDER,
            before="IF NEW.phase = 'done' AND NEW.key = 1 THEN NEW.at := NEW.at - interval '300 s'; END IF;",
        ),
    ),
    Case.TRANSACTION: (_FORBIDDEN,),
    Case.AUDITED: (
        _Break(name="jobs-lose-their-actor", at=judged.ACTOR, sql=_planned("%ACTOR%", "somebody-else")),
        _Break(name="jobs-lose-their-correlation", at=judged.CORRELATION, sql=_planned("%CORRELATION%", "another")),
        _Break(name="jobs-lose-their-id", at=judged.JOB, sql=_planned("%JOB%", "another")),
        _Break(name="jobs-write-nothing", at=judged.CHANGES, sql=_planned("")),
    ),
}


def controls_of(check: Check, case: Case, settings: Settings) -> Iterator[Control]:
    """Yield the controls of one case, with the settings of the variant."""
    for broken in _BREAKS.get(case, ()):
        if broken.renewed_by_job and not settings.heartbeat_by_job:
            continue
        yield Control(name=broken.name, check=check.id, at=broken.at, needs=broken.needs, apply=_Applied(broken))
    if case is Case.LEAVES_NOTHING:
        for left in _LEFT:
            yield Control(name=left.name, check=check.id, at=left.at, needs=left.needs, apply=left)


class _Applied:
    """The function of a control that a row of the table describes."""

    def __init__(self, broken: _Break) -> None:
        self._broken = broken

    def __call__(self, ctx: CheckContext) -> None:
        broken = self._broken
        triggers = {"before": (broken.before, "NEW"), "after": (broken.after, "NULL")}
        ctx.effects_sql = broken.sql + "".join(
            _trigger(when, "effects", body, result) for when, (body, result) in triggers.items() if body
        )
        ctx.engine_states = broken.states
        ctx.awaited_in_vain = broken.in_vain
        if broken.engine:
            ctx.with_engine_database = lambda database: _run_as_superuser(ctx, database, broken.engine)


def _run_as_superuser(ctx: CheckContext, database: str, statements: str) -> None:
    with ctx.lab.connect_admin(database) as admin:
        admin.run(statements)


class _Left(Struct, frozen=True, kw_only=True):
    """Something that a client leaves in the database of the engine, or keeps until the check ends."""

    name: str
    at: str
    sql: str
    needs: tuple[Capability, ...] = ()
    #: whether the client is behind the chain, and leaves at once; else it is on a direct connection, and stays
    chain: bool = False

    def __call__(self, ctx: CheckContext) -> None:
        def leave(database: str) -> None:
            client = ctx.connect(ctx.lab.chain(database) if self.chain else ctx.lab.direct(database))
            client.run(self.sql)
            if self.chain:
                client.close()

        ctx.with_engine_database = leave


#: sessions of the role of the application
_LEFT = (
    _Left(name="a-lock-is-left", at=judged.LOCKS, sql="SELECT pg_advisory_lock(4711)"),
    _Left(name="a-transaction-is-left", at=judged.TRANSACTIONS, sql="BEGIN; SELECT 1"),
    _Left(name="a-transaction-stays-open", at=judged.PINNED, needs=(MOVES,), sql="BEGIN; SELECT 1"),
    _Left(
        name="a-statement-is-left",
        at=judged.STATEMENTS,
        needs=(MOVES,),
        chain=True,
        sql="PREPARE left_here AS SELECT 1",
    ),
    _Left(name="a-channel-is-left", at=judged.CHANNELS, needs=(MOVES,), chain=True, sql="LISTEN left_here"),
)
