"""Capture: a change identifies its row, whatever the names of its key and table, and holds the row's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import quote_literal
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import stored_rows

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE


# --- row identity ------------------------------------------------------------------------------------------


@check(
    "capture.keys",
    claim="a deleted row is identified by its real primary key, whatever the key's name, type and number of columns",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="row key",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.DELETES,),
)
def keys(ctx: CheckContext) -> None:
    client, entry = ctx.client(), "6f1e2d3c-0000-4000-8000-00000000abcd"
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (id, slug) VALUES (41, 'x')")
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit')")
        client.run(f"INSERT INTO public.ledger VALUES (1, '{entry}', 1), (2, '{entry}', 1)")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.posts; DELETE FROM public.authors; DELETE FROM public.ledger WHERE tenant = 2")
    deleted = {change.table_name: change.table_pk for change in ctx.changes() if change.op == "delete"}
    ctx.expect("a number", deleted.get("posts"), equals={"id": 41})
    ctx.expect("a text not named id", deleted.get("authors"), equals={"code": "k-1"})
    ctx.expect("both parts of a composite key", deleted.get("ledger"), equals={"tenant": 2, "entry": entry})
    _of_other_tables(ctx)
    ctx.owner.run("CREATE TABLE public.keyless (body text); GRANT ALL ON public.keyless TO harness_app")
    attached = ctx.attempt(lambda: ctx.target.attach(ctx.owner, "public.keyless"))
    ctx.fact("attaching a table without a key", attached)
    if attached == "done":  # a refusal is right, too
        with ctx.audited(client, ADA):
            client.run("INSERT INTO public.keyless VALUES ('a'), ('a'); DELETE FROM public.keyless")
        found = sorted(change.op for change in ctx.changes("keyless"))
        expected = ctx.expected_ops("delete", "delete", "insert", "insert")
        ctx.expect("changes of a table without a key", found, equals=expected)


def _of_other_tables(ctx: CheckContext) -> None:
    """Delete from tables whose keys are easily read wrong."""
    for table, columns, key, what in (
        ("including", "id integer, note text, PRIMARY KEY (id) INCLUDE (note)", "id", "a key that includes a column"),
        ("accented", '"clé" integer PRIMARY KEY, note text', "clé", "a name with a letter beyond ASCII"),
    ):
        ctx.owner.run(f"CREATE TABLE public.{table} ({columns}); GRANT ALL ON public.{table} TO harness_app")
        ctx.target.attach(ctx.owner, f"public.{table}")
        client = ctx.client()
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO public.{table} VALUES (7, 'a note'); DELETE FROM public.{table}")
        deleted = [change.table_pk for change in ctx.changes(table) if change.op == "delete"]
        ctx.expect(what, deleted, equals=[{key: 7}])


@breaks(keys, at="a key that includes a column")
def keys_with_included_columns(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes",
        "IF NEW.table_name = 'including' THEN NEW.table_pk := NEW.table_pk || jsonb_build_object('note', 'a note'); END IF",
    )


@breaks(keys, at="a number")
def keys_as_text(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_pk := jsonb_build_object('id', NEW.table_pk ->> 'id')")


@breaks(keys, at="both parts of a composite key")
def keys_only_their_first_part(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_pk := NEW.table_pk - 'tenant'")


@check(
    "capture.key-change",
    claim="an update of the primary key is captured with the key after it, and where prior values are kept with the one before",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="row key",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.UPDATES,),
)
def key_change(ctx: CheckContext) -> None:
    keeps_prior_values = ctx.claims(TrailFeature.CHANGED_FROM)
    if keeps_prior_values and not ctx.target.is_reference:  # the reference layer keeps the key before in any case
        ctx.target.attach(ctx.owner, "public.authors", changed_from=True)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit'), ('m-1', 'Mo')")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.authors SET code = replace(code, '-1', '-2')")
    changes = [change for change in ctx.changes("authors") if change.op == "update"]
    changes.sort(key=lambda change: str(change.table_pk))
    ctx.expect("keys after", [change.table_pk for change in changes], equals=[{"code": "k-2"}, {"code": "m-2"}])
    if keeps_prior_values:
        ctx.expect(
            "keys before", [change.changed_from for change in changes], equals=[{"code": "k-1"}, {"code": "m-1"}]
        )
    if ctx.records(Recorded.IMAGE):
        ctx.expect("names", [change.text("name") for change in changes], equals=["Kit", "Mo"])


@breaks(key_change, at="keys before")
def key_change_forgets_the_old_key(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.changed_from := NULL")


@check(
    "capture.renamed-key",
    claim="a key column that is renamed after its table was attached still identifies the rows",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="row key",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS,),
)
def renamed_key(ctx: CheckContext) -> None:
    ctx.alter("public.authors", "ALTER TABLE public.authors RENAME COLUMN code TO handle")
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit')")
    ctx.expect("key", [change.table_pk for change in ctx.changes("authors")], equals=[{"handle": "k-1"}])
    if ctx.target.is_reference:
        problem = ctx.target.coverage(ctx.owner)["public.authors"]
        ctx.expect("coverage reports a problem", problem is not None, equals=True)


@breaks(renamed_key, at="key")
def renamed_key_is_not_noticed(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("CASE WHEN r.image ? v_key THEN", "CASE WHEN true THEN"))


@check(
    "capture.identifiers",
    claim="identifiers that need quotes are captured unchanged",
    section=_HERE,
    severity=P1,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS,),
)
def identifiers(ctx: CheckContext) -> None:
    ctx.expect("attaching the table", ctx.attached['"Shop"."Order ""Items"""'], equals="done")
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run('INSERT INTO "Shop"."Order ""Items""" VALUES (1, \'x\', 2)')
    changes = ctx.changes()
    if ctx.expect("rows captured", len(changes), equals=1):
        ctx.expect("table", [changes[0].table_schema, changes[0].table_name], equals=["Shop", 'Order "Items"'])
        ctx.expect("key", changes[0].table_pk, equals={"Order-Id": 1})
        if ctx.records(Recorded.IMAGE):
            [row] = stored_rows(ctx, '"Shop"."Order ""Items"""')
            ctx.expect("data after", changes[0].data_after, equals=row)


