"""Attempts of the application's role at the trail: statements, and their results.

A statement that the server refuses changes nothing. After any other, the trail is compared with what it was, and a
write that follows must be in it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import Recorded
from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe, is_lost, quote_literal, raised_within
from harness.suites.actors import ADA
from harness.suites.capture.shadows import OF_THE_TRAIL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

REFUSED, UNHARMED = "refused", "as before, and the next write is in it"
#: of an integrity constraint
_CONSTRAINT = "23"
CANCELLED = "57014"
#: no statement of the trail takes that long
LONGEST_S = 3
#: an attempt that sets it is cancelled by itself
_TIMEOUT = "statement_timeout"
LIMIT = f"SET LOCAL {_TIMEOUT} = '{LONGEST_S}s'"

_COLUMNS = """
    SELECT a.attname::text, a.attgenerated <> '' OR a.attidentity = 'a' AS is_made,
           a.atthasdef AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
                                   AND a.attnum = ANY (i.indkey)) OR a.attidentity <> '' AS is_numbered,
           has_column_privilege('harness_app', a.attrelid, a.attnum, 'INSERT') AND u.is_updatable,
           has_column_privilege('harness_app', a.attrelid, a.attnum, 'UPDATE') AND u.is_updatable
    FROM pg_attribute a, pg_column_is_updatable(a.attrelid, a.attnum, true) AS u (is_updatable)
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
#: what leads to rows of these tables: their partitions and children, and the views on any of them
_LEADING = """
    WITH RECURSIVE given (id) AS (SELECT name::regclass::oid FROM unnest(%s::text[]) AS t (name)),
    step (of, id) AS (
        SELECT inhparent, inhrelid FROM pg_inherits
        UNION SELECT d.refobjid, r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.rulename = '_RETURN'),
    found (id) AS (SELECT id FROM given UNION SELECT s.id FROM step s JOIN found f ON f.id = s.of)
    SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid IN (SELECT id FROM found EXCEPT SELECT id FROM given) AND c.relkind <> 'm' ORDER BY 1
"""
_RIGHTS = """
    SELECT has_table_privilege('harness_app', %s, 'INSERT') OR has_any_column_privilege('harness_app', %s, 'INSERT'),
           has_table_privilege('harness_app', %s, 'UPDATE') OR has_any_column_privilege('harness_app', %s, 'UPDATE'),
           has_table_privilege('harness_app', %s, 'DELETE')
"""
#: sequences that number rows of these tables
_SEQUENCES = """
    SELECT DISTINCT s.oid::regclass::text FROM unnest(%s::text[]) AS t (name), pg_class s
    WHERE s.relkind = 'S' AND (
        EXISTS (SELECT FROM pg_depend d WHERE d.objid = s.oid AND d.refobjid = t.name::regclass AND d.deptype IN ('a', 'i'))
        OR EXISTS (SELECT FROM pg_attrdef e JOIN pg_depend d ON d.objid = e.oid AND d.classid = 'pg_attrdef'::regclass
                   WHERE e.adrelid = t.name::regclass AND d.refobjid = s.oid))
"""
#: functions that the application may call: those with their owner's rights first
_CALLABLE = f"""
    SELECT p.oid::regprocedure::text, format('%I.%I', n.nspname, p.proname), p.prokind = 'p',
           coalesce(p.proargnames, '{{}}'), p.proargtypes::regtype[]::text[], p.prosecdef, p.provolatile = 'v'
    FROM ({OF_THE_TRAIL}) AS p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prokind IN ('f', 'p') AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
      AND has_function_privilege('harness_app', p.oid, 'EXECUTE') AND has_schema_privilege('harness_app', n.oid, 'USAGE')
    ORDER BY p.prosecdef DESC, 1
"""
#: arguments of functions, by type
_BY_TYPE = {
    "regclass": "'public.posts'::regclass",
    "oid": "'public.posts'::regclass::oid",
    "boolean": "true",
    "smallint": "1::smallint",
    "integer": "1",
    "bigint": "1",
    "timestamp with time zone": "'infinity'::timestamptz",
    "timestamp without time zone": "'infinity'::timestamp",
    "date": "'infinity'::date",
    "interval": "'0 s'::interval",
    "jsonb": """'{"id": 1, "slug": "forged", "type": "user"}'::jsonb""",
    "json": """'{"id": 1, "slug": "forged", "type": "user"}'::json""",
    "text[]": "'{}'::text[]",
    "name[]": "'{}'::name[]",
    "uuid": "gen_random_uuid()",
}
#: arguments that are texts, by a part of their name; the last one is for all others
_BY_NAME = (
    ("op", "'{operation}'"), ("event", "'{operation}'"), ("action", "'{operation}'"), ("schema", "'public'"),
    ("table", "'posts'"), ("rel", "'posts'"), ("type", "'user'"), ("", "'posts'"),
)  # fmt: skip


