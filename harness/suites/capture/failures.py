"""Capture: when things go wrong, no write is lost from the trail without failing itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.checks.registry import MADE_BY_THE_SERVER, P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.habits import ADA, CAPTURE_TRIGGER

if TYPE_CHECKING:
    from harness.checks.context import Bench
    from harness.database import Client

_HERE = Section.CAPTURE


def _unaudited(bench: Bench) -> list[str]:
    """Return the slugs of posts that the trail knows nothing about."""
    captured = {(each.data_after or {}).get("slug") for each in bench.changes("posts")}
    return [row[0] for row in bench.admin.rows("SELECT slug FROM public.posts ORDER BY id") if row[0] not in captured]


@check(
    "capture.locked-trail",
    claim="a write waits for a locked trail, or fails and leaves nothing; it never goes through unaudited",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def locked_trail(bench: Bench) -> None:
    client = bench.client()

    def write(slug: str) -> None:
        with bench.audited(client, ADA):
            client.run("SET LOCAL lock_timeout = '100ms'")
            bench.insert_post(client, slug)

    with bench.admin.transaction():  # what CREATE INDEX without CONCURRENTLY takes
        bench.admin.run(f"LOCK TABLE {', '.join(bench.target.tables)} IN SHARE MODE")
        bench.expect("a write while the trail is locked", bench.sqlstate(partial(write, "waits")), equals="55P03")
    bench.expect("rows without an audit row", _unaudited(bench), equals=[])
    bench.expect("a write afterwards", bench.attempt(partial(write, "after")), equals="done")
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes("posts")], equals=["after"])


@breaks(locked_trail, at="rows without an audit row")
def locked_trail_is_passed_by(bench: Bench) -> None:
    bench.disable_capture("public.posts")


@check(
    "capture.trail-gone",
    claim="when the trail is dropped, audited writes fail and write nothing",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def trail_gone(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "before")
    bench.admin.run(f"DROP TABLE {', '.join(bench.target.tables)} CASCADE")
    outcome = bench.attempt(partial(bench.write, client, ADA, "after"))
    bench.fact("what the client was told", outcome)
    bench.expect("a write without a trail went through", outcome == "done", equals=False)
    slugs = [row[0] for row in bench.admin.rows("SELECT slug FROM public.posts")]
    bench.expect("rows written", slugs, equals=["before"])


@breaks(trail_gone, at="rows written")
def trail_gone_unnoticed(bench: Bench) -> None:
    bench.disable_capture("public.posts")


@check(
    "capture.durable",
    claim="the trail is as durable as what it tells: its tables are ordinary ones, which a crash leaves as they are",
    section=_HERE,
    severity=P0,
    area="trail tables",
)
def durable(bench: Bench) -> None:
    kinds = bench.admin.rows(
        "SELECT t, c.relpersistence = 'p' FROM unnest(%s::text[]) t JOIN pg_class c ON c.oid = t::regclass",
        [list(bench.target.tables)],
    )
    for table, permanent in kinds:
        bench.expect(f"{table} survives a crash", permanent, equals=True)


@breaks(durable, at="public.audit_changes survives a crash")
def durable_no_more(bench: Bench) -> None:
    bench.sabotage("ALTER TABLE public.audit_changes SET UNLOGGED")


@check(
    "capture.dropped-table",
    claim="a table that is dropped while it is written to takes none of its history along",
    section=_HERE,
    severity=P1,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def dropped_table(bench: Bench) -> None:
    client = bench.client()

    def drop() -> None:
        with bench.owner.transaction():
            bench.owner.run("SET LOCAL lock_timeout = '100ms'; DROP TABLE public.authors")

    def insert(code: str) -> None:
        with bench.audited(client, ADA):
            client.run("INSERT INTO public.authors VALUES (%s, 'x')", [code])

    with bench.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k', 'Kit')")
        bench.expect("dropping it in the middle", bench.sqlstate(drop), equals="55P03")
        client.run("UPDATE public.authors SET name = 'Kat'")
    bench.expect("dropping it afterwards", bench.attempt(drop), equals="done")
    bench.expect("a write to what is gone", bench.sqlstate(partial(insert, "m")), equals="42P01")
    bench.expect("its changes", [each.op for each in bench.changes("authors")], equals=["insert", "update"])
    bench.write(client, ADA, "elsewhere")
    bench.expect("writes to other tables", _unaudited(bench), equals=[])


@breaks(dropped_table, at="its changes")
def dropped_table_takes_its_changes(bench: Bench) -> None:
    bench.tamper("audit_changes", "IF NEW.op = 'update' THEN RETURN NULL; END IF")


def _blobs(bench: Bench) -> Client:
    bench.owner.run(
        "CREATE TABLE public.blobs (id int PRIMARY KEY, body text, raw bytea, doc json); "
        "GRANT ALL ON public.blobs TO harness_app"
    )
    bench.target.attach(bench.owner, "public.blobs")
    return bench.client()


def _write_beside(bench: Bench, client: Client, statement: str) -> None:
    with bench.audited(client, ADA):
        bench.insert_post(client, "beside")
        client.run(statement)


@check(
    "capture.hostile-values",
    claim="a value that cannot be kept as JSON fails the write, and all that was written with it",
    section=_HERE,
    severity=P0,
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def hostile_values(bench: Bench) -> None:
    client = _blobs(bench)
    nul = 'INSERT INTO public.blobs (id, doc) VALUES (1, \'{"a": "\\u0000"}\')'
    bench.expect("an escaped NUL", bench.refusal(partial(_write_beside, bench, client, nul)), equals="refused")
    bench.expect("rows written", bench.admin.value("SELECT count(*) FROM public.blobs"), equals=0)
    bench.expect("rows written beside it", bench.admin.value("SELECT count(*) FROM public.posts"), equals=0)


@check(
    "capture.large-values",
    claim="a value of 100 MB is kept whole; one that is too large to be kept as JSON fails the write",
    section=_HERE,
    severity=P0,
    area="capture function",
    needs=(TRANSACTION_BLOCKS, MADE_BY_THE_SERVER),
)
def large_values(bench: Bench) -> None:
    client = _blobs(bench)
    huge = "INSERT INTO public.blobs (id, raw) VALUES (2, convert_to(repeat('x', 129 * 1024 * 1024), 'UTF8'))"
    outcome = bench.sqlstate(partial(_write_beside, bench, client, huge))
    bench.fact("what the client was told about 129 MiB of bytea, 258 as text", outcome)
    bench.expect("129 MiB of bytea, 258 as text", outcome in {"54000", "22P05", "53200"}, equals=True)
    bench.expect("rows written beside it", bench.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    large = "INSERT INTO public.blobs (id, body) VALUES (3, repeat('x', 100 * 1000 * 1000))"
    bench.expect("100 MB of text", bench.attempt(partial(_write_beside, bench, client, large)), equals="done")
    # measured where it lies: to bring it here would cost more than the capture did
    kept = f"SELECT length(c.data_after ->> 'body') FROM ({bench.target.statements.changes}) c WHERE c.table_name = 'blobs'"
    bench.expect("bytes kept", [row[0] for row in bench.admin.rows(kept)], equals=[100 * 1000 * 1000])


def _blobs_are_not_captured(bench: Bench) -> None:
    bench.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME = 'blobs' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@breaks(hostile_values, at="an escaped NUL")
def hostile_values_are_not_captured(bench: Bench) -> None:
    _blobs_are_not_captured(bench)


@breaks(large_values, at="bytes kept")
def large_values_are_not_captured(bench: Bench) -> None:
    _blobs_are_not_captured(bench)


@check(
    "capture.least-rights",
    claim="a role that may write a table writes it audited, without a right on the trail",
    section=_HERE,
    severity=P1,
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
)
def least_rights(bench: Bench) -> None:
    role = f"least_{bench.database[-6:]}"
    bench.admin.run(
        f"CREATE ROLE {role}; GRANT INSERT ON public.posts TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    )
    client: Client = bench.admin

    def write() -> None:
        with client.transaction():
            client.run(f"SET LOCAL ROLE {role}")
            bench.application.declare(client, ADA)
            bench.insert_post(client, "least")

    try:
        bench.expect("its write", bench.attempt(write), equals="done")
        bench.expect("actor", bench.actor_of("least"), equals=ADA.reference)
        bench.expect("rows without an audit row", _unaudited(bench), equals=[])
    finally:
        client.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@breaks(least_rights, at="its write")
def least_rights_with_those_of_the_caller(bench: Bench) -> None:
    bench.rewrite_capture(("SECURITY DEFINER", ""))
