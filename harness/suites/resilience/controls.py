"""Controls of the checks of acknowledged writes: what loses, repeats, mixes up or misattributes writes under a fault.

Each check has at least one control that fits its fault, and each expectation of the judge is broken by one of them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from weakref import WeakSet

from msgspec.structs import replace

from harness.checks.judges.acknowledged import (
    FAILED,
    FOREIGN,
    HALF,
    LOST,
    MISATTRIBUTED,
    MIXED,
    PANIC,
    REPEATED,
    UNRECORDED,
)
from harness.checks.record import NotExercisedError
from harness.checks.registry import breaks
from harness.database import SqlError
from harness.errors import HarnessError
from harness.suites.resilience.injection import RECOVERS, await_log
from harness.suites.resilience.tables import direct, prepare_tables
from harness.suites.resilience.writes import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext
    from harness.checks.judges import Judge
    from harness.checks.registry import Control
    from harness.database import Client
    from harness.model import Expectation
    from harness.model.history import History, Outcome

#: before this version, each full page of the write-ahead log wakes the process that writes it
_WAKES_LESS_OFTEN = 170000
#: more than the server keeps in memory before it writes the log itself, bytes
_MUCH_LOG = 16 << 20
#: no file of the process grows beyond it; files of the write-ahead log are larger, and the server's log is smaller
_FILE_LIMIT = 4 << 20


def commits_without_waiting_for_the_disk(ctx: CheckContext) -> None:
    """Acknowledge the commits of the application before they are written: a crash loses the last ones."""
    role = ctx.lab.roles.app.name
    ctx.sabotage(f"ALTER ROLE {role} IN DATABASE {ctx.database} SET synchronous_commit = off")
    ctx.admin.run("ALTER SYSTEM SET wal_writer_delay = '10s'")
    ctx.admin.run("SELECT pg_reload_conf()")
    ctx.when_ended(lambda: _reset_wal_writer(ctx))
    if ctx.admin.info.server_version < _WAKES_LESS_OFTEN:
        pid = ctx.admin.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        ctx.lab.postgres.signal_process(pid, "SIGSTOP")
        ctx.when_ended(lambda: _thaw(ctx, pid))


def _reset_wal_writer(ctx: CheckContext) -> None:
    with ctx.lab.connect_admin() as admin:
        admin.run("ALTER SYSTEM RESET wal_writer_delay")
        admin.run("SELECT pg_reload_conf()")


def _thaw(ctx: CheckContext, pid: int) -> None:
    with contextlib.suppress(HarnessError):  # it has ended with the server
        ctx.lab.postgres.signal_process(pid, "SIGCONT")


def success_reported_before_commit(ctx: CheckContext) -> None:
    """Let the application acknowledge its work while the transaction is still open."""
    ctx.application.acknowledges_early = True


def unknown_work_repeated(ctx: CheckContext) -> None:
    """Let the application repeat work whose outcome it does not know."""
    ctx.application.repeats_unknown = True


def statements_that_commit_alone(ctx: CheckContext) -> None:
    """Let the application open no transaction for its work."""
    ctx.application.transaction = lambda _: contextlib.nullcontext()


def actor_of_the_connection(ctx: CheckContext) -> None:
    """Let the application set the actor when it first uses a connection, which it shares among its users."""
    known: WeakSet[Client] = WeakSet()

    def declare(client: Client, actor: Actor) -> None:
        if client not in known:
            known.add(client)
            ctx.application.declare_for_the_session(client, actor)

    ctx.application.declare = declare


def one_change_in_a_thousand_lost(ctx: CheckContext) -> None:
    """Let the trail lose one change in a thousand, among the first of the check."""
    ctx.sabotage("CREATE SEQUENCE public.lost; GRANT USAGE ON SEQUENCE public.lost TO PUBLIC")
    ctx.tamper("audit_changes", "IF nextval('public.lost') % 1000 = 25 THEN RETURN NULL; END IF")


def values_changed_in_the_trail(ctx: CheckContext) -> None:
    """Let the trail store other values than those that were written."""
    ctx.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"value": "another"}'""")


def half_of_the_work_captured(ctx: CheckContext) -> None:
    """Capture only one of the two tables."""
    prepare_tables(ctx)
    ctx.disable_capture("public.operations")


def unknown_work_taken_for_failed(ctx: CheckContext) -> None:
    """Let the judge take an unknown outcome for a failure."""
    _read_unknown_as(ctx, "fail")


