"""Soak: the load of pgbench, next to the same load without an audit trail."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from harness.checks.judges import soak
from harness.checks.judges.soak import SOAK_JUDGE
from harness.checks.record import NotExercisedError
from harness.checks.registry import MOVES, P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.soak.programs import AUDITED, PLAIN, Ended, Pace, Pgbench, aborted_clients
from harness.suites.soak.sabotage import every_thousandth
from harness.suites.soak.tables import (
    COMPARED,
    actor_of,
    compare,
    connections,
    end_blocked,
    most_clients,
    prepare,
    queries,
    record_growth,
    sizes,
)

if TYPE_CHECKING:
    from threading import Event

    from harness.checks.context import CheckContext
    from harness.model.history import Outcome
    from harness.store import Journal

#: transactions per second of all clients: a pace that two cores keep up with, next to other checks
RATE = 300.0
#: pgbench runs for so long at a time: the comparison without a trail takes turns with it
_TURN_S = 10.0
#: a load goes on until so many writes were acknowledged, since a trail may lose one in a thousand
_LEAST_WRITES = 1200
_MOST_TURNS_MORE, _MORE_S = 6, 3.0
_TICK_S = 1.0
#: after its time, pgbench waits for its last transactions
_LATE_S, _NEVER_S = 8.0, 60.0
#: the identity of a transaction that wrote nothing
_OF_ANOTHER = "00000000-0000-8000-8000-000000000017"


class _Load:
    """The turns of pgbench in one check, and the history of them."""

    def __init__(self, ctx: CheckContext, pgbench: Pgbench, pace: Pace, journal: Journal, interrupted: Event) -> None:
        self._ctx = ctx
        self._pgbench = pgbench
        self._pace = pace
        self._journal = journal
        self._interrupted = interrupted
        #: seconds of load that are asked for, of all loads
        self._asked_s = 0.0
        #: whether the clients of a turn did not last, so that another turn would show nothing more
        self._is_over = False
        #: seconds between the server's clock and that of the history
        self._clock_s = float(ctx.admin.value("SELECT extract(epoch FROM clock_timestamp())")) - journal.seconds
        #: clients that waited for a lock at the end, and for whom
        self.blocked: tuple[str, ...] = ()
        #: whether the harness ended the clients of a turn
        self._cut = False
        self.lines = dict.fromkeys((AUDITED, PLAIN), 0)
        self.seconds = dict.fromkeys((AUDITED, PLAIN), 0.0)

    def run(self, loads: tuple[str, ...], lasts_s: float) -> None:
        """Run the loads in turns, each for the stated time, or until the run is interrupted."""
        turn = more = 0
        self._asked_s = lasts_s * len(loads)
        while self.seconds[AUDITED] < lasts_s or (self.lines[AUDITED] < _LEAST_WRITES and more < _MOST_TURNS_MORE):
            left_s = lasts_s - self.seconds[AUDITED]
            more += left_s <= 0
            turn += 1
            for load in loads:
                if self._interrupted.is_set() or self._is_over:
                    return
                self._turn(load, turn, min(_TURN_S, left_s if left_s > 0 else max(lasts_s, _MORE_S)))

    def _turn(self, load: str, turn: int, seconds: float) -> None:
        """Run pgbench once, and read its log."""
        began, seen, self._cut = time.monotonic(), dict[int, int](), False
        pool = ThreadPoolExecutor(1, thread_name_prefix="pgbench")
        try:
            running = pool.submit(self._pgbench.run, load, turn, seconds, self._pace)
            while not wait([running], timeout=_TICK_S).done:
                passed_s = time.monotonic() - began
                seen[int(self._journal.seconds)] = connections(self._ctx)
                self._show(load, passed_s)
                self._end_if_due(passed_s - seconds)
            ended = running.result()
        finally:
            pool.shutdown(wait=False)  # after an error here, pgbench ends with its time, or with its server
        self.lines[load] += self._pgbench.read_log(ended)
        self.seconds[load] += min(time.monotonic() - began, seconds)
        self._sample(ended, seen)
        if load == AUDITED:
            self._record_outcomes(ended)
        self._is_over = bool(self.blocked) or len(aborted_clients(ended.output)) >= self._pace.clients

    def _show(self, load: str, passed_s: float) -> None:
        """Show how much of the load is done."""
        done_s = sum(self.seconds.values()) + passed_s
        what = "seconds of pgbench" if load == AUDITED else "seconds of pgbench without a trail"
        self._ctx.progress(min(done_s, self._asked_s), self._asked_s, what)

    def _end_if_due(self, late_s: float) -> None:
        """End pgbench when the run is interrupted, and clients that wait for a lock when it should have ended.

        :raises NotExercisedError: when it does not end for another reason.
        """
        if self._interrupted.is_set():
            self._cut = True
            self._pgbench.end_soon()
        if late_s > _LATE_S and (blocked := end_blocked(self._ctx)):
            self._cut = True
            self.blocked += blocked
        if late_s > _NEVER_S:
            raise NotExercisedError(f"pgbench still runs {_NEVER_S:g} s after its time")

    def _sample(self, ended: Ended, seen: dict[int, int]) -> None:
        """Add a sample of each second to the history.

        :param seen: the server connections in each second.
        """
        before = "plain " if ended.load == PLAIN else ""
        for second, lasts_s, committed, failed, latencies, lag in self._ctx.admin.rows(
            queries()["samples"], [ended.load, ended.first, ended.last]
        ):
            at_s = max(float(second) - self._clock_s, 0.0)
            values = {
                f"{before}transactions per second": round(committed / float(lasts_s), 1),
                f"{before}errors per second": round(failed / float(lasts_s), 1),
            }
            if latencies:
                values |= {f"{before}latency ms p50": _ms(latencies[0]), f"{before}latency ms p95": _ms(latencies[1])}
            if lag is not None:
                values[f"{before}schedule lag ms p95"] = _ms(lag)
            if int(at_s) in seen:
                values["server connections"] = float(seen[int(at_s)])
            self._journal.sample(values, at_s=round(at_s, 3))

    def _record_outcomes(self, ended: Ended) -> None:
        """Add the transactions that failed or are unknown to the history, and the outcome of all to the database."""
        admin, clients = self._ctx.admin, [ended.first, ended.last]
        admin.run(queries()["acknowledge"], clients)
        for client, seq in admin.rows(queries()["failures"], clients):
            self._record(client, seq, "fail", "pgbench reports a failed transaction")
        reached = dict(admin.rows(queries()["reached"], clients))
        for aborted in aborted_clients(ended.output):
            client = ended.first + aborted.client
            self._record(client, reached.get(client, 0) + 1, "unknown", aborted.error)
            admin.run("INSERT INTO soak.outcomes VALUES (%s, %s, 'unknown')", [client, reached.get(client, 0) + 1])

    def _record(self, client: int, seq: int, outcome: Outcome, error: str) -> None:
        operation = "interrupted" if self._cut else "insert"
        self._journal.invoke(client, seq, operation, actor=actor_of(client).id or "")
        self._journal.answer(client, seq, outcome, error)


def _ms(microseconds: float) -> float:
    return round(microseconds / 1000, 3)


@check(
    "soak.pgbench",
    claim="under the load of pgbench every acknowledged insert is in table and trail exactly once, in order, with its actor "
    "and in a transaction of its own, and nothing is left behind",
    section=Section.SOAK,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=COMPARED,
    own_servers=True,
    on_demand=True,
    loads=2,
    longest_s=240.0,
)
def pgbench(ctx: CheckContext) -> None:
    """Run pgbench in turns with the trail and without it; a control needs no comparison."""
    prepare(ctx)
    program = Pgbench(ctx)
    pace = Pace(clients=most_clients(ctx), rate=RATE)
    facts = {"load": f"pgbench {program.version}", "clients": str(pace.clients), "rate": f"{RATE:g} per second"}
    before = sizes(ctx)
    with ctx.ending_in_order() as interrupted, ctx.history(SOAK_JUDGE, **facts) as journal:
        load = _Load(ctx, program, pace, journal, interrupted)
        load.run((AUDITED,) if ctx.control else (AUDITED, PLAIN), ctx.load.soak_s)
        state = compare(ctx, load.blocked)
        if not state.acknowledged:
            raise NotExercisedError("pgbench committed no transaction")
        journal.keep_state(state)
        for name, value in facts.items():
            ctx.fact(name, value)
        _record_measures(ctx, load)
        record_growth(ctx, before, state.acknowledged)


def _record_measures(ctx: CheckContext, load: _Load) -> None:
    """Record rates and latencies as facts: no verdict follows from them."""
    for name, committed, latencies, lag in ctx.admin.rows(queries()["measures"]):
        before, seconds = "plain " if name == PLAIN else "", load.seconds[name]
        ctx.fact(f"{before}seconds", round(seconds, 1))
        ctx.fact(f"{before}transactions", committed)
        ctx.fact(f"{before}transactions per second", round(committed / max(seconds, 0.1), 1))
        for percentile, latency in zip((50, 95, 99), latencies or (), strict=False):
            ctx.fact(f"{before}latency ms p{percentile}", _ms(latency))
        if lag is not None:
            ctx.fact(f"{before}schedule lag ms p95", _ms(lag))


@breaks(pgbench, at=soak.MISSING_CHANGES)
def a_trail_that_loses_one_in_a_thousand(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", "RETURN NULL")


@breaks(pgbench, at=soak.MISSING_ROWS)
def an_acknowledgement_without_a_commit(ctx: CheckContext) -> None:
    """Drop a row that the client believes to be written."""
    prepare(ctx)
    every_thousandth(ctx, "public.soak_writes", "RETURN NULL")


@breaks(pgbench, at=soak.REPEATED_CHANGES)
def a_change_twice(ctx: CheckContext) -> None:
    every_thousandth(
        ctx,
        "public.audit_changes",
        "INSERT INTO public.audit_changes SELECT (jsonb_populate_record(NEW, jsonb_build_object('id', gen_random_uuid()))).*",
    )


@breaks(pgbench, at=soak.REPEATED_ROWS)
def a_write_twice(ctx: CheckContext) -> None:
    prepare(ctx)
    every_thousandth(
        ctx,
        "public.soak_writes",
        "INSERT INTO public.soak_writes (client, seq, value) VALUES (NEW.client, NEW.seq, NEW.value)",
    )


@breaks(pgbench, at=soak.IMAGES)
def an_image_of_another_row(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", """NEW.data_after := NEW.data_after || '{"value": "another"}'""")


@breaks(pgbench, at=soak.ACTORS)
def an_actor_of_the_connection(ctx: CheckContext) -> None:
    """Take the actor from the server connection, which other clients use as well."""
    ctx.rewrite_capture(
        (
            "nullif(current_setting('threadline.actor_ref', true), '')::jsonb",
            "jsonb_build_object('type', 'user', 'id', 'connection-' || pg_backend_pid())",
        )
    )


@breaks(pgbench, at=soak.SHARED)
def one_transaction_for_all(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", f"NEW.transaction_id := '{_OF_ANOTHER}'")


@breaks(pgbench, at=soak.SESSIONS, needs=(MOVES,))
def a_lock_that_stays_with_the_connection(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", "PERFORM pg_advisory_lock_shared(17)")


@breaks(pgbench, at=soak.BLOCKED, needs=(MOVES,))
def a_lock_that_stops_the_next_writer(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", "PERFORM pg_advisory_lock(17)", every=300)


@breaks(pgbench, at=soak.UNPLANNED)
def an_error_that_nobody_planned(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", "RAISE EXCEPTION 'the trail is out of order'")
