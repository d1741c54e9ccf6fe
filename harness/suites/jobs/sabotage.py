"""Controls of the suite: each lets the effects, or what the engine says, be as a broken engine would leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import jobs as judged
from harness.checks.registry import Control
from harness.job_engines.target_file import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check

_LOCK = 4711


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


def _again(condition: str, key: str = "NEW.key") -> str:
    """Return the body of a trigger that repeats an effect, of the same job or of another one."""
    return (
        f"IF {condition} THEN INSERT INTO effects (key, phase, attempt) VALUES ({key}, NEW.phase, NEW.attempt); END IF;"
    )


_DONE_TWICE = _Break(name="a-job-is-done-twice", at=judged.TWICE, after=_again("NEW.phase = 'done' AND NEW.key = 1"))
_FORBIDDEN = _Break(
    name="a-job-begins-that-must-not", at=judged.FORBIDDEN, after=_again("NEW.phase = 'begin' AND NEW.key = 2", "1")
)
_UNFINISHED = _Break(
    name="the-end-of-a-job-is-lost",
    at=judged.UNFINISHED,
    before="IF NEW.phase = 'done' AND NEW.key = 1 THEN RETURN NULL; END IF;",
    # the engine believes that it is done
    states="SELECT 1, 'done'",
)
_BREAKS: dict[Case, tuple[_Break, ...]] = {
    Case.WORKS: (_DONE_TWICE, _UNFINISHED),
    Case.IDLE: (
        _Break(
            name="a-job-begins-late",
            at=judged.IDLE,
            before="IF NEW.phase = 'begin' AND NEW.key = 1 THEN NEW.at := NEW.at + interval '300 s'; END IF;",
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
        _Break(name="the-result-of-a-stale-worker-counts", at=judged.STALE, states="SELECT 1, 'done'"),
    ),
    Case.HEARTBEAT: (
        _Break(
            name="a-job-with-a-heartbeat-is-taken-over",
            at=judged.RENEWED,
            after=_again("NEW.phase = 'begin' AND NEW.key = 1"),
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
    Case.CRON: (_Break(name="a-window-has-two-runs", at=judged.WINDOWS, after=_again("NEW.phase = 'begin'")),),
    Case.FORK: (_DONE_TWICE,),
    Case.CHILDREN: (
        _Break(
            name="a-parent-ends-early",
            at=judged.ORDER,
            before="IF NEW.phase = 'done' AND NEW.key = 1 THEN NEW.at := NEW.at - interval '300 s'; END IF;",
        ),
    ),
    Case.TRANSACTION: (_FORBIDDEN,),
    Case.AUDITED: (
        _Break(
            name="jobs-lose-their-actor",
            at=judged.ACTOR,
            sql="CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS "
            "$b$ BEGIN NEW.sql := replace(NEW.sql, '%ACTOR%', 'somebody-else'); RETURN NEW; END $b$; "
            "CREATE TRIGGER forget BEFORE INSERT ON plan FOR EACH ROW EXECUTE FUNCTION forget()",
        ),
        _Break(
            name="jobs-write-nothing",
            at=judged.CHANGES,
            sql="CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS "
            "$b$ BEGIN NEW.sql := ''; RETURN NEW; END $b$; "
            "CREATE TRIGGER forget BEFORE INSERT ON plan FOR EACH ROW EXECUTE FUNCTION forget()",
        ),
    ),
}


def controls_of(check: Check, case: Case) -> Iterator[Control]:
    """Yield the controls of one case."""
    for broken in _BREAKS.get(case, ()):
        yield Control(name=broken.name, check=check.id, at=broken.at, needs=(), apply=_Applied(broken))
    if case is Case.LEAVES_NOTHING:
        yield Control(name="a-lock-is-left", check=check.id, at=judged.LOCKS, needs=(), apply=leave_a_lock)


class _Applied:
    """The function of a control that a row of the table describes."""

    def __init__(self, broken: _Break) -> None:
        self._broken = broken

    def __call__(self, ctx: CheckContext) -> None:
        broken = self._broken
        triggers = {"before": (broken.before, "NEW"), "after": (broken.after, "NULL")}
        ctx.effects_sql = broken.sql + "".join(
            f"""
CREATE FUNCTION broken_{when}() RETURNS trigger LANGUAGE plpgsql AS
$b$ BEGIN {body} RETURN {result}; END $b$;
CREATE TRIGGER broken_{when} {when} INSERT ON effects
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION broken_{when}();"""
            for when, (body, result) in triggers.items()
            if body
        )
        ctx.engine_states = broken.states


def leave_a_lock(ctx: CheckContext) -> None:
    """Keep an advisory lock in the database of the engine until the check ends."""

    def lock(database: str) -> None:
        client = ctx.connect(ctx.lab.admin(database))
        client.value("SELECT pg_advisory_lock(%s)", [_LOCK])

    ctx.with_engine_database = lock
