"""Capture: what an application's connections and statements are burdened with because of the trail."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.hanging import ADVISORY_KEY
from harness.checks.occupation import pid_of, require_settled, settle
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import Client, SqlError, describe, quote_literal
from harness.model import PoolMode, Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.uncaptured import CAPTURED, UNCAPTURED, copy_tables, message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE

#: of a session: what a statement of it, or the next client of its server connection, finds
_STATE = """
    SELECT 'setting', name, setting FROM pg_settings WHERE source <> 'default'
    UNION ALL SELECT 'role', v.name, v.role FROM (VALUES ('session_user', session_user), ('current_user', current_user)) v (name, role)
"""
_LEFT = """
    UNION ALL SELECT 'setting', name, coalesce(current_setting(name, true), '') FROM unnest({names}::text[]) name
    UNION ALL SELECT 'temporary object', relname, relkind::text FROM pg_class
              WHERE relnamespace = pg_my_temp_schema() AND relkind NOT IN ('i', 't')
    UNION ALL SELECT 'temporary function', proname, oid::text FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
    UNION ALL SELECT 'prepared statement', name, statement FROM pg_prepared_statements WHERE name NOT LIKE 'PGBOUNCER%'
    UNION ALL SELECT 'cursor', name, statement FROM pg_cursors
    UNION ALL SELECT 'channel listened to', c, '' FROM pg_listening_channels() c
    UNION ALL SELECT 'advisory lock held:', {key}, mode FROM pg_locks l
              WHERE pid = pg_backend_pid() AND locktype = 'advisory'
