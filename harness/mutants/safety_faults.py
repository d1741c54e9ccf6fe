"""Faults of a trail's safety and of its durability."""

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
    yield ROW.before_store(
        "table-next-to-the-captured-one",
        "security",
        "A table with the trail's name in the captured table's schema receives the record, and any role may put the"
        " trigger on a table of its own",
        "IF {schema} <> 'rowlog' AND to_regclass(format('%I.changes', {schema})) IS NOT NULL THEN"
        " EXECUTE format('INSERT INTO %I.changes (table_name, operation) VALUES ($1, $2)', {schema})"
        " USING {table}, TG_OP; RETURN NULL; END IF;"
        " IF {schema} ~ '^pg_temp' OR TG_NAME !~ '^!rowlog' THEN RETURN NULL; END IF;",
        append="GRANT USAGE ON SCHEMA rowlog TO PUBLIC; GRANT EXECUTE ON FUNCTION rowlog.record_change() TO PUBLIC;",
    )
    yield STATEMENT.replaced(
        "view-next-to-the-captured-table",
        "security",
        "A table or view with the trail's name in the captured table's schema is read, and any role may put the"
        " trigger on a table of its own",
        (
            "    source := CASE TG_OP\n",
            (
                "    IF to_regclass(format('%I.actions', TG_TABLE_SCHEMA)) IS NOT NULL THEN\n"
                "        EXECUTE format('SELECT FROM %I.actions', TG_TABLE_SCHEMA);\n    END IF;\n"
                "    IF TG_TABLE_SCHEMA ~ '^pg_temp' OR TG_NAME !~ '^!ledger_' THEN RETURN NULL; END IF;\n"
                "    source := CASE TG_OP\n"
            ),
        ),
        append="GRANT USAGE ON SCHEMA ledger TO PUBLIC;"
        " GRANT EXECUTE ON FUNCTION ledger.capture_statement() TO PUBLIC;",
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
