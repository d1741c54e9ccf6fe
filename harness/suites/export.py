"""Export: an export holds the trail's values unchanged, and is complete or marked as truncated."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.export import CSV_ACTION_COLUMNS, CSV_COLUMNS, CSV_TRUNCATED, Exported, Format, export, unguard
from harness.audit.reading import Filter, count_matching, timeline
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, audited
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA, BOB, reader

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.EXPORT
_AREA = "export"

#: texts that could break the syntax of records, cells and JSON, or that a spreadsheet would run as formulas
HOSTILE = (
    "comma, \"quote\", 'apostrophe'",
    "line\nfeed",
    "carriage\rreturn",
    "both\r\n",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@sum",
    "\ttab",
    "'guarded already",
    "ünïcode ✓ 𝄞",
    "\x01 control",
    "</script>",
    "\\u0000",
    "#truncated",
)


def _export(client: Client, kind: Format, which: Filter | None = None, **more: Any) -> tuple[str, Exported]:
    sink = io.StringIO(newline="")
    done = export(client, sink, kind, which, to=Telemetry(), **more)
    return sink.getvalue(), done


def _records(text: str) -> list[list[str]]:
    return [[unguard(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]


def _hostile_rows(ctx: CheckContext) -> list[Any]:
    """Write one post for each hostile text, with the text as correlation, and return the stored rows, newest first."""
    client = ctx.client()
    for n, text in enumerate(HOSTILE):
        action = Action(name="posted", correlation_id=f"{text.strip()}#{n}")
        with audited(client, ADA, action=action, to=Telemetry()):
            client.run("INSERT INTO public.posts (slug, title) VALUES (%s, %s)", [f"{n}", text])
    return [row for (row,) in ctx.admin.rows("SELECT to_jsonb(p) FROM public.posts p ORDER BY id DESC")]


@check(
    "export.csv",
    claim="a CSV export preserves every stored value, and none of its cells is a formula",
    section=_HERE,
    severity=P0,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def csv_document(ctx: CheckContext) -> None:
    stored = _hostile_rows(ctx)
    client = ctx.client()
    with audited(client, BOB, to=Telemetry()):
        client.run("DELETE FROM public.posts WHERE slug = '0'")
    text, done = _export(reader(ctx), "csv", action_metadata=True)
    ctx.expect("every record ends with CR LF", text.endswith("\r\n"), equals=True)
    header, deleted, *records = _records(text)
    ctx.expect("header", header, equals=[*CSV_COLUMNS, *CSV_ACTION_COLUMNS])
    ctx.expect("cells of every record", {len(record) for record in records}, equals={len(header)})
    ctx.expect("rows", (done.returned_count, done.truncated), equals=(len(HOSTILE) + 1, False))
    ctx.expect("values", [json.loads(record[7]) for record in records], equals=stored)
    ctx.expect("a delete has an empty cell for the row", (deleted[4], deleted[7]), equals=("delete", ""))
    correlations = [f"{hostile.strip()}#{n}" for n, hostile in enumerate(HOSTILE)][::-1]
    ctx.expect("correlations", [record[11] for record in records], equals=correlations)
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    formulas = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    ctx.expect("cells that a spreadsheet would run", formulas, equals=[])
    transaction = json.loads(records[0][10])
    ctx.expect("transaction of a record", sorted(transaction), equals=["actor_ref", "id", "occurred_at", "source"])
    ctx.expect("its actor", transaction["actor_ref"], equals=ADA.reference)


@breaks(csv_document, at="values")
def csv_of_an_altered_trail(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "another"}'""")


