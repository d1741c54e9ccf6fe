"""The seconds to judge every row of a load, and the rate of pgbench with and without being observed for that."""

from __future__ import annotations

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from harness.audit.target_loading import reference_target
from harness.checks.judges.soak import SOAK_JUDGE, SoakState
from harness.checks.workspace import Workspace
from harness.errors import DatabaseError
from harness.lab.lab import stand_up
from harness.model.history import History, Opening
from harness.redaction import Redactor
from harness.suites.catalogue import FIXTURES
from harness.suites.soak.programs import AUDITED, Pace, Pgbench
from harness.suites.soak.tables import MOST_CLIENTS, compare_rows, connections, most_clients, prepare
from tests.bench.figures import Table, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from tests.bench.setting import Scale, Setting

BOUND_S = 15.0
#: of the rate, as a share of it
MOST_COST = 0.05
_USUAL_S, _QUICK_S = 5.0, 1.0
#: of the smallest scale, which only shows that the code works
_QUICK_RATE = 100.0
_PROCESSED = re.compile(r"transactions actually processed: (\d+)")
#: what a load of pgbench leaves, without running it: each write in a transaction of its own
FILL = """
ALTER TABLE public.soak_writes DISABLE TRIGGER USER;
CREATE TEMPORARY TABLE made AS
SELECT n, 1 + n % {clients} AS client, 1 + n / {clients} AS seq, gen_random_uuid() AS transaction_id
FROM generate_series(0, {rows} - 1) n;
INSERT INTO soak.outcomes SELECT client, seq, 'ok' FROM made;
INSERT INTO public.soak_writes (id, client, seq, value)
SELECT n + 1, client, seq, format('write %s-%s', client, seq) FROM made;
INSERT INTO public.audit_transactions (id, txid, actor_ref)
SELECT transaction_id, n, jsonb_build_object('type', 'user', 'id', 'soak-' || client) FROM made;
INSERT INTO public.audit_changes (transaction_id, table_schema, table_name, table_pk, op, data_after, captured_at)
SELECT m.transaction_id, 'public', 'soak_writes', jsonb_build_object('id', w.id), 'insert', to_jsonb(w),
       now() + w.id * interval '1 microsecond'
FROM made m JOIN public.soak_writes w ON w.id = m.n + 1;
"""


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the seconds of the judge with their bound, and the ratio of the rates."""
    lab = stand_up(setting.engine, setting.topologies(scale)[0], setting.owner, Redactor())
    try:
        workspace = Workspace(lab, reference_target(), FIXTURES)
        try:
            with workspace.context("soak.rows") as ctx:
                setting.say(f"soak: write {scale.rows:,} rows")
                yield _judging(ctx, scale)
            with workspace.context("soak.rate") as ctx:
                setting.say(f"soak: {scale.rounds} rounds of pgbench")
                yield _rates(ctx, scale, quick=setting.quick)
        finally:
            workspace.close()
    finally:
        lab.close()


def _judging(ctx: CheckContext, scale: Scale) -> Table:
    prepare(ctx)
    ctx.admin.run(FILL.replace("{clients}", str(MOST_CLIENTS)).replace("{rows}", str(scale.rows)))
    began = time.perf_counter()
    found, outcomes = compare_rows(ctx.admin, ctx.target)
    state = SoakState(acknowledged=outcomes["ok"], failed=0, unknown=0, found=found)
    opening = Opening(topology=ctx.topology.name, check=ctx.check, judge=SOAK_JUDGE.name, started_at="")
    expectations = SOAK_JUDGE.judge(History(opening=opening), state)
    took = time.perf_counter() - began
    if broken := [expectation.name for expectation in expectations if expectation.broken]:
        raise DatabaseError(f"the rows are sound, and the judge finds: {', '.join(broken)}")
    return Table(
        title="soak: judging a load",
        columns=("Rows", "Changes", "Once", "Rows/s", "Bound"),
        rows=(
            (
                f"{scale.rows:,}",
                f"{scale.rows:,}",
                f"{took:.2f} s",
                f"{scale.rows / took:,.0f}",
                verdict(took, BOUND_S),
            ),
        ),
        notes=("Each row is compared with its acknowledgement, its change, its actor and its transaction.",),
    )


def _rates(ctx: CheckContext, scale: Scale, *, quick: bool) -> Table:
    """Compare the rates.

    :param quick: limit the rate: the figures then only show that the code works.
    """
    prepare(ctx)
    pgbench = Pgbench(ctx)
    seconds = _QUICK_S if quick else _USUAL_S
    pace = Pace(clients=most_clients(ctx), rate=_QUICK_RATE if quick else None)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * scale.rounds):
        judged = number % 2 == number // 2 % 2  # in turns, and each first in every other round
        rates[judged].append(_processed(ctx, pgbench, number, seconds, pace, judged=judged) / seconds)
    with_judge, without = (statistics.median(rates[judged]) for judged in (True, False))
    ratio = with_judge / without
    return Table(
        title="soak: the rate of a judged load",
        columns=("Topology", "Clients", "Unjudged", "Judged", "Ratio", "Bound of the cost"),
        rows=(
            (
                ctx.topology.name,
                str(pace.clients),
                f"{without:,.0f}/s",
                f"{with_judge:,.0f}/s",
                f"{ratio:.3f}",
                verdict(1 - ratio, MOST_COST, ""),
            ),
        ),
        notes=(
            (
                f"Medians of {scale.rounds}, {seconds:g} s each, in turns. Judged: pgbench writes its log, and the harness "
                "looks at the server every second. The rows are compared after the load."
            ),
        ),
    )


def _processed(ctx: CheckContext, pgbench: Pgbench, number: int, seconds: float, pace: Pace, *, judged: bool) -> int:
    """Run pgbench once, and return the number of its transactions."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(pgbench.run, AUDITED, number + 1, seconds, pace, logs=judged)
        while judged and not wait([running], timeout=1.0).done:
            connections(ctx)
        ended = running.result()
    found = _PROCESSED.search(ended.output)
    if not found:
        raise DatabaseError(f"pgbench ended with {ended.code}", detail=ended.output)
    return int(found[1])
