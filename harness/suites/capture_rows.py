"""Capture: which row a change is about, whatever its key and its table are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target import Actor
from harness.checks.registry import P0, P1, breaks, check
from harness.model import Section

if TYPE_CHECKING:
    from harness.checks.bench import Bench

ADA = Actor("user", "ada")
_HERE = Section.CAPTURE
_TRIGGER = "capture trigger"


def _ops(bench: Bench, table: str) -> list[str]:
    return [each.op for each in bench.changes(table)]


# --- which row ---------------------------------------------------------------------------------------------


@check(
    "capture.keys",
    claim="a deleted row is known by its real primary key, whatever its name, type and width",
    section=_HERE,
    severity=P0,
    area="row key",
)
def keys(bench: Bench) -> None:
    client, entry = bench.client(), "6f1e2d3c-0000-4000-8000-00000000abcd"
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.posts (id, slug) VALUES (41, 'x')")
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit')")
        client.run(f"INSERT INTO public.ledger VALUES (1, '{entry}', 1), (2, '{entry}', 1)")
    with bench.audited(client, ADA):
        client.run("DELETE FROM public.posts; DELETE FROM public.authors; DELETE FROM public.ledger WHERE tenant = 2")
    gone = {each.table_name: each.table_pk for each in bench.changes() if each.op == "delete"}
    bench.expect("a number", gone.get("posts"), equals={"id": 41})
    bench.expect("a text not named id", gone.get("authors"), equals={"code": "k-1"})
    bench.expect("both parts of a composite key", gone.get("ledger"), equals={"tenant": 2, "entry": entry})


@breaks(keys, at="a number")
def keys_as_text(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.table_pk := jsonb_build_object('id', NEW.table_pk ->> 'id')")


@breaks(keys, at="both parts of a composite key")
def keys_only_their_first_part(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.table_pk := NEW.table_pk - 'tenant'")


@check(
    "capture.key-change",
    claim="an update of the key itself names the row before and after",
    section=_HERE,
    severity=P1,
    area="row key",
)
def key_change(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit'), ('m-1', 'Mo')")
    with bench.audited(client, ADA):
        client.run("UPDATE public.authors SET code = replace(code, '-1', '-2')")
    changes = sorted(bench.changes("authors")[2:], key=lambda each: each.table_pk["code"])
    bench.expect("keys after", [each.table_pk for each in changes], equals=[{"code": "k-2"}, {"code": "m-2"}])
    bench.expect("keys before", [each.changed_from for each in changes], equals=[{"code": "k-1"}, {"code": "m-1"}])
    bench.expect("names", [each.data_after["name"] for each in changes], equals=["Kit", "Mo"])


@breaks(key_change, at="keys before")
def key_change_forgets_the_old_key(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.changed_from := NULL")


@check(
    "capture.renamed-key",
    claim="a key column renamed after the table was attached still identifies its rows",
    section=_HERE,
    severity=P0,
    area="row key",
)
def renamed_key(bench: Bench) -> None:
    bench.owner.run("ALTER TABLE public.authors RENAME COLUMN code TO handle")
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit')")
    bench.expect("key", [each.table_pk for each in bench.changes("authors")], equals=[{"handle": "k-1"}])
    bench.expect(
        "coverage",
        bench.target.coverage(bench.owner)["public.authors"],
        equals="its primary key changed since it was attached",
    )


@breaks(renamed_key, at="key")
def renamed_key_is_not_noticed(bench: Bench) -> None:
    bench.rewrite_capture(("CASE WHEN v_single AND r.image ? v_key THEN", "CASE WHEN true THEN"))


@check(
    "capture.identifiers",
    claim="names that must be quoted are captured as they are",
    section=_HERE,
    severity=P1,
    area=_TRIGGER,
)
def identifiers(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run('INSERT INTO "Shop"."Order ""Items""" VALUES (1, \'x\', 2)')
    changes = bench.changes()
    if bench.expect("rows captured", len(changes), equals=1):
        bench.expect("table", [changes[0].table_schema, changes[0].table_name], equals=["Shop", 'Order "Items"'])
        bench.expect("key", changes[0].table_pk, equals={"Order-Id": 1})
        bench.expect("data after", changes[0].data_after, equals={"Order-Id": 1, "näme; DROP": "x", "select": 2})


@breaks(identifiers, at="rows captured")
def identifiers_not_captured(bench: Bench) -> None:
    bench.disable_capture('"Shop"."Order ""Items"""')