@breaks(csv_document, at="correlations")
def csv_of_altered_correlations(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", "NEW.correlation_id := ltrim(NEW.correlation_id, '=+-@')")


@check(
    "export.json",
    claim="JSON and NDJSON exports preserve every stored value, to the last digit",
    section=_HERE,
    severity=P0,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def json_document(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.exact (id bigint PRIMARY KEY, n numeric); GRANT ALL ON public.exact TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.exact")
    stored = _hostile_rows(ctx)
    client = ctx.client()
    with audited(client, ADA, to=Telemetry()):
        client.run("INSERT INTO public.exact VALUES (9007199254740993, 1234567890123456789012345678.90)")
    trail_reader = reader(ctx)
    text, done = _export(trail_reader, "json")
    document = json.loads(text, parse_float=Decimal)
    first, *others = document["changes"]
    ctx.expect("format version", document["format_version"], equals=1)
    ctx.expect(
        "counts in the document", (document["returned_count"], document["truncated"]), equals=(len(HOSTILE) + 1, False)
    )
    ctx.expect("counts in the result", (done.returned_count, done.truncated), equals=(len(HOSTILE) + 1, False))
    digits = [str(first["data_after"][name]) for name in ("id", "n")]
    ctx.expect("digits", digits, equals=["9007199254740993", "1234567890123456789012345678.90"])
    ctx.expect("values", [change["data_after"] for change in others], equals=stored)
    ctx.expect("actors", {change["transaction"]["actor_ref"]["id"] for change in others}, equals={"ada"})
    lines, _ = _export(trail_reader, "ndjson")
    ctx.expect(
        "one object per line",
        [json.loads(line)["id"] for line in lines.splitlines()],
        equals=[change["id"] for change in document["changes"]],
    )
    empty, _ = _export(trail_reader, "json", Filter(table="nowhere"))
    ctx.expect(
        "an empty JSON export", (json.loads(empty)["changes"], json.loads(empty)["returned_count"]), equals=([], 0)
    )
    ctx.expect(
        "records of an empty CSV export",
        len(_records(_export(trail_reader, "csv", Filter(table="nowhere"))[0])),
        equals=1,
    )


@breaks(json_document, at="digits")
def json_of_rounded_numbers(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes",
        "IF NEW.table_name = 'exact' THEN NEW.data_after := jsonb_set(NEW.data_after, '{n}', "
        "to_jsonb((NEW.data_after ->> 'n')::float8)); END IF",
    )


@check(
    "export.truncation",
    claim="a truncated export is marked inside the document, and an export that just fits is not",
    section=_HERE,
    severity=P1,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def truncation(ctx: CheckContext) -> None:
    client = ctx.client()
    for n in range(5):
        ctx.write(client, ADA, str(n))
    trail_reader = reader(ctx)
    text, done = _export(trail_reader, "csv", max_rows=3, page_size=2)
    *_, last = _records(text)
    ctx.expect("CSV: last record", last[:3], equals=[CSV_TRUNCATED, "returned_count=3", "max_rows=3"])
    ctx.expect("CSV: cells of the last record", len(last), equals=len(CSV_COLUMNS))
    ctx.expect("counts in the result", (done.truncated, done.returned_count, done.max_rows), equals=(True, 3, 3))
    document = json.loads(_export(trail_reader, "json", max_rows=3, page_size=2)[0])
    ctx.expect(
        "JSON", (document["truncated"], document["returned_count"], len(document["changes"])), equals=(True, 3, 3)
    )
    *lines, end = _export(trail_reader, "ndjson", max_rows=3, page_size=2)[0].splitlines()
    ctx.expect("NDJSON: last line", (json.loads(end)["truncated"], len(lines)), equals=(True, 3))
    text, done = _export(trail_reader, "csv", max_rows=5, page_size=2)
    ctx.expect("exactly max_rows changes", (len(_records(text)), done.truncated), equals=(6, False))


@breaks(truncation, at="CSV: last record")
def truncation_hidden_by_lost_rows(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE RULE lost AS ON INSERT TO public.audit_changes WHERE NEW.data_after ->> 'slug' < '2' DO INSTEAD NOTHING"
    )


@check(
    "export.streaming",
    claim="a paged export has the changes of the timeline in the same order, also for changes with equal times",
    section=_HERE,
    severity=P0,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def streaming(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug) SELECT n::text FROM generate_series(1, 7) n")
    ctx.write(client, ADA, "later")
    ctx.admin.run("UPDATE public.audit_changes SET captured_at = '2026-01-01' WHERE data_after ->> 'slug' <> 'later'")
    trail_reader = reader(ctx)
    lines, _ = _export(trail_reader, "ndjson", page_size=2)
    ids = [json.loads(line)["id"] for line in lines.splitlines()]
    ctx.expect("changes in pages of two", ids, equals=[change.id for change in timeline(trail_reader)])
    ctx.expect("changes counted", count_matching(trail_reader), equals=len(ids))
    ctx.expect("different changes", len(set(ids)), equals=8)
    _, before = _export(trail_reader, "ndjson")
    ctx.write(client, ADA, "since")
    text, _ = _export(trail_reader, "ndjson", Filter(since_snapshot=before.snapshot))
    ctx.expect("changes since the last export", _slugs(text), equals=["since"])


def _slugs(text: str) -> list[str]:
    return [json.loads(line)["data_after"]["slug"] for line in text.splitlines()]


@breaks(streaming, at="changes in pages of two")
def streaming_with_ids_that_are_equal(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes", "NEW.id := '00000000-0000-4000-8000-000000000000'; NEW.transaction_id := gen_random_uuid()"
    )


@check(
    "export.rights",
    claim="a role with the right to read the trail reads and exports every row, also another trail's; others read none",
    section=_HERE,
    severity=P0,
    item="5.1",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def rights(ctx: CheckContext) -> None:
    ctx.write(ctx.client(), ADA, "private")
    client = ctx.client()
    ctx.expect("reading without the right", ctx.sqlstate(partial(timeline, client)), equals="42501")
    ctx.expect("exporting without the right", ctx.sqlstate(partial(_export, client, "json")), equals="42501")
    ctx.expect("reading with the right", len(timeline(reader(ctx))), equals=1)
    # invalid actors, and a change without a transaction
    ctx.admin.run(
        "WITH t AS (INSERT INTO public.audit_transactions (id, txid, actor_ref) SELECT gen_random_uuid(), 1, a::jsonb "
        """FROM unnest(ARRAY['"ada"', '42', '[]', 'null', '{"type": "root"}', NULL]) a RETURNING id) """
        "INSERT INTO public.audit_changes (transaction_id, table_schema, table_name, table_pk, op) "
        "SELECT id, 'public', 'elsewhere', '{\"id\": \"7\"}', 'insert' FROM t;"
        "INSERT INTO public.audit_changes (transaction_id, table_schema, table_name, table_pk, op) "
        "VALUES (gen_random_uuid(), 'public', 'orphan', 'null', 'insert')"
    )
    trail_reader = reader(ctx)
    ctx.expect("changes in the timeline", len(timeline(trail_reader)), equals=8)
    ctx.expect("changes in the CSV", len(_records(_export(trail_reader, "csv")[0])) - 1, equals=8)
    ctx.expect("changes in the JSON", len(json.loads(_export(trail_reader, "json")[0])["changes"]), equals=8)


@breaks(rights, at="reading without the right")
def rights_for_everybody(ctx: CheckContext) -> None:
    ctx.sabotage("GRANT SELECT ON public.audit_actions, public.audit_transactions, public.audit_changes TO PUBLIC")


@breaks(rights, at="changes in the timeline")
def foreign_rows_are_left_out(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE RULE own AS ON INSERT TO public.audit_changes WHERE NEW.table_name = 'orphan' DO INSTEAD NOTHING"
    )