class Attempt(Struct, frozen=True):
    """One thing that the application's role tries."""

    name: str
    statement: str
    #: the write that has to be captured is in the same transaction
    with_write: bool = False
    #: it may declare another actor: any application may declare any
    may_declare: bool = False
    #: undoes it, as superuser, if it was not refused
    undo: str = ""


class Trail:
    """The trail, as it was before the last attempt."""

    def __init__(self, ctx: CheckContext, client: Client) -> None:
        self._ctx, self._client = ctx, client
        self._writes = 0
        #: the names of the attempts that were cancelled
        self._cancelled: list[str] = []
        self.write()
        self._before = self._read()

    def _read(self) -> dict[str, Change]:
        return {change.id: change for change in self._ctx.changes()}

    def write(self) -> None:
        """Insert a row as the application does."""
        self._writes += 1
        self._ctx.write(self._client, ADA, f"genuine {self._writes}")

    def require_ended(self) -> None:
        """Require that no attempt was cancelled: what it would have done is not known.

        :raises NotExercisedError: with the name of one that was.
        """
        if self._cancelled:
            raise NotExercisedError(f"an attempt did not end within {LONGEST_S} s: {self._cancelled[0]}")

    def after(self, attempt: Attempt) -> str:
        """Run an attempt, and return `refused`, or how the trail is after it."""
        try:
            with self._ctx.audited(self._client, ADA):  # a trail may refuse a write without an actor
                self._client.run(f"{LIMIT}; {attempt.statement}")
                if attempt.with_write:
                    self._writes += 1
                    self._ctx.insert_post(self._client, f"genuine {self._writes}")
        except SqlError as error:
            if is_lost(error):  # the attempt ended its own session, and the next one needs another
                self._client = self._ctx.client()
            if error.sqlstate == CANCELLED and _TIMEOUT not in attempt.statement:
                self._cancelled.append(attempt.name)
            return REFUSED
        try:
            if not attempt.with_write:
                self.write()
        except SqlError as error:
            return f"the next write fails: {describe(error)}"
        now = self._read()
        seen = self._compared(now, may_declare=attempt.may_declare)
        if attempt.undo and seen != UNHARMED:
            with contextlib.suppress(SqlError):  # capture that is still attached may refuse to be attached again
                self._ctx.admin.run(attempt.undo)
        self._before = now
        return seen

    def _compared(self, now: dict[str, Change], *, may_declare: bool) -> str:
        before = self._before
        # without inserts, the write is an update
        recorded = next(iter(self._ctx.expected_ops("insert", "update")), "")
        added = [change for key, change in now.items() if key not in before]
        genuine = [change for change in added if self._is_of_the_write(change, recorded, may_declare=may_declare)]
        unattached = [change for change in added if change.table_schema.startswith("pg_temp")]
        found = {
            "records that are gone": sum(key not in now for key in before),
            "records that are changed": sum(now.get(key, change) != change for key, change in before.items()),
            "writes that are missing": int(not genuine and bool(recorded)),
            "records too many of one write": max(len(genuine) - 1, 0),
            "records of a table that was not attached": len(unattached),
            "records without a write": sum(change not in genuine and change not in unattached for change in added),
        }
        return ", ".join(f"{what}: {count}" for what, count in found.items() if count) or UNHARMED

    def _is_of_the_write(self, change: Change, operation: str, *, may_declare: bool) -> bool:
        """Return whether a record is that of the last write, as far as the trail records it."""
        ctx = self._ctx
        return (
            (change.table_schema, change.table_name, change.op) == ("public", "posts", operation)
            and (not ctx.records(Recorded.IMAGE) or change.value("slug") == f"genuine {self._writes}")
            and (may_declare or not ctx.records(Recorded.ACTOR) or change.actor == ADA.reference)
        )


