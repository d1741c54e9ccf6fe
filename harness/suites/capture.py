"""Capture: every committed change is in the trail, once and true, and nothing else is.

From audit-trail practice: the operations PostgreSQL has, the ways to undo them, and the ways to get
around a trigger.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target import Actor
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe
from harness.model import Section

if TYPE_CHECKING:
    from harness.checks.bench import Bench
    from harness.database import Client

ADA = Actor("user", "ada")
_HERE = Section.CAPTURE
_TRIGGER = "capture trigger"


def _ops(bench: Bench, table: str) -> list[str]:
    return [each.op for each in bench.changes(table)]


# --- the three operations ------------------------------------------------------------------------------


@check("capture.insert", claim="an insert leaves one change with the row's values, in one transaction",
       section=_HERE, severity=P0, area=_TRIGGER)
def insert(bench: Bench) -> None:
    bench.write(bench.client(), ADA, "first")
    changes = bench.changes()
    if bench.expect("rows captured", len(changes), equals=1):
        change = changes[0]
        row = bench.admin.value("SELECT to_jsonb(p) FROM public.posts p")
        bench.expect("operation", change.op, equals="insert")
        bench.expect("table", f"{change.table_schema}.{change.table_name}", equals="public.posts")
        bench.expect("data after", change.data_after, equals=row)
        bench.expect("key", change.table_pk, equals={"id": row["id"]})
        bench.expect("changed fields", change.changed_fields, equals=None)
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(insert, at="rows captured")
def insert_trigger_disabled(bench: Bench) -> None:
    bench.disable_capture("public.posts")


@breaks(insert, at="data after")
def insert_image_altered(bench: Bench) -> None:
    bench.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "another"}'""")


@check("capture.update", claim="an update leaves one change with the new values and the names of what changed",
       section=_HERE, severity=P0, area=_TRIGGER)
def update(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "first")
    with bench.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'new', views = views WHERE slug = 'first'")
    changes = bench.changes("posts")
    if bench.expect("operations", [each.op for each in changes], equals=["insert", "update"]):
        bench.expect("title after", changes[1].data_after["title"], equals="new")
        bench.expect("changed fields", changes[1].changed_fields, equals=("title",))
        bench.expect("prior values, not asked for", changes[1].changed_from, equals=None)


