"""Faults that writers suffer from: waits, failures, and what is left on their connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

#: trail, name, fault, statements before a change is stored, SQL at the end
_BURDENS = (
    (
        ROW,
        "advisory-lock",
        "Capture takes one advisory lock until the end of the transaction, so writers wait for each other",
        "PERFORM pg_advisory_xact_lock(7262);",
        "",
    ),
    (
        ROW,
        "lock-of-the-session",
        "Capture takes an advisory lock of the session and never releases it",
        "PERFORM pg_try_advisory_lock(7263, pg_backend_pid());",
        "",
    ),
    (
        ROW,
        "counter",
        "Capture counts changes in one row, so writers wait for each other",
        "UPDATE rowlog.counter SET changes = changes + 1;",
        "CREATE TABLE rowlog.counter AS SELECT 0::bigint AS changes; REVOKE ALL ON rowlog.counter FROM PUBLIC;",
    ),
    (
        ROW,
        "counter-of-a-table",
        "Capture counts the changes of each table in a row, so writers of a table wait for each other",
        (
            "INSERT INTO rowlog.counter VALUES (TG_RELID, 1) ON CONFLICT (relation) DO UPDATE SET changes ="
            " counter.changes + 1;"
        ),
        (
            "CREATE TABLE rowlog.counter (relation oid PRIMARY KEY, changes bigint); REVOKE ALL ON rowlog.counter"
            " FROM PUBLIC;"
        ),
    ),
    (
        ROW,
        "locks-the-audited-table",
        "Capture locks the audited table, so its writers wait for each other",
        "EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', TG_RELID::regclass);",
        "",
    ),
    (
        STATEMENT,
        "locks-the-trail",
        "Capture locks the trail, so writers wait for each other until their transactions end",
        "LOCK TABLE ledger.changes IN SHARE ROW EXCLUSIVE MODE;",
        "",
    ),
    (
        STATEMENT,
        "counts-changes",
        "Capture counts the changes before each write, so serializable writers conflict",
        "PERFORM count(*) FROM ledger.changes;",
        "",
    ),
    (
        ROW,
        "counts-all-changes",
        "Capture counts the changes before each write, so serializable writers conflict",
        "PERFORM count(*) FROM rowlog.changes;",
        "",
    ),
    (
        ROW,
        "temporary-table",
        "Capture creates a temporary table that stays on the connection",
        (
            "IF to_regclass('pg_temp.rowlog_cache') IS NULL THEN CREATE TEMPORARY TABLE rowlog_cache (actor"
            " jsonb); END IF;"
        ),
        "",
    ),
    (
        STATEMENT,
        "lock-timeout-left",
        "Capture sets a lock timeout that stays on the connection",
        "PERFORM set_config('lock_timeout', '10min', false);",
        "",
    ),
    (
        STATEMENT,
        "work-mem-left",
        "Capture sets work_mem for the rest of the session",
        "PERFORM set_config('work_mem', '65MB', false);",
        "",
    ),
    (
        ROW,
        "application-name-left",
        "Capture changes the application_name of the connection",
        "PERFORM set_config('application_name', 'rowlog', false);",
        "",
    ),
    (
        ROW,
        "messages-left",
        "Capture silences the notices of the transaction of the writer",
        "PERFORM set_config('client_min_messages', 'error', true);",
        "",
    ),
    (
        ROW,
        "seed-left",
        "Capture sets the seed of random(), so that the writer gets the same numbers again",
        "PERFORM setseed(0.5);",
        "",
    ),
    (
        STATEMENT,
        "prepared-statement-left",
        "Capture prepares a statement that stays on the connection",
        (
            "IF NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'ledger_keep') THEN"
            " EXECUTE 'PREPARE ledger_keep AS SELECT 1'; END IF;"
        ),
        "",
    ),
    (ROW, "listens", "Capture lets the connection of the writer listen", "LISTEN rowlog;", ""),
    (
        ROW,
        "nested-writes-fail",
        "A write in the fourth level of triggers fails",
        "IF pg_trigger_depth() > 3 THEN RAISE EXCEPTION 'too many triggers'; END IF;",
        "",
    ),
    (
        ROW,
        "keyless-writes-fail",
        "A write to a table without a key fails",
        "IF keys = names THEN RAISE EXCEPTION 'a table needs a primary key'; END IF;",
        "",
    ),
    (
        STATEMENT,
        "long-values-fail",
        "A write of a long value fails, because images are indexed",
        "",
        "CREATE INDEX ON ledger.changes ((image::text));",
    ),
    (
        ROW,
        "long-keys-fail",
        "A write with a long key fails, because keys are indexed",
        "",
        "CREATE INDEX ON rowlog.changes (((row_key)::text));",
    ),
    (
        STATEMENT,
        "isolation-refused",
        "A write in a transaction of another isolation level than READ COMMITTED fails",
        "IF current_setting('transaction_isolation') <> 'read committed' THEN RAISE EXCEPTION 'not supported'; END IF;",
        "",
    ),
)


def burden_faults() -> Iterator[Variant]:
    """Yield faults that writers suffer from: waits, failures, and what is left on their connection."""
    for trail, name, fault, statements, append in _BURDENS:
        if statements:
            yield trail.before_store(name, "interference", fault, statements, append)
        else:
            yield trail.appended(name, "interference", fault, append)