def leading_to(admin: Client, tables: Sequence[str]) -> list[str]:
    """Return what leads to rows of these tables: their partitions and children, and the views on any of them."""
    return [name for (name,) in admin.rows(_LEADING, [list(tables)])]


def direct_writes(ctx: CheckContext, client: Client) -> Iterator[tuple[str, str]]:
    """Try to write to each table of the trail, and to views on it; yield each attempt with its result. All are undone."""
    own = ctx.target.with_found_tables(ctx.admin).tables  # some are made with the first change
    for table in (*own, *leading_to(ctx.admin, own)):
        columns = ctx.admin.rows(_COLUMNS, [table])
        quoted = {name: '"' + name.replace('"', '""') + '"' for name, *_ in columns}
        row = ctx.admin.rows(f"SELECT {', '.join(f'{name}::text' for name in quoted.values())} FROM {table} LIMIT 1")
        values = dict(zip(quoted, row[0], strict=True)) if row else {}
        may_insert = {name for name, _, _, insert, _ in columns if insert} or set(quoted)
        given = [name for name, made, numbered, _, _ in columns if name in may_insert and not made and not numbered]
        may_update = {name for name, _, _, _, update in columns if update} or set(quoted)
        listed = ", ".join(quoted[name] for name in given)
        literals = ", ".join("NULL" if values.get(name) is None else quote_literal(values[name]) for name in given)
        rights = dict(
            zip(("insert into", "update", "delete from"), ctx.admin.rows(_RIGHTS, [table] * 5)[0], strict=True)
        )
        for action, statement in {
            "insert into": f"INSERT INTO {table} ({listed}) VALUES ({literals})"
            if given
            else f"INSERT INTO {table} DEFAULT VALUES",
            "update": f"UPDATE {table} SET {', '.join(f'{quoted[name]} = DEFAULT' for name in may_update)}",
            "delete from": f"DELETE FROM {table}",
            "truncate": f"TRUNCATE {table} CASCADE",
            "create triggers on": f"CREATE TRIGGER own BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION own.swallow()",
        }.items():
            seen = undone(client, statement)
            if seen == "0 rows":  # an empty table, or one whose rows a policy protects
                seen = REFUSED if row or not rights.get(action) else "allowed"
            yield f"{action} {table}", seen
    for (sequence,) in ctx.admin.rows(_SEQUENCES, [list(own)]):
        yield f"renumber {sequence}", undone(client, f"SELECT setval({quote_literal(sequence)}, 1, false)")


def undone(client: Client, statement: str) -> str:
    """Run a statement, undo it, and return `refused`, or what it did."""
    try:
        with client.transaction(force_rollback=True):
            rows = client.run(statement)
            client.run("SET CONSTRAINTS ALL IMMEDIATE")
    except SqlError as error:
        if is_lost(error):
            raise
        # a constraint of the table stopped the harness's row, so the role itself may write; a trigger's error is a refusal
        is_allowed = (error.sqlstate or "").startswith(_CONSTRAINT) and not raised_within(error)
        return f"allowed ({describe(error)})" if is_allowed else REFUSED
    return f"{rows} rows" if rows >= 0 and not statement.startswith("SELECT") else "done"


def calls(ctx: CheckContext, *, with_rights: bool = False) -> list[Attempt]:
    """Return calls of the trail's functions that the application may execute: of those that may write.

    :param with_rights: of those that run with their owner's rights instead, also if they only read.
    """
    found = []
    for signature, name, is_procedure, names, types, has_rights, may_write in ctx.admin.rows(_CALLABLE):
        if not (has_rights if with_rights else may_write):
            continue
        operations = ("insert", "INSERT") if any(kind in {"text", "name"} for kind in types) else ("insert",)
        for operation in operations:
            arguments = [
                _argument(named, kind, operation) for named, kind in zip(_padded(names, len(types)), types, strict=True)
            ]
            verb = "CALL" if is_procedure else "SELECT"
            found.append(Attempt(f"{signature} with {operation}", f"{verb} {name}({', '.join(arguments)})"))
    return found


def _padded(names: list[str], count: int) -> list[str]:
    return [*names[:count], *[""] * (count - len(names))]


def _argument(name: str, kind: str, operation: str) -> str:
    if kind in {"text", "name", "character varying"}:
        text = next(text for part, text in _BY_NAME if part in name)
        return f"{text.format(operation=operation)}::{kind}"
    return _BY_TYPE.get(kind, f"NULL::{kind}")