@breaks(update, at="changed fields")
def update_names_every_column(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.changed_fields := ARRAY['title', 'views']")


@check("capture.delete", claim="a delete leaves one change that names the row and carries no payload",
       section=_HERE, severity=P0, area=_TRIGGER)
def delete(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "first")
    key = bench.admin.value("SELECT id FROM public.posts")
    with bench.audited(client, ADA):
        client.run("DELETE FROM public.posts WHERE slug = 'first'")
    changes = bench.changes("posts")
    if bench.expect("operations", [each.op for each in changes], equals=["insert", "delete"]):
        bench.expect("key of the deleted row", changes[1].table_pk, equals={"id": key})
        bench.expect("data after a delete", changes[1].data_after, equals=None)


@breaks(delete, at="operations")
def delete_trigger_disabled(bench: Bench) -> None:
    bench.sabotage("ALTER TABLE public.posts DISABLE TRIGGER threadline_audit_delete")


@breaks(delete, at="data after a delete")
def delete_keeps_a_payload(bench: Bench) -> None:
    bench.tamper("audit_changes", """NEW.data_after := coalesce(NEW.data_after, '{"left": "over"}')""")


@check("capture.no-change", claim="an update that changes nothing is recorded with no changed field",
       section=_HERE, severity=P1, area=_TRIGGER)
def no_change(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "first")
    with bench.audited(client, ADA):
        client.run("UPDATE public.posts SET title = title")
        touched = client.run("UPDATE public.posts SET title = 'x' WHERE slug = 'nobody'")
    changes = bench.changes("posts")
    bench.expect("rows touched by the second update", touched, equals=0)
    if bench.expect("operations", [each.op for each in changes], equals=["insert", "update"]):
        bench.expect("changed fields", changes[1].changed_fields, equals=None)


@breaks(no_change, at="changed fields")
def no_change_invents_a_field(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.changed_fields := ARRAY['title']")


@check("capture.changed-from", claim="a table that asks for it keeps the prior values of exactly the changed columns",
       section=_HERE, severity=P1, area=_TRIGGER)
def changed_from(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.profiles (id, email, city) VALUES (1, 'a@example.org', 'Turin')")
    with bench.audited(client, ADA):
        client.run("UPDATE public.profiles SET email = 'b@example.org', visits = visits + 1, city = 'Turin'")
    with bench.audited(client, ADA):
        client.run("DELETE FROM public.profiles")
    changes = bench.changes("profiles")
    if bench.expect("operations", [each.op for each in changes], equals=["insert", "update", "delete"]):
        bench.expect("prior values", changes[1].changed_from, equals={"email": "a@example.org", "visits": 0})
        bench.expect("changed fields", changes[1].changed_fields, equals=("email", "visits"))
        bench.expect("prior values of insert and delete", [changes[0].changed_from, changes[2].changed_from],
                     equals=[None, None])


@breaks(changed_from, at="prior values")
def changed_from_not_asked_for(bench: Bench) -> None:
    bench.target.attach(bench.owner, "public.profiles")


# --- other ways to write ---------------------------------------------------------------------------------


@check("capture.bulk", claim="COPY, multi-row statements and data-modifying CTEs are captured row by row",
       section=_HERE, severity=P0, area=_TRIGGER)
def bulk(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.copy_in("COPY public.posts (slug, title) FROM STDIN", [(f"copy-{n}", "t") for n in range(50)])
        client.run("INSERT INTO public.posts (slug) SELECT 'many-' || n FROM generate_series(1, 50) n")
        client.run("WITH gone AS (DELETE FROM public.posts WHERE slug LIKE 'copy-1%' RETURNING slug) "
                   "INSERT INTO public.posts (slug) SELECT 'again-' || slug FROM gone")
    changes = bench.changes("posts")
    captured = sorted(each.data_after["slug"] for each in changes if each.op == "insert")
    written = sorted([f"copy-{n}" for n in range(50)] + [f"many-{n}" for n in range(1, 51)]
                     + [f"again-copy-{n}" for n in range(50) if str(n).startswith("1")])
    bench.expect("inserts captured", captured, equals=written)
    bench.expect("deletes captured", sum(each.op == "delete" for each in changes), equals=11)
    bench.expect("audit transactions", len({each.transaction_id for each in changes}), equals=1)


@breaks(bulk, at="inserts captured")
def bulk_loses_a_row(bench: Bench) -> None:
    bench.rewrite_capture(("FROM new_rows n OFFSET 0", "FROM new_rows n OFFSET 1"))


@check("capture.upsert", claim="an upsert is captured as what it did: insert, update, or nothing",
       section=_HERE, severity=P0, area=_TRIGGER)
def upsert(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "there")
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug, title) VALUES ('there', 'b'), ('fresh', 'b') "
                   "ON CONFLICT (slug) DO UPDATE SET title = EXCLUDED.title")
        client.run("INSERT INTO public.posts (slug, title) VALUES ('there', 'c') ON CONFLICT DO NOTHING")
    got = sorted((each.op, each.data_after["slug"], each.data_after["title"]) for each in bench.changes("posts"))
    bench.expect("changes", got, equals=[
        ("insert", "fresh", "b"), ("insert", "there", "a title"), ("update", "there", "b")])


@breaks(upsert, at="changes")
def upsert_update_not_captured(bench: Bench) -> None:
    bench.sabotage("ALTER TABLE public.posts DISABLE TRIGGER threadline_audit_update")


@check("capture.merge", claim="a MERGE is captured as the inserts, updates and deletes it did",
       section=_HERE, severity=P0, area=_TRIGGER)
def merge(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug, title) VALUES ('keep', 'old'), ('drop', 'old')")
    with bench.audited(client, ADA):
        client.run("MERGE INTO public.posts p USING (VALUES ('keep'), ('drop'), ('make')) AS s (slug) ON p.slug = s.slug "
                   "WHEN MATCHED AND s.slug = 'drop' THEN DELETE WHEN MATCHED THEN UPDATE SET title = 'new' "
                   "WHEN NOT MATCHED THEN INSERT (slug, title) VALUES (s.slug, 'new')")
    changes = bench.changes("posts")[2:]
    bench.expect("operations", sorted(each.op for each in changes), equals=["delete", "insert", "update"])
    bench.expect("images after", sorted(each.data_after["slug"] for each in changes if each.data_after),
                 equals=["keep", "make"])


@breaks(merge, at="operations")
def merge_delete_not_captured(bench: Bench) -> None:
    bench.sabotage("ALTER TABLE public.posts DISABLE TRIGGER threadline_audit_delete")


@check("capture.cascade", claim="rows changed by a foreign key are captured, with the statement's transaction and actor",
       section=_HERE, severity=P0, area=_TRIGGER)
def cascade(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.posts (id, slug) VALUES (1, 'one'), (2, 'two')")
        client.run("INSERT INTO public.comments (post_id, body) VALUES (1, 'a'), (1, 'b'), (2, 'c')")
        client.run("INSERT INTO public.bookmarks (post_id) VALUES (1)")
    with bench.audited(client, ADA):
        client.run("UPDATE public.posts SET id = 7 WHERE id = 2")
    with bench.audited(client, ADA):
        client.run("DELETE FROM public.posts WHERE id = 1")
    comments, bookmarks = bench.changes("comments")[3:], bench.changes("bookmarks")[1:]
    bench.expect("rows captured for comments", [each.op for each in comments], equals=["update", "delete", "delete"])
    bench.expect("rows captured for bookmarks", [(each.op, each.data_after and each.data_after["post_id"])
                                                 for each in bookmarks], equals=[("update", None)])
    deletion = [each for each in bench.changes("posts") if each.op == "delete"]
    of_deletion = {each.transaction_id for each in [*deletion, *comments[1:], *bookmarks]}
    bench.expect("audit transactions of the deletion", len(of_deletion), equals=1)
    bench.expect("actors", [each.actor for each in bench.changes()], equals=[ADA.reference] * len(bench.changes()))


@breaks(cascade, at="rows captured for comments")
def cascade_child_not_captured(bench: Bench) -> None:
    bench.disable_capture("public.comments")


@check("capture.truncate", claim="a TRUNCATE leaves a record for every table it emptied",
       section=_HERE, severity=P0, area=_TRIGGER)
def truncate(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "first")
    with bench.audited(client, ADA):
        client.run("TRUNCATE public.posts CASCADE")
    changes = [each for each in bench.changes() if each.op == "truncate"]
    bench.expect("tables recorded", sorted(each.table_name for each in changes), equals=["bookmarks", "comments", "posts"])
    bench.expect("actors", [each.actor for each in changes], equals=[ADA.reference] * len(changes))


@breaks(truncate, at="tables recorded")
def truncate_trigger_dropped(bench: Bench) -> None:
    bench.sabotage("DROP TRIGGER threadline_audit_truncate ON public.comments")


@check("capture.partitions", claim="rows of a partitioned table are captured under its name, however they are written",
       section=_HERE, severity=P0, area=_TRIGGER)
def partitions(bench: Bench) -> None:
    client = bench.client()
    bench.owner.run("CREATE TABLE public.measures_2027 PARTITION OF public.measures "
                    "FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')")
    bench.owner.run("GRANT ALL ON public.measures_2027 TO harness_app")
    for name, table, day in (("the root", "measures", "2025-05-05"), ("a leaf", "measures_2026", "2026-06-06"),
                             ("a new leaf", "measures_2027", "2027-07-07")):
        before = len(bench.changes("public.measures"))
        with bench.audited(client, ADA):
            client.run(f"INSERT INTO public.{table} VALUES ('{day}', 1, 20.5)")
        bench.expect(f"rows written to {name}", len(bench.changes("public.measures")) - before, equals=1)
    with bench.audited(client, ADA):
        client.run("UPDATE public.measures SET day = '2026-05-05' WHERE day = '2025-05-05'")
    bench.expect("a row that moves to another partition", _ops(bench, "public.measures")[3:], equals=["delete", "insert"])
    bench.expect("key", bench.changes("public.measures")[0].table_pk, equals={"day": "2025-05-05", "sensor": 1})


@breaks(partitions, at="rows written to a leaf")
def partitions_captured_by_statement(bench: Bench) -> None:
    bench.target.detach(bench.owner, "public.measures")
    bench.sabotage("CREATE TRIGGER naive AFTER INSERT ON public.measures REFERENCING NEW TABLE AS new_rows "
                   "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'day', 'sensor')")


@check("capture.stored-values", claim="the trail holds what was stored, also when another trigger edits or suppresses rows",
       section=_HERE, severity=P0, area=_TRIGGER)
def stored_values(bench: Bench) -> None:
    bench.owner.run(
        "ALTER TABLE public.posts ADD shout text GENERATED ALWAYS AS (upper(title)) STORED;"
        "CREATE FUNCTION public.edit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.slug = 'never' THEN "
        "RETURN NULL; END IF; NEW.title := NEW.title || '!'; RETURN NEW; END $$;"
        "CREATE TRIGGER edit BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.edit()")
    client = bench.client()
    bench.write(client, ADA, "edited")
    bench.write(client, ADA, "never")
    stored = [row for (row,) in bench.admin.rows("SELECT to_jsonb(p) FROM public.posts p ORDER BY id")]
    bench.expect("images", [each.data_after for each in bench.changes("posts")], equals=stored)
    bench.expect("title stored", [row["title"] for row in stored], equals=["a title!"])
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(stored_values, at="images")
def stored_values_image_altered(bench: Bench) -> None:
    bench.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "a title"}'""")


# --- transactions ----------------------------------------------------------------------------------------


@check("capture.one-transaction", claim="the changes of one transaction share one record, those of two do not",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def one_transaction(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        bench.insert_post(client, "a")
        with client.transaction():
            bench.insert_post(client, "b")
        client.run("UPDATE public.posts SET views = 1")
    bench.write(client, ADA, "c")
    changes = bench.changes("posts")
    bench.expect("records of the first transaction", len({each.transaction_id for each in changes[:4]}), equals=1)
    bench.expect("records in all", len({each.transaction_id for each in changes}), equals=2)
    bench.expect("records without a change", bench.target.count_transactions(bench.admin), equals=2)
    bench.expect("transaction ids known", [each.txid is not None for each in changes], equals=[True] * 5)


@breaks(one_transaction, at="records of the first transaction")
def one_transaction_torn_apart(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@check("capture.rollback", claim="what a transaction rolls back leaves nothing in the trail",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def rollback(bench: Bench) -> None:
    client = bench.client()
    bench.application.begin(client)
    bench.application.declare(client, ADA)
    bench.insert_post(client, "undone")
    client.run(bench.application.undo)
    bench.write(client, ADA, "kept")
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes()], equals=["kept"])
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(rollback, at="changes")
def rollback_that_commits(bench: Bench) -> None:
    bench.application.undo = "COMMIT"


@check("capture.savepoint", claim="what a savepoint rolls back leaves nothing, and what surrounds it stays",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def savepoint(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("SAVEPOINT s")
        bench.insert_post(client, "undone")
        client.run(bench.application.undo_to.format("s"))
        bench.insert_post(client, "kept")
    with bench.audited(client, ADA):
        client.run("SAVEPOINT s")
        bench.insert_post(client, "undone too")
        client.run(bench.application.undo_to.format("s"))
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes()], equals=["kept"])
    bench.expect("actor", [each.actor for each in bench.changes()], equals=[ADA.reference])
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(savepoint, at="changes")
def savepoint_that_is_released(bench: Bench) -> None:
    bench.application.undo_to = "RELEASE SAVEPOINT {}"


@check("capture.two-phase", claim="a prepared transaction is in the trail when it commits, complete, and not before",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def two_phase(bench: Bench) -> None:
    one, other = bench.clients(2)
    name = bench.database
    one.run("BEGIN")
    bench.application.declare(one, ADA)
    bench.insert_post(one, "two-phase")
    one.run(f"PREPARE TRANSACTION '{name}'")
    try:
        bench.expect("changes while prepared", len(bench.changes()), equals=0)
        other.run(f"COMMIT PREPARED '{name}'")
    except SqlError:
        bench.admin.run(f"ROLLBACK PREPARED '{name}'")  # or the database could not be dropped
        raise
    bench.expect("changes after the commit", [each.data_after["slug"] for each in bench.changes()], equals=["two-phase"])
    bench.expect("actor", [each.actor for each in bench.changes()], equals=[ADA.reference])


@breaks(two_phase, at="actor")
def two_phase_without_an_actor(bench: Bench) -> None:
    bench.application.declare = bench.application.declare_nothing


@check("capture.killed-connection", claim="a server connection killed in a transaction leaves neither the row nor a change",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def killed_connection(bench: Bench) -> None:
    client = bench.client()
    bench.application.begin(client)
    bench.application.declare(client, ADA)
    bench.insert_post(client, "lost")
    pid = client.server_pid()
    bench.admin.value("SELECT pg_terminate_backend(%s, 5000)", [pid])
    outcome = bench.attempt(lambda: client.run("COMMIT"))
    bench.fact("what the client was told", outcome)
    bench.fact("server connection killed", pid)
    bench.expect("the client was told", outcome != "done", equals=True)
    bench.expect("rows", bench.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    bench.expect("changes", len(bench.changes()), equals=0)
    bench.write(bench.client(), ADA, "next")
    bench.expect("changes of the next transaction", len(bench.changes()), equals=1)


@breaks(killed_connection, at="rows")
def killed_connection_without_a_transaction(bench: Bench) -> None:
    bench.application.begin = bench.application.begin_nothing


@check("capture.reused-txid", claim="a record left by another cluster with this transaction's id is not taken for its own",
       section=_HERE, severity=P0, area="transaction record", needs=(TRANSACTION_BLOCKS,))
def reused_txid(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        txid = client.value("SELECT txid_current()")
        # what a dump taken elsewhere brings along: ids of a cluster that counted differently
        bench.admin.run("INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref) VALUES "
                        "(gen_random_uuid(), %s, '2020-02-02', '{\"type\": \"user\", \"id\": \"somebody else\"}')", [txid])
        bench.insert_post(client, "mine")
    changes = bench.changes("posts")
    if bench.expect("rows captured", len(changes), equals=1):
        bench.expect("transaction id", changes[0].txid, equals=txid)
        bench.expect("actor", changes[0].actor, equals=ADA.reference)


@breaks(reused_txid, at="actor")
def reused_txid_is_looked_up(bench: Bench) -> None:
    bench.rewrite_capture(("uuid := public.threadline_transaction_id()",
                           "uuid := coalesce((SELECT id FROM public.audit_transactions WHERE txid = txid_current() "
                           "LIMIT 1), public.threadline_transaction_id())"))


# --- which row ---------------------------------------------------------------------------------------------


@check("capture.keys", claim="a deleted row is known by its real primary key, whatever its name, type and width",
       section=_HERE, severity=P0, area="row key")
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


@check("capture.key-change", claim="an update of the key itself names the row before and after",
       section=_HERE, severity=P1, area="row key")
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


@check("capture.renamed-key", claim="a key column renamed after the table was attached still identifies its rows",
       section=_HERE, severity=P0, area="row key")
def renamed_key(bench: Bench) -> None:
    bench.owner.run("ALTER TABLE public.authors RENAME COLUMN code TO handle")
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k-1', 'Kit')")
    bench.expect("key", [each.table_pk for each in bench.changes("authors")], equals=[{"handle": "k-1"}])
    bench.expect("coverage", bench.target.coverage(bench.owner)["public.authors"],
                 equals="its primary key changed since it was attached")


@breaks(renamed_key, at="key")
def renamed_key_is_not_noticed(bench: Bench) -> None:
    bench.rewrite_capture(("CASE WHEN v_single AND r.image ? v_key THEN", "CASE WHEN true THEN"))


@check("capture.identifiers", claim="names that must be quoted are captured as they are",
       section=_HERE, severity=P1, area=_TRIGGER)
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


# --- getting around the capture ------------------------------------------------------------------------------


def _unqualified(bench: Bench) -> None:
    """Capture as it is often written: names found by search_path, with the rights of the caller."""
    bench.rewrite_capture(("public.audit_", "audit_"), ("SET search_path TO 'pg_catalog', 'pg_temp'", ""),
                          ("SECURITY DEFINER", ""))
    bench.sabotage("GRANT INSERT, SELECT ON public.audit_changes, public.audit_transactions TO harness_app")


@check("capture.temp-tables", claim="temporary tables named like the trail's do not divert it",
       section=_HERE, severity=P0, area="capture function", needs=(TRANSACTION_BLOCKS,))
def temp_tables(bench: Bench) -> None:
    client = bench.client()

    def write_beside_temp_tables() -> None:
        with bench.audited(client, ADA):
            for table in ("audit_changes", "audit_transactions"):
                client.run(f"CREATE TEMP TABLE {table} ON COMMIT DROP AS SELECT * FROM public.{table} WITH NO DATA")
            client.run("CREATE UNIQUE INDEX ON pg_temp.audit_transactions (id)")
            bench.insert_post(client, "diverted")

    bench.expect("the write", bench.attempt(write_beside_temp_tables), equals="done")
    bench.expect("rows in the real trail", len(bench.changes("posts")), equals=1)


@breaks(temp_tables, at="rows in the real trail")
def temp_tables_are_found_first(bench: Bench) -> None:
    _unqualified(bench)


@check("capture.search-path", claim="a write is captured whatever the search_path of its writer",
       section=_HERE, severity=P0, area="capture function", needs=(TRANSACTION_BLOCKS,))
def search_path(bench: Bench) -> None:
    client = bench.client()
    bench.owner.run('CREATE FUNCTION "Shop".post(text) RETURNS void LANGUAGE sql SECURITY DEFINER '
                    'SET search_path = "Shop" AS $$ INSERT INTO public.posts (slug) VALUES ($1) $$;'
                    'GRANT EXECUTE ON FUNCTION "Shop".post(text) TO harness_app')

    def write(path: str, statement: str) -> None:
        with bench.audited(client, ADA):
            client.run(f"SET LOCAL search_path = {path}")
            client.value(statement)

    insert_as = "INSERT INTO public.posts (slug) VALUES ('{}') RETURNING id"
    for name, path, statement in (
        ("an empty search_path", "''", insert_as.format("empty")),
        ("another schema only", '"Shop"', insert_as.format("other")),
        ("a function with a pinned path", "public", """SELECT "Shop".post('pinned')::text"""),
    ):
        bench.expect(f"write with {name}", bench.attempt(partial(write, path, statement)), equals="done")
    bench.expect("rows captured", len(bench.changes("posts")), equals=3)


@breaks(search_path, at="write with an empty search_path")
def search_path_decides(bench: Bench) -> None:
    _unqualified(bench)


@check("capture.forgery", claim="the application role can neither forge, change nor delete audit rows, nor switch capture off",
       section=_HERE, severity=P0, area="rights of the application role", needs=(TRANSACTION_BLOCKS,))
def forgery(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "genuine")
    before = bench.changes()
    change = "INSERT INTO public.audit_changes (transaction_id, table_schema, table_name, table_pk, op) "
    for name, statement in (
        ("insert a forged change", change + "SELECT id, 'public', 'posts', '{}', 'delete' FROM public.audit_transactions"),
        ("insert a forged transaction", "INSERT INTO public.audit_transactions (id, txid) VALUES (gen_random_uuid(), 1)"),
        ("insert a forged action", "INSERT INTO public.audit_actions (name, actor_ref, status) VALUES ('x', '{}', 'ok')"),
        ("rewrite an actor", "UPDATE public.audit_transactions SET actor_ref = NULL"),
        ("rewrite a change", "UPDATE public.audit_changes SET data_after = NULL"),
        ("delete changes", "DELETE FROM public.audit_changes"),
        ("delete transactions", "DELETE FROM public.audit_transactions"),
        ("truncate the trail", "TRUNCATE public.audit_changes"),
        ("disable a trigger", "ALTER TABLE public.posts DISABLE TRIGGER ALL"),
        ("drop a trigger", "DROP TRIGGER threadline_audit_insert ON public.posts"),
        ("detach a table", "SELECT public.threadline_detach('public.posts')"),
        ("capture rows of a table of its own",
         "CREATE TEMP TABLE posts (id int PRIMARY KEY) ON COMMIT DROP; CREATE TRIGGER forged AFTER INSERT ON pg_temp.posts "
         "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'id')"),
        ("replace the capture function",
         "CREATE OR REPLACE FUNCTION public.threadline_capture() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"),
        ("switch triggers off", "SET LOCAL session_replication_role = replica"),
    ):
        def attempt(statement: str = statement) -> None:
            with client.transaction():
                client.run(statement)

        bench.expect(name, bench.sqlstate(attempt), equals="42501")
    bench.expect("the trail afterwards", [each.id for each in bench.changes()], equals=[each.id for each in before])


@breaks(forgery, at="insert a forged change")
def forgery_by_the_usual_grants(bench: Bench) -> None:
    bench.sabotage("GRANT SELECT, INSERT ON public.audit_transactions, public.audit_changes TO harness_app")


@breaks(forgery, at="capture rows of a table of its own")
def forgery_by_a_trigger_of_its_own(bench: Bench) -> None:
    bench.sabotage("GRANT EXECUTE ON FUNCTION public.threadline_capture() TO PUBLIC")


@check("capture.no-recursion", claim="the trail does not audit itself, and refuses to be told to",
       section=_HERE, severity=P1, area="capture function")
def no_recursion(bench: Bench) -> None:
    bench.write(bench.client(), ADA, "first")
    about_itself = [each.table_name for each in bench.changes() if each.table_name.startswith("audit_")]
    bench.expect("changes about the trail's own tables", about_itself, equals=[])
    for table in ("audit_changes", "audit_transactions", "audit_actions"):
        bench.expect(f"attaching {table}",
                     bench.sqlstate(partial(bench.target.attach, bench.owner, f"public.{table}")), equals="42809")
    bench.owner.run("CREATE TABLE public.keyless (n int)")
    bench.expect("attaching a table without a key",
                 bench.sqlstate(partial(bench.target.attach, bench.owner, "public.keyless")), equals="55000")


@breaks(no_recursion, at="changes about the trail's own tables")
def no_recursion_but_forced(bench: Bench) -> None:
    bench.sabotage("CREATE TRIGGER itself AFTER INSERT ON public.audit_transactions REFERENCING NEW TABLE AS new_rows "
                   "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'id')")


@check("capture.coverage", claim="coverage tells the tables that are captured from those that only look it",
       section=_HERE, severity=P0, area="coverage")
def coverage(bench: Bench) -> None:
    def problem(table: str) -> str | None:
        return bench.target.coverage(bench.owner)[table]

    bench.expect("a table with capture", problem("public.posts"), equals=None)
    bench.expect("a partitioned table with capture", problem("public.measures"), equals=None)
    bench.expect("a table without", problem("public.drafts"), equals="no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE")
    bench.owner.run('CREATE TABLE "Shop".posts (id int PRIMARY KEY)')
    bench.expect("a table of the same name elsewhere", problem("Shop.posts") is not None, equals=True)
    bench.owner.run("CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                    "CREATE TRIGGER threadline_audit_drafts AFTER INSERT OR UPDATE OR DELETE ON public.drafts "
                    "FOR EACH ROW EXECUTE FUNCTION public.nothing()")
    bench.expect("a trigger of the right name that does nothing", problem("public.drafts") is not None, equals=True)
    bench.owner.run("ALTER TABLE public.posts DISABLE TRIGGER threadline_audit_update")
    bench.expect("a disabled trigger", problem("public.posts"), equals="the capture trigger is disabled for UPDATE")
    bench.target.attach(bench.owner, "public.posts")
    bench.expect("attached again", problem("public.posts"), equals=None)
    bench.owner.run("ALTER TABLE public.measures DETACH PARTITION public.measures_2025")
    bench.expect("a detached partition", problem("public.measures_2025") is not None, equals=True)
    bench.rewrite_capture(("RETURN NULL", "RETURN NULL /* not what was installed */"))
    bench.expect("a capture function that was replaced", problem("public.posts"),
                 equals="the capture function is not the one that was installed")


@breaks(coverage, at="a disabled trigger")
def coverage_by_name(bench: Bench) -> None:
    bench.sabotage("""
        CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE AS $$
            SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname LIKE 'threadline_audit_%')
                        THEN 'no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE' END $$""")


@check("capture.canary", claim="what coverage calls covered really captures a row written to it",
       section=_HERE, severity=P0, area="coverage")
def canary(bench: Bench) -> None:
    client: Client = bench.client()
    covered = {table for table, problem in bench.target.coverage(bench.owner).items() if problem is None}
    for table, statement in {
        "public.posts": "INSERT INTO public.posts (slug) VALUES ('canary')",
        "public.authors": "INSERT INTO public.authors VALUES ('canary', 'c')",
        "public.profiles": "INSERT INTO public.profiles (id) VALUES (1)",
        "public.measures": "INSERT INTO public.measures VALUES ('2026-01-01', 1, 1)",
        "public.drafts": "INSERT INTO public.drafts (body) VALUES ('canary')",
    }.items():
        try:
            with bench.audited(client, ADA):
                client.run(statement)
        except SqlError as error:
            bench.expect(f"canary write to {table}", describe(error), equals="done")
        bench.expect(f"captured from {table}", len(bench.changes(table)) == 1, equals=table in covered)


@breaks(canary, at="captured from public.posts")
def canary_dies_unnoticed(bench: Bench) -> None:
    bench.sabotage("CREATE RULE nothing AS ON INSERT TO public.audit_changes DO INSTEAD NOTHING")
