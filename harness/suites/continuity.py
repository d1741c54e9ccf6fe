"""Continuity: tables that had rows before capture was attached."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import count
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from harness.audit.coverage import CaptureNotReadyError, assert_capture_ready, explain_cutover
from harness.audit.reading import as_of, history
from harness.audit.target_file import TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.sabotage import blind_coverage

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CONTINUITY
_DEADLINE_S = 20


def _old_table(ctx: CheckContext) -> None:
    """Create a table with rows, as one that was in use before the audit trail existed."""
    ctx.owner.run(
        "CREATE TABLE public.legacy (id int PRIMARY KEY, name text); GRANT ALL ON public.legacy TO harness_app;"
        "INSERT INTO public.legacy SELECT n, 'from before' FROM generate_series(1, 3) n"
    )


@check(
    "continuity.old-rows",
    claim="a row that is older than the capture has no history until its first write, and then only that write",
    section=_HERE,
    severity=P0,
    item="7.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def old_rows(ctx: CheckContext) -> None:
    _old_table(ctx)
    ctx.target.attach(ctx.owner, "public.legacy")
    ctx.expect("changes before the first write", len(ctx.changes("legacy")), equals=0)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.legacy WHERE id = 2")
    changes = ctx.changes("legacy")
    ctx.expect("operations", [change.op for change in changes], equals=["update", "delete"])
    ctx.expect("transactions", len({change.transaction_id for change in changes}), equals=2)
    ctx.expect("actors", [change.actor for change in changes], equals=[ADA.reference] * 2)


@breaks(old_rows, at="operations")
def old_rows_not_captured(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_OP = 'UPDATE' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@check(
    "continuity.nothing-made-up",
    claim="attaching capture to a table with rows records no change, and earlier states are unknown, not empty",
    section=_HERE,
    severity=P0,
    item="7.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def nothing_made_up(ctx: CheckContext) -> None:
    _old_table(ctx)
    ctx.target.attach(ctx.owner, "public.legacy")
    now = partial(ctx.admin.value, "SELECT clock_timestamp()")
    ctx.expect("changes after attaching", len(ctx.changes()), equals=0)
    ctx.expect("transactions after attaching", ctx.target.count_transactions(ctx.admin), equals=0)
    ctx.expect("history of an old row", history(ctx.owner, "legacy", {"id": 1}), equals=[])
    ctx.expect("state of an old row", as_of(ctx.owner, "legacy", {"id": 1}, now()).state, equals="before_horizon")
    first = now()
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    before = as_of(ctx.owner, "legacy", {"id": 1}, first - timedelta(seconds=1))
    ctx.expect("state before the capture", before.state, equals="before_horizon")
    since = as_of(ctx.owner, "legacy", {"id": 1}, now())
    ctx.expect("state after the write", (since.state, since.row), equals=("present", {"id": 1, "name": "since"}))


@breaks(nothing_made_up, at="changes after attaching")
def something_made_up(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach", ("RETURN v_count;", "EXECUTE format('UPDATE %s SET id = id', relation); RETURN v_count;")
    )


@check(
    "continuity.capture-ready",
    claim="the last step of a cutover passes only when all changes of the table are captured, and writes nothing",
    section=_HERE,
    severity=P1,
    item="7.1",
    area="coverage",
    requires_features=(TrailFeature.LIBRARY,),
)
def capture_ready(ctx: CheckContext) -> None:
    def ready(table: str) -> str:
        try:
            assert_capture_ready(ctx.owner, table)
        except (CaptureNotReadyError, ValueError) as error:
            return str(error)
        return "ready"

    _old_table(ctx)
    ctx.expect("a blank name", ready(" "), equals="expected tables: needed at least one name, and none of them blank")
    ctx.expect("an unknown table", ready("legasy"), equals="public.legasy: no such table")
    problem = "no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE"
    ctx.expect("before attaching", ready("legacy"), equals=f"public.legacy: {problem}")
    ctx.expect("the explanation of a cutover", "never an insert" in explain_cutover("legacy"), equals=True)
    ctx.expect("changes", len(ctx.changes()), equals=0)
    ctx.target.attach(ctx.owner, "public.legacy")
    ctx.expect("after attaching", ready("legacy"), equals="ready")


@breaks(capture_ready, at="before attaching")
def capture_ready_without_looking(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@check(
    "continuity.cutover-under-load",
    claim="capture that is attached to a table in use misses no write that begins afterwards",
    section=_HERE,
    severity=P0,
    item="7.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def cutover_under_load(ctx: CheckContext) -> None:
    _old_table(ctx)
    client, attached, first = ctx.client(), Event(), Event()
    before: list[int] = []
    after: list[int] = []

    def write() -> None:
        deadline = monotonic() + _DEADLINE_S
        try:
            for n in count(100):
                phase = after if attached.is_set() else before
                with ctx.audited(client, ADA):
                    client.run(f"INSERT INTO public.legacy VALUES ({n}, 'in use')")
                phase.append(n)
                first.set()
                if len(after) == 20 or monotonic() > deadline:
                    return
        finally:
            first.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        first.wait(_DEADLINE_S)
        try:
            ctx.target.attach(ctx.owner, "public.legacy")
        finally:
            attached.set()
        writing.result()
    if not before or not after:
        raise NotExercisedError(
            f"{len(before)} writes before the cutover and {len(after)} after it, in {_DEADLINE_S} s"
        )
    captured = [change.value("id") for change in ctx.changes("legacy")]
    ctx.fact("writes before and after", f"{len(before)} and {len(after)}, {len(captured)} captured")
    ctx.expect("writes after the cutover without an audit row", sorted(set(after) - set(captured)), equals=[])
    written = sorted([*before, *after])
    ctx.expect("audit rows without a gap", captured, equals=written[len(written) - len(captured) :])


@breaks(cutover_under_load, at="writes after the cutover without an audit row")
def cutover_misses_a_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("FROM new_rows n OFFSET 0", "FROM new_rows n WHERE (to_jsonb(n.*) ->> 'id')::int % 7 <> 0 OFFSET 0")
    )
