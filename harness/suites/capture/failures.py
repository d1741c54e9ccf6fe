"""Capture: under failures, a write is either in the trail or fails."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import Recorded
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.concurrency import ended_or_waits
from harness.suites.capture.stored import in_order
from harness.suites.capture.uncaptured import message, weaken

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE


class Interruption(Struct, frozen=True):
    """An end of a write that waits for the trail."""

    what: str
    #: a setting of the writer with its value; none when a superuser cancels the write
    setting: str = ""
    value: str = ""


_INTERRUPTIONS = (
    Interruption("a lock timeout", "lock_timeout", "100ms"),
    Interruption("a statement timeout", "statement_timeout", "100ms"),
    Interruption("a cancelled statement"),
)
_RECORDED = (Recorded.INSERTS, Recorded.IMAGE)


def _unaudited(ctx: CheckContext) -> list[str]:
    """Return the slugs of posts that have no change in the trail."""
    captured = {change.text("slug") for change in ctx.changes("posts")}
    return [row[0] for row in ctx.admin.rows("SELECT slug FROM public.posts ORDER BY id") if row[0] not in captured]


def _made_up(ctx: CheckContext) -> list[str]:
    """Return the slugs of changes whose post is not there."""
    posts = {row[0] for row in ctx.admin.rows("SELECT slug FROM public.posts")}
    return sorted({change.text("slug") for change in ctx.changes("posts")} - posts)


def _own_tables(ctx: CheckContext) -> list[str]:
    """Return the tables of the trail that the application does not write to.

    :raises NotApplicableError: for a trail without one, such as a history in a column of the row.
    """
    audited = {name.replace('"', "") for name in ctx.attached}
    tables = [table for table in ctx.target.tables if table.replace('"', "") not in audited]
    if not tables:
        raise NotApplicableError("the trail has no table of its own")
    return tables


@check(
    "capture.locked-trail",
    claim="a write to a locked trail waits, fails and leaves nothing when a timeout or a cancel ends it; it never commits unaudited",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def locked_trail(ctx: CheckContext) -> None:
    tables = _own_tables(ctx)
    client, superuser = ctx.plain_client(), ctx.connect(ctx.lab.admin(ctx.database))
    for ends in _INTERRUPTIONS:
        limit = f"SELECT set_config('{ends.setting}', '{ends.value}', true); " if ends.setting else ""
        write = f"INSERT INTO public.posts (slug) VALUES ('{ends.what}')"
        with superuser.transaction():  # the lock of CREATE INDEX without CONCURRENTLY
            superuser.run(f"LOCK TABLE {', '.join(tables)} IN SHARE MODE")
            pid = superuser.info.backend_pid
            outcome = ended_or_waits(ctx, client, message(ctx, ADA, limit + write), pid, patient=bool(limit))
        ctx.fact(
            f"a write that {ends.what} ends", outcome.replace("$HOLDER", "the lock of an index that is built") or "done"
        )
    ctx.expect("rows without an audit row", _unaudited(ctx), equals=[])
    ctx.expect("changes without their row", _made_up(ctx), equals=[])
    ctx.expect("a write afterwards", ctx.attempt(partial(ctx.write, client, ADA, "after")), equals="done")
    ctx.expect("changes of the write afterwards", [c.op for c in ctx.changes("posts")][-1:], equals=["insert"])


@breaks(locked_trail, at="rows without an audit row")
def locked_trail_is_bypassed(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(locked_trail, at="rows without an audit row")
def locked_trail_is_given_up(ctx: CheckContext) -> None:
    _swallow(ctx, "lock_not_available")


def _swallow(ctx: CheckContext, condition: str) -> None:
    """Let the capture functions swallow an error, by its PL/pgSQL name."""
    ctx.rewrite_capture(
        ("    IF TG_OP = 'INSERT' THEN", "    BEGIN\n    IF TG_OP = 'INSERT' THEN"),
        (
            "    END IF;\n    RETURN NULL;\nEND",
            f"    END IF;\n    RETURN NULL;\n    EXCEPTION WHEN {condition} THEN RETURN NULL; END;\nEND",
        ),
    )


@check(
    "capture.trail-gone",
    claim="when a table of the trail refuses a record, or all are dropped, audited writes fail or are recorded all the same",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def trail_gone(ctx: CheckContext) -> None:
    tables, client = _own_tables(ctx), ctx.client()
    ctx.write(client, ADA, "before")
    for table in tables:
        ctx.admin.run(f"ALTER TABLE {table} ADD CONSTRAINT harness_refuses CHECK (false) NOT VALID")
        outcome = ctx.attempt(partial(ctx.write, client, ADA, f"refused by {table}"))
        ctx.admin.run(f"ALTER TABLE {table} DROP CONSTRAINT harness_refuses")
        ctx.fact(f"a write while {table} refuses every row", outcome)
    ctx.expect("rows without an audit row", _unaudited(ctx), equals=[])
    ctx.expect("changes without their row", _made_up(ctx), equals=[])
    slugs = [row[0] for row in ctx.admin.rows("SELECT slug FROM public.posts")]
    ctx.admin.run(f"DROP TABLE {', '.join(tables)} CASCADE")
    outcome = ctx.attempt(partial(ctx.write, client, ADA, "after"))
    ctx.fact("a write when the trail is dropped", outcome)
    ctx.expect("a write without a trail succeeds", outcome == "done", equals=False)
    ctx.expect("rows written", [row[0] for row in ctx.admin.rows("SELECT slug FROM public.posts")], equals=slugs)


@breaks(trail_gone, at="rows written")
def trail_gone_unnoticed(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(trail_gone, at="rows without an audit row")
def trail_gone_with_swallowed_errors(ctx: CheckContext) -> None:
    _swallow(ctx, "check_violation")


@check(
    "capture.dropped-table",
    claim="dropping a table that is being written to removes nothing of its history",
    section=_HERE,
    severity=P1,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def dropped_table(ctx: CheckContext) -> None:
    client = ctx.client()

    drop = partial(weaken, ctx, ctx.owner, "SET LOCAL lock_timeout = '100ms'; DROP TABLE public.authors")

    def insert(code: str) -> None:
        with ctx.audited(client, ADA):
            client.run("INSERT INTO public.authors VALUES (%s, 'x')", [code])

    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.authors VALUES ('k', 'Kit')")
        ctx.expect("dropping it during a write", ctx.sqlstate(drop), equals="55P03")
        client.run("UPDATE public.authors SET name = 'Kat'")
    if drop():
        ctx.expect("a write to the dropped table", ctx.sqlstate(partial(insert, "m")), equals="42P01")
    kept = ctx.expected_ops("insert", "update")
    ctx.expect("its changes", in_order(ctx, [change.op for change in ctx.changes("authors")]), equals=kept)
    ctx.expect("a write to another table", ctx.attempt(partial(ctx.write, client, ADA, "elsewhere")), equals="done")
    if all(map(ctx.records, _RECORDED)):
        ctx.expect("writes to other tables", _unaudited(ctx), equals=[])


@breaks(dropped_table, at="its changes")
def dropped_table_takes_its_changes(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "IF NEW.op = 'update' THEN RETURN NULL; END IF")


@check(
    "capture.least-rights",
    claim="the writes of a role are audited although it has no right on the trail",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def least_rights(ctx: CheckContext) -> None:
    role = f"least_{ctx.database[-6:]}"
    ctx.admin.run(
        f"CREATE ROLE {role}; GRANT INSERT ON public.posts TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    )
    client: Client = ctx.admin

    def write() -> None:
        with ctx.audited(client, ADA):  # the login declares the actor, and may have rights that the role lacks
            client.run(f"SET LOCAL ROLE {role}")
            ctx.insert_post(client, "least")

    try:
        ctx.expect("its write", ctx.attempt(write), equals="done")
        if ctx.records(Recorded.ACTOR):
            ctx.expect("actor", ctx.actor_of("least"), equals=ADA.reference)
        ctx.expect("rows without an audit row", _unaudited(ctx), equals=[])
    finally:
        client.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@breaks(least_rights, at="its write")
def least_rights_with_those_of_the_caller(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SECURITY DEFINER", ""))