def unknown_work_taken_for_acknowledged(ctx: CheckContext) -> None:
    """Let the judge take an unknown outcome for an acknowledgement."""
    _read_unknown_as(ctx, "ok")


def _read_unknown_as(ctx: CheckContext, outcome: Outcome) -> None:
    def forgetful(judge: Judge) -> Judge:
        def judged(history: History, state: object) -> tuple[Expectation, ...]:
            operations = tuple(
                replace(one, outcome=outcome) if one.outcome == "unknown" else one for one in history.operations
            )
            return judge.judge(replace(history, operations=operations), state)

        return replace(judge, judge=judged)

    ctx.judged_by = forgetful


def write_ahead_log_that_cannot_grow(ctx: CheckContext) -> None:
    """Let a server process fail to write the write-ahead log: the server panics and recovers, before the check begins."""
    prepare_tables(ctx)
    before = len(ctx.lab.postgres.logs())
    with ctx.lab.connect_admin(ctx.database) as doomed:
        try:
            doomed.run(f"COPY (SELECT 1) TO PROGRAM 'prlimit --pid {doomed.server_pid()} --fsize={_FILE_LIMIT}:'")
            doomed.run(f"SELECT pg_logical_emit_message(true, 'control', repeat('x', {_MUCH_LOG}))")
        except SqlError as error:
            if error.diag.severity_nonlocalized != "PANIC":
                raise
        else:
            raise NotExercisedError("the server process wrote its log in spite of the limit")
    await_log(ctx.lab.postgres, before, RECOVERS)
    direct(ctx)


#: by fault: what breaks its check, and the expectation that must not hold then
BROKEN_BY: dict[str, tuple[tuple[Callable[[CheckContext], None], str], ...]] = {
    "connections-terminated": (
        (success_reported_before_commit, LOST),
        (statements_that_commit_alone, MIXED),
        (write_ahead_log_that_cannot_grow, PANIC),
    ),
    "process-killed": ((commits_without_waiting_for_the_disk, LOST),),
    "server-restarted": ((success_reported_before_commit, LOST),),
    "server-restarted-immediately": ((commits_without_waiting_for_the_disk, LOST),),
    "server-killed": ((commits_without_waiting_for_the_disk, LOST),),
    "server-frozen": ((one_change_in_a_thousand_lost, UNRECORDED),),
    "pooler-restarted": ((one_change_in_a_thousand_lost, UNRECORDED),),
    "pooler-killed": ((success_reported_before_commit, LOST),),
    "pooler-frozen": ((actor_of_the_connection, MISATTRIBUTED),),
    "pooler-paused": ((actor_of_the_connection, MISATTRIBUTED),),
    "pooler-reloaded": ((values_changed_in_the_trail, FOREIGN),),
    "pooler-reconnected": ((actor_of_the_connection, MISATTRIBUTED),),
    "database-killed": ((success_reported_before_commit, LOST),),
    "database-disabled": ((one_change_in_a_thousand_lost, UNRECORDED),),
    "server-link-cut": ((success_reported_before_commit, LOST),),
    "server-link-black-hole": ((one_change_in_a_thousand_lost, UNRECORDED),),
    "server-link-half-open": ((actor_of_the_connection, MISATTRIBUTED),),
    "server-link-slow": ((values_changed_in_the_trail, FOREIGN),),
    "application-link-cut": ((success_reported_before_commit, LOST), (actor_of_the_connection, MISATTRIBUTED)),
    "application-link-black-hole": ((one_change_in_a_thousand_lost, UNRECORDED),),
    "application-link-half-open": ((actor_of_the_connection, MISATTRIBUTED),),
    "commit-lost": ((unknown_work_taken_for_acknowledged, LOST), (values_changed_in_the_trail, FOREIGN)),
    "commit-answer-lost": (
        (unknown_work_taken_for_failed, FAILED),
        (unknown_work_repeated, REPEATED),
        (half_of_the_work_captured, HALF),
        (one_change_in_a_thousand_lost, UNRECORDED),
    ),
    "disk-full": ((one_change_in_a_thousand_lost, UNRECORDED),),
}

CONTROLS: tuple[Control, ...] = tuple(
    breaks(one, at=at)(break_it)
    for one in CHECKS
    for break_it, at in BROKEN_BY.get(one.id.removeprefix("resilience."), ())
)
