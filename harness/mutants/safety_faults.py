"""Faults of a trail's safety, of its durability, and of what its writers suffer from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

_ROW_PATH = "SET search_path = pg_catalog, pg_temp\nSET TimeZone"
_ATTACH = "attach(regclass, text[], text[], text)"

#: trail, name, fault, SQL at the end
_RIGHTS = (
    (
        ROW,
        "everybody-may-insert",
        "Every role may insert into the trail",
        "GRANT SELECT, INSERT ON rowlog.changes TO PUBLIC;",
    ),
    (
        ROW,
        "everybody-may-update",
        "Every role may update the trail",
        "GRANT SELECT, UPDATE ON rowlog.changes TO PUBLIC;",
    ),
    (ROW, "everybody-may-truncate", "Every role may truncate the trail", "GRANT TRUNCATE ON rowlog.changes TO PUBLIC;"),
    (
        STATEMENT,
        "everybody-may-change-actors",
        "Every role may update the transactions, which have the actors",
        "GRANT SELECT, UPDATE ON ledger.transactions TO PUBLIC;",
    ),
    (
        STATEMENT,
        "everybody-may-delete-actors",
        "Every role may delete the transactions, which have the actors",
        "GRANT SELECT, DELETE ON ledger.transactions TO PUBLIC;",
    ),
    (
        STATEMENT,
        "everybody-may-delete-changes",
        "Every role may delete changes",
        "GRANT SELECT, DELETE ON ledger.changes TO PUBLIC;",
    ),
    (
        ROW,
        "everybody-may-purge",
        "Every role may purge the trail",
        (
            "ALTER FUNCTION rowlog.purge(timestamptz, integer) SECURITY DEFINER;"
            " GRANT EXECUTE ON FUNCTION rowlog.purge(timestamptz, integer) TO PUBLIC;"
        ),
    ),
    (
        ROW,
        "everybody-may-detach",
        "Every role may detach a table",
        (
            "ALTER FUNCTION rowlog.detach(regclass) SECURITY DEFINER; GRANT EXECUTE ON FUNCTION"
            " rowlog.detach(regclass) TO PUBLIC;"
        ),
    ),
    (
        STATEMENT,
        "everybody-may-detach",
        "Every role may detach a table",
        (
            "ALTER FUNCTION ledger.detach(regclass) SECURITY DEFINER; GRANT EXECUTE ON FUNCTION"
            " ledger.detach(regclass) TO PUBLIC;"
        ),
    ),
    (
        ROW,
        "everybody-may-attach",
        "Every role may attach a table anew, with a rule that hides its columns",
        f"ALTER FUNCTION rowlog.{_ATTACH} SECURITY DEFINER; GRANT EXECUTE ON FUNCTION rowlog.{_ATTACH} TO PUBLIC;",
    ),
    (
        STATEMENT,
        "everybody-may-attach",
        "Every role may attach a table anew, with a rule that hides its columns",
        f"ALTER FUNCTION ledger.{_ATTACH} SECURITY DEFINER; GRANT EXECUTE ON FUNCTION ledger.{_ATTACH} TO PUBLIC;",
    ),
    (
        ROW,
        "everybody-may-set-numbers",
        "Every role may set the next number of a change, so that later writes fail",
        "GRANT ALL ON SEQUENCE rowlog.changes_id_seq TO PUBLIC;",
    ),
    (
        STATEMENT,
        "everybody-may-set-numbers",
        "Every role may set the next number of a change, so that later writes fail",
        "GRANT ALL ON SEQUENCE ledger.numbers TO PUBLIC;",
    ),
)
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


def safety_faults() -> Iterator[Variant]:
    """Yield faults of rights, search paths and switches, and of durability."""
    for trail, name, fault, append in _RIGHTS:
        schema = trail.terms["trail"]
        yield trail.appended(name, "security", fault, f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC; {append}")
    yield STATEMENT.replaced(
        "schema-of-the-application-first",
        "security",
        "The pinned search_path has public before pg_catalog, so a function of the application runs as the"
        " trail's owner",
        (
            "SET search_path = pg_catalog, pg_temp\nSET TimeZone",
            "SET search_path = public, pg_catalog, pg_temp\nSET TimeZone",
        ),
    )
    yield ROW.replaced(
        "temporary-tables-divert",
        "security",
        "The pinned search_path omits pg_temp, so a temporary table diverts records",
        (_ROW_PATH, "SET search_path = pg_catalog, rowlog\nSET TimeZone"),
        ("    INSERT INTO rowlog.changes (transaction,", "    INSERT INTO changes (transaction,"),
    )
    yield ROW.replaced(
        "temporary-catalogue",
        "security",
        "The pinned search_path omits pg_temp, so temporary tables replace those of the catalogue",
        (_ROW_PATH, "SET search_path = pg_catalog\nSET TimeZone"),
    )
    yield STATEMENT.replaced(
        "temporary-catalogue",
        "security",
        "The pinned search_path omits pg_temp, so temporary tables replace those of the catalogue",
        ("SET search_path = pg_catalog, pg_temp\nSET TimeZone", "SET search_path = pg_catalog\nSET TimeZone"),
    )
    yield STATEMENT.before_store(
        "off-by-a-setting",
        "security",
        "Any writer can switch capture off with a setting",
        "IF current_setting('ledger.off', true) = 'on' THEN RETURN; END IF;",
    )
    yield ROW.before_store(
        "operation-by-a-setting",
        "security",
        "Any writer can choose the recorded name of a table with a setting",
        "own_table := coalesce(nullif(current_setting('rowlog.table', true), ''), own_table);",
    )
    yield STATEMENT.replaced(
        "with-rights-of-the-writer",
        "security",
        "The triggers run with the rights of the writer, who may insert into the trail",
        (" SECURITY DEFINER\n", "\n"),
        append="GRANT USAGE ON SCHEMA ledger TO PUBLIC; GRANT USAGE ON SEQUENCE ledger.numbers TO PUBLIC;"
        " GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA ledger TO PUBLIC;"
        " GRANT EXECUTE ON FUNCTION ledger.actor(), ledger.transaction_id(), ledger.enter(), ledger.from_json(json),"
        " ledger.expression(oid, text), ledger.redacted(oid, jsonb, jsonb),"
        " ledger.keep(oid, text, text, text, jsonb, jsonb, jsonb) TO PUBLIC;",
    )
    yield STATEMENT.replaced(
        "action-with-any-path",
        "security",
        "The function that records an action runs as the trail's owner with the caller's path",
        (
            (
                "LANGUAGE sql SECURITY DEFINER\nSET search_path = pg_catalog, pg_temp AS $$\n    INSERT INTO"
                " ledger.actions"
            ),
            "LANGUAGE sql SECURITY DEFINER AS $$\n    INSERT INTO ledger.actions",
        ),
    )
    yield ROW.replaced(
        "unlogged",
        "durability",
        "The changes are in an unlogged table, which a crash empties",
        ("CREATE TABLE rowlog.changes", "CREATE UNLOGGED TABLE rowlog.changes"),
    )
    yield STATEMENT.replaced(
        "unlogged-transactions",
        "durability",
        "The transactions are in an unlogged table, which a crash empties",
        ("CREATE TABLE ledger.transactions", "CREATE UNLOGGED TABLE ledger.transactions"),
    )
    yield ROW.before_store(
        "commits-asynchronously",
        "durability",
        "Capture turns synchronous_commit off for the writer's transaction",
        "PERFORM set_config('synchronous_commit', 'off', true);",
    )


def burden_faults() -> Iterator[Variant]:
    """Yield faults that writers suffer from: waits, failures, and what is left on their connection."""
    for trail, name, fault, statements, append in _BURDENS:
        if statements:
            yield trail.before_store(name, "interference", fault, statements, append)
        else:
            yield trail.appended(name, "interference", fault, append)