@breaks(identifiers, at="rows captured")
def identifiers_not_captured(ctx: CheckContext) -> None:
    ctx.disable_capture('"Shop"."Order ""Items"""')


# --- row values ------------------------------------------------------------------------------------------


@check(
    "capture.column-names",
    claim="columns named like an identifier of the capture function are captured like any other",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def column_names(ctx: CheckContext) -> None:
    plain = ("n", "r", "o", "image", "ordinal", "key", "value", "new_rows", "v_key", "op")
    names = (*plain, "Mixed Case", "näme-with; signs", "l" * 63)
    columns = [f'"{name}"' for name in names]
    ctx.owner.run(
        f"CREATE TABLE public.odd (id int PRIMARY KEY, {', '.join(f'{column} text' for column in columns)});"
        "GRANT ALL ON public.odd TO harness_app"
    )
    keeps_prior_values = ctx.claims(TrailFeature.CHANGED_FROM)
    ctx.target.attach(ctx.owner, "public.odd", changed_from=keeps_prior_values)
    client = ctx.client()

    def writes() -> None:
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO public.odd VALUES (1, {', '.join(quote_literal(name) for name in names)})")
            client.run(f"UPDATE public.odd SET {', '.join(f'{column} = {column} || 2' for column in columns)}")
            client.run("DELETE FROM public.odd")

    ctx.expect("the writes", ctx.attempt(writes), equals="done")
    changes = ctx.changes("odd")
    expected = ctx.expected_ops("insert", "update", "delete")
    if ctx.expect("operations", sorted(change.op for change in changes), equals=sorted(expected)):
        first, second = ({name: f"{name}{sign}" for name in names} for sign in ("", "2"))
        images = {"insert": {"id": 1, **first}, "update": {"id": 1, **second}}
        for change in changes if ctx.records(Recorded.IMAGE) else ():
            ctx.expect(f"values of the {change.op}", change.data_after, equals=images.get(change.op))
        updates = [change for change in changes if change.op == "update"]
        if keeps_prior_values:
            ctx.expect("prior values", [change.changed_from for change in updates], equals=[first] * len(updates))
        if ctx.claims(TrailFeature.CHANGED_FIELDS):
            fields = [change.changed_fields for change in updates]
            ctx.expect("changed fields", fields, equals=[tuple(sorted(names))] * len(updates))


@breaks(column_names, at="the writes")
def column_names_shadow_the_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("to_jsonb(n.*)", "to_jsonb(n)"))


#: values of a JSON column and a number, and the columns that each update changes
_DOCUMENTS: tuple[tuple[str, list[tuple[str, ...] | None]], ...] = (
    ("body = '\"1\"'", [("body",)]),
    # 1.0 and 1.00 are equal numbers
    ("price = 1.00", [None, ("price",)]),
    ("body = NULL", [("body",)]),
    # JSON has one null, so an image cannot show which one it is
    ("body = 'null'", [None, ("body",)]),
    ("body = '{\"a\": 1}'", [("body",)]),
    ("body = '{\"a\": 1.0}'", [None, ("body",)]),
    ('body = \'{"a": "1"}\'', [("body",)]),
    ("body = '[]'", [("body",)]),
    ("body = '{}'", [("body",)]),
)


@check(
    "capture.json-values",
    claim="a JSON value that changes its type is captured as a change, with its prior value",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.CHANGED_FIELDS,),
    records=(Recorded.UPDATES, Recorded.ORDER),
)
def json_values(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.documents (id int PRIMARY KEY, body jsonb, price numeric);"
        "GRANT ALL ON public.documents TO harness_app"
    )
    keeps_prior_values = ctx.claims(TrailFeature.CHANGED_FROM)
    ctx.target.attach(ctx.owner, "public.documents", changed_from=keeps_prior_values)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.documents VALUES (1, '1', 1.0)")
        for assignment, _ in _DOCUMENTS:
            client.run(f"UPDATE public.documents SET {assignment}")
    changes = [change for change in ctx.changes("documents") if change.op == "update"]
    if not ctx.expect("updates", len(changes), equals=len(_DOCUMENTS)):
        return
    for (assignment, possible), change in zip(_DOCUMENTS, changes, strict=True):
        fields = change.changed_fields
        ctx.expect(f"changed fields of {assignment}", fields, equals=fields if fields in possible else possible[-1])
    if keeps_prior_values:
        prior = [change.changed_from for change in changes if change.changed_fields == ("body",)]
        ctx.expect("first and last prior value", [prior[0], prior[-1]], equals=[{"body": 1}, {"body": []}])
    null = changes[3]
    if null.changed_fields is None:
        ctx.trail_limit("an update from SQL NULL to the JSON value null is recorded as an update of nothing")


@breaks(json_values, at="changed fields of body = '\"1\"'")
def json_values_compared_as_bare_text(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "f.value::text IS DISTINCT FROM (p.old_image -> f.key)::text",
            "f.value #>> '{}' IS DISTINCT FROM p.old_image ->> f.key",
        )
    )
