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
from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.sabotage import blind_coverage

if TYPE_CHECKING:
    from datetime import datetime

    from harness.audit.changes import Change
    from harness.checks.context import CheckContext

_HERE = Section.CONTINUITY
_DEADLINE_S = 20
#: the keys of the rows that are older than the capture, as texts: a trail may keep all values as texts
_OLD = ("1", "2", "3")
_NOTHING_CAPTURED = "no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE"


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
    seeded = ctx.changes("legacy")
    if _is_seed(seeded):
        ctx.trail_limit("attaching capture to a table records each of its rows as an insert")
    else:
        ctx.expect("changes before the first write", len(seeded), equals=0)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.legacy WHERE id = 2")
    changes = ctx.changes("legacy")[len(seeded) :]
    expected = ctx.expected_ops("update", "delete")
    ctx.expect("operations", [change.op for change in changes], equals=expected)
    if ctx.records(Recorded.TRANSACTION_ID):
        ctx.expect("transactions", len({change.transaction_id for change in changes}), equals=len(expected))
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actors", [change.actor for change in changes], equals=[ADA.reference] * len(expected))


def _is_seed(changes: list[Change]) -> bool:
    """Return whether the changes are inserts of the rows that the table had, and of nobody."""
    ids = sorted(str((change.table_pk or {}).get("id")) for change in changes)
    return ids == [*_OLD] and all(change.op == "insert" and change.actor is None for change in changes)


@breaks(old_rows, at="operations")
def old_rows_not_captured(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_OP = 'UPDATE' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@breaks(old_rows, at="changes before the first write")
def old_rows_that_are_updated(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach", ("RETURN v_count;", "EXECUTE format('UPDATE %s SET id = id', relation); RETURN v_count;")
    )


@check(
    "continuity.nothing-made-up",
    claim="attaching capture to a table with rows, also twice, records no change that nobody made",
    section=_HERE,
    severity=P0,
    item="7.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def nothing_made_up(ctx: CheckContext) -> None:
    _old_table(ctx)
    client = ctx.client()
    attach = partial(ctx.target.attach, ctx.owner, "public.legacy")
    attach()
    seeded = ctx.changes("legacy")
    if not _is_seed(seeded):
        ctx.expect("changes after attaching", len(seeded), equals=0)
    ctx.fact("attaching again", ctx.attempt(attach))
    ctx.expect("changes after attaching again", len(ctx.changes("legacy")), equals=len(seeded))
    if ctx.target.statements.transactions and not seeded:
        ctx.expect("transactions after attaching", ctx.target.count_transactions(ctx.admin), equals=0)
    first = ctx.admin.value("SELECT clock_timestamp()")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    made = [change.op for change in ctx.changes("legacy")[len(seeded) :]]
    ctx.expect("changes after the first write", made, equals=ctx.expected_ops("update"))
    if ctx.target.is_reference:
        _expect_states(ctx, first)


def _expect_states(ctx: CheckContext, first: datetime) -> None:
    """Expect that the library knows no state of a row that is older than its first change."""
    now = ctx.admin.value("SELECT clock_timestamp()")
    ctx.expect("history of an old row", history(ctx.owner, "legacy", {"id": 3}), equals=[])
    ctx.expect("state of an old row", as_of(ctx.owner, "legacy", {"id": 3}, now).state, equals="before_horizon")
    before = as_of(ctx.owner, "legacy", {"id": 1}, first - timedelta(seconds=1))
    ctx.expect("state before the capture", before.state, equals="before_horizon")
    since = as_of(ctx.owner, "legacy", {"id": 1}, now)
    ctx.expect("state after the write", (since.state, since.row), equals=("present", {"id": 1, "name": "since"}))


@breaks(nothing_made_up, at="changes after attaching")
def something_made_up(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach", ("RETURN v_count;", "EXECUTE format('UPDATE %s SET id = id', relation); RETURN v_count;")
    )


@check(
    "continuity.capture-ready",
    claim="a cutover is known to be complete: coverage names the table until capture is attached, and writes nothing",
    section=_HERE,
    severity=P1,
    item="7.1",
    area="coverage",
    requires_features=(TrailFeature.COVERAGE,),
)
def capture_ready(ctx: CheckContext) -> None:
    def covered() -> bool:
        return ctx.target.coverage(ctx.owner)["public.legacy"] is None

    _old_table(ctx)
    ctx.expect("covered before attaching", covered(), equals=False)
    if ctx.target.is_reference:
        ctx.expect("ready before attaching", _ready(ctx, "legacy"), equals=f"public.legacy: {_NOTHING_CAPTURED}")
        ctx.expect("an unknown table", _ready(ctx, "legasy"), equals="public.legasy: no such table")
        blank = "expected tables: needed at least one name, and none of them blank"
        ctx.expect("a blank name", _ready(ctx, " "), equals=blank)
        ctx.expect("the explanation of a cutover", "never an insert" in explain_cutover("legacy"), equals=True)
    ctx.expect("changes", len(ctx.changes()), equals=0)
    ctx.target.attach(ctx.owner, "public.legacy")
    ctx.expect("covered after attaching", covered(), equals=True)
    if ctx.target.is_reference:
        ctx.expect("ready after attaching", _ready(ctx, "legacy"), equals="ready")


def _ready(ctx: CheckContext, table: str) -> str:
    try:
        assert_capture_ready(ctx.owner, table)
    except (CaptureNotReadyError, ValueError) as error:
        return str(error)
    return "ready"


@breaks(capture_ready, at="covered before attaching")
def capture_ready_without_looking(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@breaks(capture_ready, at="covered after attaching")
def capture_ready_of_what_is_not_attached(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach",
        ("RETURN v_count;", "EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', relation); RETURN v_count;"),
    )


@check(
    "continuity.cutover-under-load",
    claim="capture that is attached to a table in use misses no write that begins afterwards",
    section=_HERE,
    severity=P0,
    item="7.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS, Recorded.IMAGE),
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
    captured = sorted(key for change in ctx.changes("legacy") if (key := change.text("id")) not in _OLD)
    ctx.fact("writes before and after", f"{len(before)} and {len(after)}, {len(captured)} captured")
    missing = sorted(set(map(str, after)) - set(captured))
    ctx.expect("writes after the cutover without an audit row", missing, equals=[])
    written = [str(key) for key in (*before, *after)]
    ctx.expect("audit rows without a gap", captured, equals=sorted(written[len(written) - len(captured) :]))


@breaks(cutover_under_load, at="writes after the cutover without an audit row")
def cutover_misses_a_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("FROM new_rows n OFFSET 0", "FROM new_rows n WHERE (to_jsonb(n.*) ->> 'id')::int % 7 <> 0 OFFSET 0")
    )
