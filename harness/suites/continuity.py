"""Continuity: tables that had rows before capture began."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import count
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from harness.audit.coverage import CaptureNotReadyError, assert_capture_ready, explain_cutover
from harness.audit.reading import as_of, history
from harness.audit.target_file import Feature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.habits import ADA, CAPTURE_TRIGGER, blind_coverage

if TYPE_CHECKING:
    from harness.checks.context import Bench

_HERE = Section.CONTINUITY
_DEADLINE_S = 20


def _old_table(bench: Bench) -> None:
    """A table in use before there was an audit trail."""
    bench.owner.run(
        "CREATE TABLE public.legacy (id int PRIMARY KEY, name text); GRANT ALL ON public.legacy TO harness_app;"
        "INSERT INTO public.legacy SELECT n, 'from before' FROM generate_series(1, 3) n"
    )


@check(
    "continuity.old-rows",
    claim="a row older than the capture has no history until it is written; then exactly that write",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def old_rows(bench: Bench) -> None:
    _old_table(bench)
    bench.target.attach(bench.owner, "public.legacy")
    bench.expect("changes before the first write", len(bench.changes("legacy")), equals=0)
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    with bench.audited(client, ADA):
        client.run("DELETE FROM public.legacy WHERE id = 2")
    changes = bench.changes("legacy")
    bench.expect("operations", [each.op for each in changes], equals=["update", "delete"])
    bench.expect("transactions", len({each.transaction_id for each in changes}), equals=2)
    bench.expect("actors", [each.actor for each in changes], equals=[ADA.reference] * 2)


@breaks(old_rows, at="operations")
def old_rows_not_captured(bench: Bench) -> None:
    bench.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_OP = 'UPDATE' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@check(
    "continuity.nothing-made-up",
    claim="putting capture on a table with rows makes up no change, and the past is unknown rather than empty",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def nothing_made_up(bench: Bench) -> None:
    _old_table(bench)
    bench.target.attach(bench.owner, "public.legacy")
    now = partial(bench.admin.value, "SELECT clock_timestamp()")
    bench.expect("changes after attaching", len(bench.changes()), equals=0)
    bench.expect("transactions after attaching", bench.target.count_transactions(bench.admin), equals=0)
    bench.expect("history of an old row", history(bench.owner, "legacy", {"id": 1}), equals=[])
    bench.expect("state of an old row", as_of(bench.owner, "legacy", {"id": 1}, now()).state, equals="before_horizon")
    first = now()
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("UPDATE public.legacy SET name = 'since' WHERE id = 1")
    before = as_of(bench.owner, "legacy", {"id": 1}, first - timedelta(seconds=1))
    bench.expect("state before the capture", before.state, equals="before_horizon")
    since = as_of(bench.owner, "legacy", {"id": 1}, now())
    bench.expect("state since", (since.state, since.row), equals=("present", {"id": 1, "name": "since"}))


@breaks(nothing_made_up, at="changes after attaching")
def something_made_up(bench: Bench) -> None:
    bench.rewrite_function(
        "threadline_attach", ("RETURN v_count;", "EXECUTE format('UPDATE %s SET id = id', relation); RETURN v_count;")
    )


@check(
    "continuity.capture-ready",
    claim="the last step of a cutover passes only when the table's changes are all captured, and writes nothing",
    section=_HERE,
    severity=P1,
    area="coverage",
    claims=(Feature.LIBRARY,),
)
def capture_ready(bench: Bench) -> None:
    def ready(table: str) -> str:
        try:
            assert_capture_ready(bench.owner, table)
        except (CaptureNotReadyError, ValueError) as error:
            return str(error)
        return "ready"

    _old_table(bench)
    bench.expect("a blank name", ready(" "), equals="expected tables: needed at least one name, and none of them blank")
    bench.expect("no such table", ready("legasy"), equals="public.legasy: there is no such table")
    problem = "no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE"
    bench.expect("before attaching", ready("legacy"), equals=f"public.legacy: {problem}")
    bench.expect("explaining it", "never an insert" in explain_cutover("legacy"), equals=True)
    bench.expect("changes", len(bench.changes()), equals=0)
    bench.target.attach(bench.owner, "public.legacy")
    bench.expect("after attaching", ready("legacy"), equals="ready")


@breaks(capture_ready, at="before attaching")
def capture_ready_without_looking(bench: Bench) -> None:
    blind_coverage(bench)


@check(
    "continuity.cutover-under-load",
    claim="capture put on a table in use misses no write that begins after it",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def cutover_under_load(bench: Bench) -> None:
    _old_table(bench)
    client, attached, first = bench.client(), Event(), Event()
    before: list[int] = []
    after: list[int] = []

    def write() -> None:
        deadline = monotonic() + _DEADLINE_S
        for n in count(100):
            mine = after if attached.is_set() else before
            with bench.audited(client, ADA):
                client.run(f"INSERT INTO public.legacy VALUES ({n}, 'in use')")
            mine.append(n)
            first.set()
            if len(after) == 20 or monotonic() > deadline:
                return

    writer = Thread(target=write)
    writer.start()
    first.wait(_DEADLINE_S)
    bench.target.attach(bench.owner, "public.legacy")
    attached.set()
    writer.join()
    captured = [each.data_after["id"] for each in bench.changes("legacy")]
    bench.fact("writes before and after", f"{len(before)} and {len(after)}, {len(captured)} captured")
    bench.expect("there were writes before and after", bool(before and after), equals=True)
    bench.expect("writes after the cutover without an audit row", sorted(set(after) - set(captured)), equals=[])
    written = sorted([*before, *after])
    bench.expect("audit rows without a gap", captured, equals=written[len(written) - len(captured) :])


@breaks(cutover_under_load, at="writes after the cutover without an audit row")
def cutover_misses_a_row(bench: Bench) -> None:
    bench.rewrite_capture(
        ("FROM new_rows n OFFSET 0", "FROM new_rows n WHERE (to_jsonb(n.*) ->> 'id')::int % 7 <> 0 OFFSET 0")
    )
