"""Capture: for which other writers a writer waits or fails because of the trail."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.checks.hanging import LOCK, lock_in_words
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.errors import TimedOutError
from harness.libpq import finish, start
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.uncaptured import CAPTURED, UNCAPTURED, copy_tables, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE
#: a write of one row takes some milliseconds; a cancelled one ends at once
_LONGEST_S, _LOOK_S = 10.0, 0.05
_HANGS = "did not end"
_LOCK_NOT_AVAILABLE = "55P03"


class Holder(Struct, frozen=True):
    """A transaction that stays open while others write."""

    #: what it did, as in "the transaction that …"
    did: str
    #: one statement; {at} is the schema of the tables, {key} a number of its own
    statement: str


#: transactions of the application
_WRITERS = (
    Holder("inserted another row", "INSERT INTO {at}.posts (id, slug, title) VALUES ({key}, 'held', 'a title')"),
    Holder("updated another row", "UPDATE {at}.posts SET views = views + 1 WHERE id = 1"),
    Holder("deleted another row", "DELETE FROM {at}.posts WHERE id = 2"),
    Holder("inserted a row into another table", "INSERT INTO {at}.authors VALUES ('held', 'a name')"),
)
#: transactions of a superuser; {trail} are the tables of the trail
_MAINTENANCE = (
    Holder("reads the trail and the table", "LOCK TABLE {trail}, {at}.posts IN ACCESS SHARE MODE"),
    Holder("vacuums the trail and the table", "LOCK TABLE {trail}, {at}.posts IN SHARE UPDATE EXCLUSIVE MODE"),
)
#: writes that wait for none of these transactions without a trail; {key} is that of the holder
_WRITES = {
    "an insert": "INSERT INTO {at}.posts (id, slug, title) VALUES (10 * {key}, 'written {key}', 'a title')",
    "an update": "UPDATE {at}.posts SET title = 'new {key}' WHERE id = 3",
    "a delete": "DELETE FROM {at}.posts WHERE id = {key} - 900",
    "an insert into a third table": "INSERT INTO {at}.profiles (id, email) VALUES ({key}, 'a@example.org')",
    # PostgreSQL lets rows refer to a row whose key an open transaction has not changed
    "an insert that refers to the updated row": "INSERT INTO {at}.comments (post_id, body) VALUES (1, 'a comment')",
}
_FIRST_KEY = 1000

#: the statements that wait for a server process: the process, and the lock
_WAITING = f"""
    SELECT a.pid, {LOCK} FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
    WHERE a.datname = current_database() AND %s = ANY (pg_blocking_pids(a.pid))
"""
#: the statements of the application that run
_RUNNING = """
    SELECT pid, concat_ws(' ', wait_event_type, wait_event) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'active' AND position(%s IN query) > 0 AND pid <> pg_backend_pid()
