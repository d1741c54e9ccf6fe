"""Soak: a mix of success, retry, cancellation, replay, errors, idle clients and reconnects."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from statistics import quantiles
from threading import Event
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.checks.judges import soak
from harness.checks.judges.soak import SOAK_JUDGE, Found
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import Client, SqlError, cut, describe
from harness.model import Section
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.soak.clients import CYCLE, LoadClient, Tally
from harness.suites.soak.sabotage import every_thousandth
from harness.suites.soak.tables import (
    COMPARED,
    IDLE_CLIENTS,
    compare,
    connections,
    end_blocked,
    ends_idle_clients,
    most_clients,
    prepare,
    record_growth,
    sizes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.context import CheckContext
    from harness.store import Journal

_CLIENTS, _IDLE = 6, 2
#: operations per second of all clients
RATE = 100.0
_TICK_S = 1.0
#: a short load goes on for so long at most, until each operation has been performed
_LONGER_S = 20.0
#: the longest operation is a cancellation that is lost
_LATE_S = 10.0


class _Result(Struct, frozen=True, kw_only=True):
    """How the clients' work ended."""

    seconds: float
    #: clients that waited for a lock at the end, and for whom
    blocked: tuple[str, ...]


def _run(
    ctx: CheckContext, clients: Sequence[LoadClient], tally: Tally, journal: Journal, interrupted: Event
) -> _Result:
    """Let the clients work for the stated time, or until the run is interrupted."""
    stop, began, lasts_s = Event(), time.monotonic(), ctx.load.soak_s
    interval_s, step = len(clients) / RATE, max(1, len(CYCLE) // len(clients))
    acknowledged = failed = 0
    with ThreadPoolExecutor(len(clients), thread_name_prefix="soak") as pool:
        working = [pool.submit(client.work, stop, interval_s, step * place) for place, client in enumerate(clients)]
        try:
            while not any(one.done() for one in working):
                left_s = began + lasts_s - time.monotonic()
                if left_s <= -_LONGER_S or (left_s <= 0 and not tally.lacking()):
                    break
                sampled_at = time.monotonic()
                # the last interval takes what is left, so that none is a fragment
                if interrupted.wait(left_s if 0 < left_s < 2 * _TICK_S else _TICK_S):
                    break
                ctx.progress(lasts_s - max(left_s - _TICK_S, 0), lasts_s, "seconds of load")
                latencies, failed_now = tally.since(acknowledged)
                passed_s = time.monotonic() - sampled_at
                values = {
                    "transactions per second": round(len(latencies) / passed_s, 1),
                    "errors per second": round((failed_now - failed) / passed_s, 1),
                    "server connections": float(connections(ctx)),
                }
                acknowledged, failed = acknowledged + len(latencies), failed_now
                journal.sample(
                    values | {f"latency ms p{number}": value for number, value in _percentiles(latencies, (50, 95))}
                )
        finally:
            stop.set()
        seconds, blocked = time.monotonic() - began, tuple[str, ...]()
        while wait(working, timeout=_LATE_S).not_done:
            for client in clients:
                client.cut = True
            ended = end_blocked(ctx)
            if not ended:  # the harness has ended nothing: what breaks from now on counts
                for client in clients:
                    client.cut = False
            blocked += ended
        for one in working:
            one.result()
    return _Result(seconds=seconds, blocked=blocked)


def _percentiles(latencies: Sequence[float], numbers: Sequence[int]) -> list[tuple[int, float]]:
    if len(latencies) < 2:
        return []
    found = quantiles(latencies, n=100, method="inclusive")
    return [(number, round(found[number - 1], 3)) for number in numbers]


def _still_idle(idle: Sequence[Client]) -> Found:
    """Return the idle clients that no longer work, and close them all."""
    broken = []
    for number, client in enumerate(idle):
        try:
            client.value("SELECT 1")
        except SqlError as error:
            broken.append(f"client {number}: {describe(error)}")
        client.close()
    return Found(count=len(broken), first=tuple(broken))


@check(
    "soak.mix",
    claim="under a mix of success, retry, cancellation, replay, errors, idle clients and reconnects every acknowledged "
    "insert is in table and trail exactly once, with its actor, no failed one is, and nothing is left behind",
    section=Section.SOAK,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=COMPARED,
    own_servers=True,
    on_demand=True,
    loads=1,
    longest_s=150.0,
)
def mix(ctx: CheckContext) -> None:
    prepare(ctx)
    room = most_clients(ctx)
    idle_clients = 0 if (ends := ends_idle_clients(ctx)) else min(_IDLE, room // 2)
    if ends:
        ctx.fact("idle clients", f"none: {ends} ends them by design")
    number = min(_CLIENTS, room - idle_clients)
    facts = {"load": "psycopg", "clients": f"{number}, and {idle_clients} idle", "rate": f"{RATE:g} per second"}
    before, tally = sizes(ctx), Tally()
    with ctx.ending_in_order() as interrupted, ctx.history(SOAK_JUDGE, **facts) as journal:
        idle = [ctx.client() for _ in range(idle_clients)]
        for client in idle:
            client.value("SELECT 1")
        clients = [LoadClient(ctx, place + 1, journal, tally) for place in range(number)]
        ran = _run(ctx, clients, tally, journal, interrupted)
        found = _still_idle(idle) if idle else None
        ctx.admin.copy_in(
            "COPY soak.outcomes FROM STDIN",
            [
                (client.number, seq, outcome)
                for client in clients
                for outcome, seqs in client.outcomes.items()
                for seq in seqs
            ],
        )
        state = compare(ctx, ran.blocked, found)
        journal.keep_state(state)
        for name, value in facts.items():
            ctx.fact(name, value)
        ctx.fact("seconds", round(ran.seconds, 1))
        ctx.fact("transactions", state.acknowledged)
        ctx.fact("transactions per second", round(state.acknowledged / ran.seconds, 1))
        ctx.fact("operations", dict(tally.performed))
        for percentile, latency in _percentiles(tally.latencies_ms, (50, 95, 99)):
            ctx.fact(f"latency ms p{percentile}", latency)
        record_growth(ctx, before, state.acknowledged)
    if lacking := tally.lacking():
        raise NotExercisedError(f"not one of these operations ended as it is meant to: {', '.join(lacking)}")


@breaks(mix, at=soak.MISSING_CHANGES)
def a_trail_that_loses_a_row(ctx: CheckContext) -> None:
    every_thousandth(ctx, "public.audit_changes", "RETURN NULL", every=100)


@breaks(mix, at=soak.FAILED_ROWS)
def statements_that_commit_alone(ctx: CheckContext) -> None:
    """Open no transaction, so that an error after the write no longer undoes it."""
    ctx.application.begin = ctx.application.begin_nothing


@breaks(mix, at=soak.STRAYS)
def a_write_of_nobody(ctx: CheckContext) -> None:
    prepare(ctx)
    every_thousandth(
        ctx,
        "public.soak_writes",
        "INSERT INTO public.soak_writes (client, seq, value) VALUES (0, nextval('public.tampered'), 'of nobody')",
        every=100,
    )


@breaks(mix, at=soak.SESSIONS)
def a_connection_that_leaks(ctx: CheckContext) -> None:
    """Keep a connection with a transaction and its locks, as an application does that forgets it."""
    begin = ctx.application.begin

    def forget_one(client: Client) -> object:
        ctx.application.begin = begin
        leaked = ctx.direct_client()
        leaked.run("BEGIN")
        leaked.run("SELECT FROM public.soak_writes")
        return begin(client)

    ctx.application.begin = forget_one


@breaks(mix, at=soak.PREPARED)
def a_prepared_transaction_that_nobody_ends(ctx: CheckContext) -> None:
    begin = ctx.application.begin

    def forget_one(client: Client) -> object:
        ctx.application.begin = begin
        prepared = ctx.direct_client()
        prepared.run("BEGIN")
        prepared.run("SELECT FROM public.soak_writes")
        prepared.run("PREPARE TRANSACTION 'forgotten'")
        prepared.close()
        return begin(client)

    ctx.application.begin = forget_one


@breaks(mix, at=soak.IDLE, needs=(IDLE_CLIENTS,))
def an_idle_client_that_is_dropped(ctx: CheckContext) -> None:
    connect, begin, idle = ctx.client, ctx.application.begin, list[Client]()

    def remember(**options: Any) -> Client:
        idle.append(connect(**options))
        return idle[-1]

    def drop_one(client: Client) -> object:
        ctx.application.begin = begin
        cut(idle[0])
        return begin(client)

    ctx.client = remember  # type: ignore[method-assign]
    ctx.application.begin = drop_one


@breaks(mix, at=soak.ORDER)
def changes_in_another_order(ctx: CheckContext) -> None:
    """Put a change before those that are older."""
    every_thousandth(ctx, "public.audit_changes", "NEW.captured_at := NEW.captured_at - interval '1 day'", every=100)