"""
#: names with a dot in the functions of the trail and of the application: some may be names of settings
_NAMES = r"""
    SELECT DISTINCT lower(m[1]) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL regexp_matches(p.prosrc, '\m([A-Za-z_]\w*\.[A-Za-z_]\w*)', 'g') m
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pooling')
"""
#: connections that are tried for a second client of a server connection
_CANDIDATES = 6
State = dict[tuple[str, str], str]


class Writer(Struct, frozen=True):
    """A client that writes, and the client that has its server connection next."""

    client: Client
    next: Client
    #: the query for what is left on a server connection
    query: str


def _changed(before: State, after: State) -> list[str]:
    """Return what is different, in words."""
    found = []
    for kind, name in sorted(before.keys() | after.keys()):
        was, became = before.get((kind, name)), after.get((kind, name))
        if was is None:
            found.append(f"{kind} {name}" + (f" = {became}" if kind == "setting" else ""))
        elif became is None:
            found.append(f"{kind} {name} is gone")
        elif was != became:
            found.append(f"{kind} {name}: {was!r} before, {became!r} after")
    return found


def _state(client: Client, query: str) -> State:
    return {(kind, name): value for kind, name, value in client.rows(query)}


@check(
    "capture.session-state",
    claim="an audited write leaves nothing on its session: no setting, role, lock, temporary object, statement or cursor",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
)
def session_state(ctx: CheckContext) -> None:
    client = ctx.plain_client()
    settle(ctx, client)
    names = {row[0] for row in ctx.admin.rows(_NAMES)} | set(ctx.application.convention.names)
    listed = quote_literal("{" + ",".join(f'"{name}"' for name in sorted(names)) + "}")
    writer = Writer(client, _follower(ctx, client), _STATE + _LEFT.format(names=listed, key=ADVISORY_KEY))
    if not ctx.application.convention.is_local:
        ctx.application.declare(client, ADA)  # the application itself sets it for the session
    committed = f"{_insert('committed')}; {_insert('gone')}; {_WRITES}"
    _after(ctx, writer, "a committed write", [message(ctx, ADA, committed)])
    _after(ctx, writer, _FAILS, [message(ctx, ADA, _insert("committed"))])
    if ctx.mode is not PoolMode.STATEMENT:
        declared = message(ctx, ADA, "SELECT 1")
        _after(ctx, writer, "a write that is rolled back", ["BEGIN", declared, _insert("undone"), "ROLLBACK"])
        _within_a_transaction(ctx, client)
        numbers = [_random_after_a_write(ctx, client, slug) for slug in ("seeded", "seeded again")]
        ctx.expect("the same random() after each write", numbers[0] == numbers[1], equals=False)
        _note_last_value(ctx, client)


def _follower(ctx: CheckContext, client: Client) -> Client:
    """Return another client of the same server connection, where one is available; else the client itself."""
    if not ctx.sharing_mode:
        return client
    pid = pid_of(client)
    for _ in range(_CANDIDATES):  # two poolers may be behind one address
        if pid_of(candidate := ctx.plain_client()) == pid:
            return candidate
    return client


def _insert(slug: str) -> str:
    return f"INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'a title')"


_WRITES = "UPDATE public.posts SET title = 'new'; DELETE FROM public.posts WHERE slug = 'gone'"
_FAILS = "a write that fails"


def _within_a_transaction(ctx: CheckContext, client: Client) -> None:
    with ctx.audited(client, ADA):
        client.run("SET LOCAL synchronous_commit = on")  # the servers of a topology may have turned it off
        before = _state(client, _STATE)
        client.run(f"{_insert('gone')}; {_WRITES}")
        ctx.expect("changed within the transaction of a write", _changed(before, _state(client, _STATE)), equals=[])


def _random_after_a_write(ctx: CheckContext, client: Client, slug: str) -> float:
    with ctx.audited(client, ADA):
        client.run(_insert(slug))
        return float(client.value("SELECT random()"))


def _after(ctx: CheckContext, writer: Writer, what: str, statements: Sequence[str]) -> None:
    """Compare a session before and after a write: as the writer sees it, and as the next client does."""
    clients = {"": writer.client} | ({" for the next client": writer.next} if writer.next is not writer.client else {})
    pid = pid_of(writer.client)
    before = {who: _state(client, writer.query) for who, client in clients.items()}
    failed = ""
    for statement in statements:
        try:
            writer.client.execute(statement.encode(), prepare=False)
        except SqlError as error:
            failed = describe(error)
    if what != _FAILS:
        ctx.expect(what, failed or "done", equals="done")
    for who, client in clients.items():
        after = _state(client, writer.query)
        require_settled(ctx, pid_of(client))
        ctx.expect(f"left by {what}{who}", _changed(before[who], after), equals=[])
    require_settled(ctx, pid)


def _note_last_value(ctx: CheckContext, client: Client) -> None:
    """Note what lastval() returns after an audited insert: a trail with a sequence of its own changes it."""

    def last() -> None:
        with ctx.audited(client, ADA):
            client.run(_insert("numbered"))
            seen.extend(client.rows("SELECT lastval() = currval(pg_get_serial_sequence('public.posts', 'id'))"))

    seen: list[tuple[bool]] = []
    outcome = ctx.attempt(last)
    number = "the key of the row" if seen == [(True,)] else "a number of the trail"
    ctx.fact("lastval() after an insert", number if outcome == "done" else outcome)


@breaks(session_state, at="left by a committed write")
def session_state_with_a_lock(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM pg_advisory_lock(7)")


@breaks(session_state, at="left by a committed write")
def session_state_with_an_own_setting(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM set_config('tamper.last_row', NEW.table_pk::text, false)")


@breaks(session_state, at="left by a committed write")
def session_state_with_a_temporary_table(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "CREATE TEMPORARY TABLE IF NOT EXISTS cached (n int)")


@breaks(session_state, at="left by a committed write")
def session_state_with_a_timeout(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM set_config('statement_timeout', '50s', false)")


@breaks(session_state, at="the same random() after each write", needs=(TRANSACTION_BLOCKS,))
def session_state_with_a_seed(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM setseed(0.5)")


@breaks(session_state, at="changed within the transaction of a write", needs=(TRANSACTION_BLOCKS,))
def session_state_with_asynchronous_commits(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "PERFORM set_config('synchronous_commit', 'local', true)")


# --- answers -------------------------------------------------------------------------------------------------

#: settings of a session that a trail has no say in
_ODD_SETTINGS = (
    "SET LOCAL standard_conforming_strings = off; SET LOCAL array_nulls = off; SET LOCAL quote_all_identifiers = on;"
    "SET LOCAL row_security = off; SET LOCAL transform_null_equals = on;"
    "SET LOCAL xmloption = document; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL IntervalStyle = 'sql_standard';"
    "SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -15; SET LOCAL check_function_bodies = off;"
    "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL TimeZone = 'Asia/Kolkata'"
)


def _long(length: int) -> str:
    """Return SQL for a text that does not compress."""
    return f"(SELECT left(string_agg(md5(n::text), ''), {length}) FROM generate_series(1, {length // 32 + 1}) n)"


#: by what they try; statements are separated by `;;`. {at} is the schema of the tables
_ANSWERS = {
    "an insert that returns its row": "INSERT INTO {at}.posts (slug, title) VALUES ('a', 'x'), ('b', 'x') RETURNING slug, title",
    "an update that returns its rows": "UPDATE {at}.posts SET views = views + 1 WHERE slug IN ('a', 'b') RETURNING slug, views",
    "a delete that returns its row": "DELETE FROM {at}.posts WHERE slug = 'b' RETURNING slug",
    "an insert of no row": "INSERT INTO {at}.posts (slug) SELECT 'none' WHERE false",
    "an upsert": "INSERT INTO {at}.posts (slug) VALUES ('a'), ('c') ON CONFLICT (slug) DO UPDATE SET views = 7 RETURNING slug, views",
    "an upsert that does nothing": "INSERT INTO {at}.posts (slug) VALUES ('a') ON CONFLICT DO NOTHING",
    "writes in a WITH query": "WITH n AS (INSERT INTO {at}.posts (slug) VALUES ('d') RETURNING slug), o AS (UPDATE {at}.posts "
    "SET title = 'y' WHERE slug = 'c' RETURNING slug) SELECT slug FROM n UNION ALL SELECT slug FROM o",
    "a key that exists": "INSERT INTO {at}.posts (slug) VALUES ('a')",
    "a value that is missing": "INSERT INTO {at}.posts (slug) VALUES (NULL)",
    "an update by a cursor": "DECLARE one CURSOR FOR SELECT slug FROM {at}.posts WHERE slug = 'a' FOR UPDATE;;"
    "FETCH one;;UPDATE {at}.posts SET title = 'z' WHERE CURRENT OF one",
    "immediate constraints": "SET CONSTRAINTS ALL IMMEDIATE;;INSERT INTO {at}.posts (slug) VALUES ('e')",
    "100 subtransactions": "DO $$ BEGIN FOR n IN 1..100 LOOP BEGIN INSERT INTO {at}.posts (slug) VALUES ('sub ' || n); "
    "IF n % 2 = 0 THEN RAISE division_by_zero; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
    "odd settings": f"{_ODD_SETTINGS};;INSERT INTO {{at}}.posts (slug, title) VALUES ('f', E'a \\\\ ''b''');;"
    "UPDATE {at}.posts SET title = NULL WHERE slug = 'f' RETURNING slug, title;;DELETE FROM {at}.posts WHERE slug = 'f'",
    "a long value": f"INSERT INTO {{at}}.posts (slug, title) SELECT 'long', {_long(9000)}",
    "the longest key that an index holds": f"INSERT INTO {{at}}.authors SELECT {_long(2688)}, 'a name'",
    "COPY": "COPY {at}.posts (slug, title) FROM STDIN",
}
#: changes of a table by its owner, in one transaction with a write to it
_ALTERED = {
    "a column that is added after a write": "UPDATE {at}.posts SET views = 8 WHERE slug = 'a';;ALTER TABLE {at}.posts ADD extra int DEFAULT 1",
    "a column whose type changes": "UPDATE {at}.posts SET views = 9 WHERE slug = 'a';;ALTER TABLE {at}.posts ALTER views TYPE bigint",
    "a column that is dropped": "ALTER TABLE {at}.posts DROP title;;UPDATE {at}.posts SET views = 10 WHERE slug = 'a'",
    "a column that is renamed": "ALTER TABLE {at}.posts RENAME title TO heading;;UPDATE {at}.posts SET heading = 'new' WHERE slug = 'a'",
}
_COPIED = [(f"copied {number}", "x" * 400) for number in range(60)]
_UNRECORDED = "SELECT slug FROM public.posts ORDER BY slug"


@check(
    "capture.same-answers",
    claim="a write returns to its writer on an audited table what it returns on the same table without capture",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def same_answers(ctx: CheckContext) -> None:
    copy_tables(ctx)
    client = ctx.plain_client()
    for what, statements in _ANSWERS.items():
        answers = [_answer(ctx, client, statements.format(at=at).split(";;")) for at in (CAPTURED, UNCAPTURED)]
        ctx.expect(what, answers[0], equals=answers[1])
    for what, statements in _ALTERED.items() if not ctx.target.reattach else ():
        answers = [
            _answer(ctx, ctx.owner, ["SAVEPOINT before", *statements.format(at=at).split(";;"), "ROLLBACK TO before"])
            for at in (CAPTURED, UNCAPTURED)
        ]
        ctx.expect(what, answers[0], equals=answers[1])
    if ctx.expected_ops("insert"):
        slugs = [row[0] for row in ctx.admin.rows(_UNRECORDED)]
        recorded = [change for change in ctx.changes("posts") if change.op == "insert"]
        ctx.expect("inserts recorded, of the rows that are there", len(recorded) >= len(slugs), equals=True)


def _answer(ctx: CheckContext, client: Client, statements: Sequence[str]) -> list[str]:
    """Return what each statement of a transaction returns, with the server's notices; the last may be an error."""
    answers: list[str] = []
    note = partial(_keep_notice, answers)
    client.add_notice_handler(note)
    try:
        with ctx.audited(client, ADA):
            for statement in statements:
                if statement.startswith("COPY"):
                    client.copy_in(statement, _COPIED)
                    answers.append("copied")
                    continue
                cursor = client.execute(statement.encode(), prepare=False)
                rows = cursor.fetchall() if cursor.description else []
                answers.append(" ".join(filter(None, (cursor.statusmessage, *(map(str, rows))))))
    except SqlError as error:
        # the constraint has another name on the copy
        answers.append(
            f"fails: {error.sqlstate}" if (error.sqlstate or "").startswith("23") else f"fails: {describe(error)}"
        )
    finally:
        client.remove_notice_handler(note)
    return answers


def _keep_notice(answers: list[str], notice: object) -> None:
    answers.append(f"{getattr(notice, 'severity', '')}: {getattr(notice, 'message_primary', '')}")


@breaks(same_answers, at="odd settings")
def same_answers_but_for_odd_settings(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "EXECUTE 'SELECT '''||'\\'||''''")


@breaks(same_answers, at="an insert that returns its row")
def same_answers_with_a_notice(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "RAISE WARNING 'recorded'")


@breaks(same_answers, at="an upsert that does nothing")
def same_answers_for_no_conflict(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
        "$t$ BEGIN IF EXISTS (SELECT FROM posts WHERE slug = NEW.slug) THEN RAISE 'it exists'; END IF; RETURN NEW; END $t$;"
        "CREATE TRIGGER tamper BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.tamper()"
    )
