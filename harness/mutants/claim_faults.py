"""Faults of what the sound trails claim in addition to capture: TRUNCATE, retention and actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

_OLD_ROW = "SELECT id FROM rowlog.changes WHERE recorded_at < cutoff ORDER BY id LIMIT batch"
_OLD_STATEMENT = "SELECT number FROM ledger.changes WHERE captured_at < cutoff ORDER BY captured_at LIMIT batch"

#: trail, name, kind, fault, a text of the trail, its replacement
_EDITS = (
    # TRUNCATE
    (
        ROW,
        "truncate-missed",
        "truncate",
        "TRUNCATE is not recorded",
        'ENABLE ALWAYS TRIGGER "!rowlog_truncate"',
        'DISABLE TRIGGER "!rowlog_truncate"',
    ),
    (
        STATEMENT,
        "truncate-deletes",
        "truncate",
        "A TRUNCATE is recorded as a delete",
        "        'truncate', clock_timestamp());",
        "        'delete', clock_timestamp());",
    ),
    (
        STATEMENT,
        "truncate-without-table",
        "truncate",
        "A TRUNCATE is recorded without the name of its table",
        "pg_trigger_depth(), TG_TABLE_SCHEMA, TG_TABLE_NAME,\n        'truncate'",
        "pg_trigger_depth(), TG_TABLE_SCHEMA, '',\n        'truncate'",
    ),
    (
        STATEMENT,
        "truncate-of-another-schema",
        "truncate",
        "A TRUNCATE is recorded in the schema public",
        "pg_trigger_depth(), TG_TABLE_SCHEMA, TG_TABLE_NAME,\n        'truncate'",
        "pg_trigger_depth(), 'public', TG_TABLE_NAME,\n        'truncate'",
    ),
    # retention
    (
        ROW,
        "cutoff-included",
        "retention",
        "A purge deletes what was recorded exactly at the cutoff",
        "recorded_at < cutoff",
        "recorded_at <= cutoff",
    ),
    (
        ROW,
        "one-batch",
        "retention",
        "A purge stops after its first batch, of 2 changes",
        (
            "batch integer DEFAULT 1000) RETURNS bigint LANGUAGE plpgsql\nSET search_path = pg_catalog, pg_temp"
            " AS $$\nDECLARE\n"
            "    total   bigint := 0;\n    removed bigint;\nBEGIN\n    LOOP"
        ),
        (
            "batch integer DEFAULT 2) RETURNS bigint LANGUAGE plpgsql\nSET search_path = pg_catalog, pg_temp AS"
            " $$\nDECLARE\n"
            "    total   bigint := 0;\n    removed bigint;\nBEGIN\n    FOR once IN 1..1 LOOP"
        ),
    ),
    (
        ROW,
        "newest-kept",
        "retention",
        "A purge keeps the newest of the old changes",
        _OLD_ROW,
        (
            "SELECT id FROM rowlog.changes WHERE recorded_at < cutoff"
            " AND id <> (SELECT max(id) FROM rowlog.changes WHERE recorded_at < cutoff) LIMIT batch"
        ),
    ),
    (
        ROW,
        "everything-purged",
        "retention",
        "A purge deletes everything",
        "WHERE recorded_at < cutoff ORDER",
        "WHERE cutoff IS NOT NULL ORDER",
    ),
    (
        ROW,
        "nothing-purged",
        "retention",
        "A purge deletes nothing",
        "WHERE recorded_at < cutoff ORDER",
        "WHERE recorded_at < '-infinity' ORDER",
    ),
    (
        ROW,
        "nobody-kept",
        "retention",
        "A purge keeps changes without an actor",
        "WHERE recorded_at < cutoff ORDER",
        "WHERE recorded_at < cutoff AND actor_type IS NOT NULL ORDER",
    ),
    (
        ROW,
        "truncates-kept",
        "retention",
        "A purge keeps the records of TRUNCATE",
        "WHERE recorded_at < cutoff ORDER",
        "WHERE recorded_at < cutoff AND operation <> 'TRUNCATE' ORDER",
    ),
    (
        ROW,
        "a-minute-early",
        "retention",
        "A purge deletes what was recorded up to a minute after the cutoff",
        "recorded_at < cutoff",
        "recorded_at < cutoff + interval '1 minute'",
    ),
    (
        STATEMENT,
        "age-is-fixed",
        "retention",
        "A purge deletes what is older than 30 days, whatever the cutoff",
        "captured_at < cutoff ORDER",
        "captured_at < now() - interval '30 days' ORDER",
    ),
    (
        STATEMENT,
        "days-only",
        "retention",
        "A purge keeps the changes of the day of the cutoff",
        "captured_at < cutoff ORDER",
        "captured_at < date_trunc('day', cutoff) ORDER",
    ),
    (
        STATEMENT,
        "transactions-purged-whole",
        "retention",
        "A purge deletes every change of a transaction as soon as one of them is old",
        _OLD_STATEMENT,
        (
            "SELECT number FROM ledger.changes WHERE transaction_id IN (SELECT transaction_id FROM ledger.changes"
            " WHERE captured_at < cutoff) LIMIT batch"
        ),
    ),
    (
        STATEMENT,
        "by-the-start",
        "retention",
        "A purge goes by the start of a transaction, and not by the times of its changes",
        _OLD_STATEMENT,
        (
            "SELECT c.number FROM ledger.changes c JOIN ledger.transactions t ON t.id = c.transaction_id"
            " WHERE t.started_at < cutoff LIMIT batch"
        ),
    ),
    (
        STATEMENT,
        "inserts-kept",
        "retention",
        "A purge keeps the records of inserts",
        "captured_at < cutoff ORDER",
        "captured_at < cutoff AND operation <> 'insert' ORDER",
    ),
    (
        STATEMENT,
        "used-actions-purged",
        "retention",
        "A purge deletes old actions that newer changes refer to",
        (
            "a.recorded_at < cutoff\n        AND NOT EXISTS (SELECT FROM ledger.changes c WHERE c.transaction_id"
            " = a.transaction_id);"
        ),
        "a.recorded_at < cutoff;",
    ),
    # actions
    (
        STATEMENT,
        "names-in-lower-case",
        "actions",
        "Names of actions are in lower case",
        "ledger.enter(), $1, $2,",
        "ledger.enter(), lower($1), $2,",
    ),
    (
        STATEMENT,
        "correlation-missing",
        "actions",
        "An action has no correlation id",
        "ledger.enter(), $1, $2,",
        "ledger.enter(), $1, NULL,",
    ),
    (
        STATEMENT,
        "correlation-in-lower-case",
        "actions",
        "Correlation ids are in lower case",
        "ledger.enter(), $1, $2,",
        "ledger.enter(), $1, lower($2),",
    ),
    (
        STATEMENT,
        "name-and-correlation-swapped",
        "actions",
        "Names and correlation ids are swapped",
        "ledger.enter(), $1, $2,",
        "ledger.enter(), coalesce($2, $1), $1,",
    ),
    (
        STATEMENT,
        "no-links",
        "actions",
        "A change does not refer to its action",
        "(SELECT min(a.number) FROM ledger.actions a WHERE a.transaction_id = c.transaction_id)) AS action",
        "NULL) * NULL::bigint AS action",
    ),
    (
        STATEMENT,
        "earlier-changes-not-linked",
        "actions",
        "A change before the action of its transaction does not refer to it",
        "(SELECT min(a.number) FROM ledger.actions a WHERE a.transaction_id = c.transaction_id)) AS action",
        "NULL) AS action",
    ),
)


def claim_faults() -> Iterator[Variant]:
    """Yield faults of claims."""
    for trail, name, kind, fault, old, new in _EDITS:
        yield trail.replaced(name, kind, fault, (old, new))
    yield ROW.replaced(
        "cascade-missed",
        "truncate",
        "Of a TRUNCATE with CASCADE, only the first table is recorded",
        ("changed, old_values, clock_timestamp());", "changed, old_values, clock_timestamp()) ON CONFLICT DO NOTHING;"),
        append="CREATE UNIQUE INDEX ON rowlog.changes (transaction) WHERE operation = 'TRUNCATE';",
    )
    yield STATEMENT.replaced(
        "actions-twice",
        "actions",
        "An action is recorded twice",
        (
            "-- every change in the order of writes",
            (
                "CREATE FUNCTION ledger.copy() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n"
                "    IF pg_trigger_depth() = 1 THEN\n        INSERT INTO ledger.actions (transaction_id, part,"
                " name, correlation_id, recorded_at)\n"
                "        VALUES (NEW.transaction_id, NEW.part, NEW.name, NEW.correlation_id, NEW.recorded_at);\n "
                "   END IF;\n    RETURN NULL;\nEND\n$$;\n"
                "CREATE TRIGGER copy AFTER INSERT ON ledger.actions FOR EACH ROW EXECUTE FUNCTION ledger.copy();\n\n"
                "-- every change in the order of writes"
            ),
        ),
    )