"""


@check(
    "capture.waits",
    claim="a write waits for no transaction that wrote other rows, reads the trail or vacuums it",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
)
def waits(ctx: CheckContext) -> None:
    writer = ctx.plain_client()
    application, superuser = ctx.direct_client(), ctx.connect(ctx.lab.admin(ctx.database))
    with ctx.audited(application, ADA):
        application.run(
            "INSERT INTO public.posts (id, slug, title) SELECT n, 'post ' || n, 'a title' FROM generate_series(1, 120) n"
        )
    copy_tables(ctx)
    for number, holder in enumerate((*_WRITERS, *_MAINTENANCE)):
        held_by = superuser if holder in _MAINTENANCE else application
        found = [
            sentence
            for what, write in _WRITES.items()
            if (sentence := _waits(ctx, held_by, writer, holder, (CAPTURED, _FIRST_KEY + number, what, write)))
        ]
        ctx.expect(f"writes alongside a transaction that {holder.did}", found, equals=[])
        if any(_HANGS in sentence for sentence in found):  # each other write would last as long
            return


def _waits(ctx: CheckContext, held_by: Client, writer: Client, holder: Holder, case: tuple[str, int, str, str]) -> str:
    """Return what a write waits for while another transaction is open; "" when it ends."""
    schema, key, what, write = case

    def outcome(at: str) -> str:
        names = {"at": at, "key": key, "trail": ", ".join(ctx.target.tables)}
        with _open(ctx, held_by, holder, holder.statement.format(**names)) as pid:
            return ended_or_waits(ctx, writer, message(ctx, ADA, write.format(**names)), pid)

    waited = outcome(schema)
    if not waited or outcome(UNCAPTURED):
        return ""
    return f"{what} {waited}; without the trail it ends".replace("$HOLDER", f"the transaction that {holder.did}")


@contextlib.contextmanager
def _open(ctx: CheckContext, client: Client, holder: Holder, statement: str) -> Iterator[int]:
    """Keep a transaction open within the block, and return its server process. It is rolled back."""
    with contextlib.ExitStack() as stack:
        if holder in _MAINTENANCE:
            stack.enter_context(client.transaction(force_rollback=True))
        else:
            stack.callback(client.run, "ROLLBACK")
            ctx.application.begin_audited(client, ADA)
        client.run(statement)
        yield client.info.backend_pid


def ended_or_waits(ctx: CheckContext, writer: Client, text: str, holder: int, *, patient: bool = False) -> str:
    """Run a write; return "" when it ended, else what it waits for, after it was cancelled.

    :param holder: the server process of a transaction that stays open. $HOLDER stands for it in the answer.
    :param patient: whether to wait for the end of a write that the holder blocks: it has a timeout of its own.
    """
    start(writer, text)
    end = time.monotonic() + _LONGEST_S
    while True:
        with contextlib.suppress(TimedOutError):
            reply = finish(writer, _LOOK_S)
            return f"fails: {reply.sqlstate} {reply.message}" if reply.is_error else ""
        ctx.require_undisturbed()
        if not patient and (blocked := ctx.admin.rows(_WAITING, [holder])):
            pid, *lock = blocked[0]
            _cancel(ctx, writer, pid)
            return f"waits for $HOLDER: {lock_in_words(*lock)}"
        if time.monotonic() > end:
            running = ctx.admin.rows(_RUNNING, [text])
            for pid, _ in running:
                _cancel(ctx, writer, pid)
            waits_for = running[0][1] if running else ""
            return f"{_HANGS} within {_LONGEST_S:g} s" + (f"; it waits for {waits_for}" if waits_for else "")


def _cancel(ctx: CheckContext, writer: Client, pid: int) -> None:
    ctx.admin.value("SELECT pg_cancel_backend(%s)", [pid])
    with contextlib.suppress(TimedOutError):
        finish(writer, _LONGEST_S)


@breaks(waits, at="writes alongside a transaction that inserted another row")
def waits_for_one_lock(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM pg_advisory_xact_lock(7)")


@breaks(waits, at="writes alongside a transaction that updated another row")
def waits_for_one_row(ctx: CheckContext) -> None:
    _count_in_one_row(ctx)


def _count_in_one_row(ctx: CheckContext) -> None:
    ctx.sabotage("CREATE TABLE public.counted AS SELECT 0 AS n; GRANT ALL ON public.counted TO PUBLIC")
    ctx.tamper("audit_changes", "UPDATE public.counted SET n = n + 1")


@breaks(waits, at="writes alongside a transaction that vacuums the trail and the table")
def waits_for_a_vacuum(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "LOCK TABLE public.audit_changes IN SHARE UPDATE EXCLUSIVE MODE")


# --- isolation levels --------------------------------------------------------------------------------------


class Race(Struct, frozen=True):
    """Three transactions with one snapshot each, taken before any of them writes."""

    what: str
    writes: tuple[str, str, str]
    #: whether each commits before the next one writes; else all write, then the last one commits first
    one_by_one: bool
    #: whether the writers collide without a trail, too
    collides: bool = False


_POST = "INSERT INTO {{at}}.posts (slug, title) VALUES ('{}', 'a title')"
_SAME_TABLE = (_POST.format("one"), _POST.format("two"), _POST.format("three"))
_TABLES = (
    _POST.format("one"),
    "INSERT INTO {at}.authors VALUES ('two', 'a name')",
    "INSERT INTO {at}.profiles (id, email) VALUES (3, 'a@example.org')",
)
_RACES = (
    Race("inserts that commit in reverse", _SAME_TABLE, one_by_one=False),
    Race("inserts one by one", _SAME_TABLE, one_by_one=True),
    Race("inserts into three tables that commit in reverse", _TABLES, one_by_one=False),
    Race("inserts of the same key", (_SAME_TABLE[0],) * 3, one_by_one=True, collides=True),
)


@check(
    "capture.isolation",
    claim="under repeatable read and serializable, concurrent writers fail with the trail only where they fail without it",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def isolation(ctx: CheckContext) -> None:
    """Three writers: two never form the structure of conflicts that a serializable transaction fails for."""
    copy_tables(ctx)
    clients = (ctx.plain_client(), ctx.direct_client(), ctx.direct_client())
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        for race in _RACES:
            with_trail = _run(ctx, clients, level, race, CAPTURED)
            without = ["done"] * 3
            if race.collides or with_trail != without:
                without = _run(ctx, clients, level, race, UNCAPTURED)
            if _LOCK_NOT_AVAILABLE in with_trail and _LOCK_NOT_AVAILABLE not in without:
                continue  # capture.waits judges it
            ctx.expect(f"{level}: {race.what}", with_trail, equals=without)


def _run(ctx: CheckContext, clients: tuple[Client, ...], level: str, race: Race, at: str) -> list[str]:
    """Return the outcome of each transaction. Their rows are removed again."""
    outcomes = ["done"] * len(clients)

    def step(number: int, action: Callable[[], Any]) -> None:
        if outcomes[number] == "done":
            outcomes[number] = ctx.sqlstate(action)

    for number, client in enumerate(clients):
        client.run(f"BEGIN ISOLATION LEVEL {level}; SET LOCAL lock_timeout = '500ms'")
        step(number, partial(ctx.application.declare, client, ADA))
        step(number, partial(client.run, "SELECT 1"))
    numbered = list(enumerate(zip(clients, race.writes, strict=True)))
    for number, (client, write) in numbered:
        step(number, partial(client.run, write.format(at=at)))
        if race.one_by_one:
            step(number, partial(client.run, "COMMIT"))
    for number, (client, _) in reversed(numbered):
        if not race.one_by_one:
            step(number, partial(client.run, "COMMIT"))
        if outcomes[number] != "done":
            client.run("ROLLBACK")
    with ctx.audited(clients[-1], ADA):
        clients[-1].run(f"DELETE FROM {at}.posts; DELETE FROM {at}.authors; DELETE FROM {at}.profiles")
    return outcomes


@breaks(isolation, at="SERIALIZABLE: inserts that commit in reverse")
def isolation_with_a_trail_that_reads_itself(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM count(*) FROM public.audit_changes")


@breaks(isolation, at="REPEATABLE READ: inserts one by one")
def isolation_with_a_counter(ctx: CheckContext) -> None:
    _count_in_one_row(ctx)
