"""Faults of what a change says other than its values, and of which changes are recorded at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

#: trail, name, kind, fault, statements before a change is stored
_STATEMENTS = (
    # the row after the change
    (ROW, "inserts-without-image", "values", "An insert has no image", "IF {insert} THEN {image} := NULL; END IF;"),
    (
        STATEMENT,
        "updates-without-image",
        "values",
        "An update has no image",
        "IF {update} THEN {image} := NULL; END IF;",
    ),
    (
        STATEMENT,
        "empty-image",
        "values",
        "Images are empty objects",
        "IF {image} IS NOT NULL THEN {image} := '{{}}'; END IF;",
    ),
    (
        ROW,
        "changed-columns-only",
        "values",
        "The image of an update has its changed columns only",
        (
            "IF {update} THEN {image} := (SELECT coalesce(json_object_agg(e.key, e.value), '{{}}') FROM"
            " json_each({image}) AS e(key, value)"
            " WHERE e.key = ANY ({changed})); END IF;"
        ),
    ),
    (
        STATEMENT,
        "large-rows-without-image",
        "values",
        "A row of more than a million characters has no image",
        "IF length({image}::text) > 1000000 THEN {image} := NULL; END IF;",
    ),
    # the key
    (ROW, "inserts-without-key", "identity", "An insert has no key", "IF {insert} THEN {key} := NULL; END IF;"),
    (STATEMENT, "updates-without-key", "identity", "An update has no key", "IF {update} THEN {key} := NULL; END IF;"),
    (
        STATEMENT,
        "old-key",
        "identity",
        "An update of the key is recorded under the old key",
        (
            "IF {update} AND key_names <> '{{}}' THEN {key} := (SELECT jsonb_object_agg(name, shown_before -> name)"
            " FROM unnest(key_names) AS name); END IF;"
        ),
    ),
    (ROW, "row-as-key", "identity", "The key is the whole row", "{key} := coalesce({image}, {key});"),
    # names
    (ROW, "schema-in-lower-case", "identity", "Names of schemas are in lower case", "{schema} := lower({schema});"),
    (ROW, "table-in-lower-case", "identity", "Names of tables are in lower case", "{table} := lower({table});"),
    (STATEMENT, "table-cut", "identity", "Names of tables are cut to 31 characters", "{table} := left({table}, 31);"),
    (
        STATEMENT,
        "table-quoted",
        "identity",
        "Names of tables are quoted where SQL needs it",
        "{table} := quote_ident({table});",
    ),
    (
        ROW,
        "schema-quoted",
        "identity",
        "Names of schemas are quoted where SQL needs it",
        "{schema} := quote_ident({schema});",
    ),
    (
        STATEMENT,
        "schema-in-table",
        "identity",
        "Names of tables outside public include their schema",
        "IF {schema} <> 'public' THEN {table} := {schema} || '.' || {table}; END IF;",
    ),
    (
        ROW,
        "underscores-in-table",
        "identity",
        "Names of tables have underscores for blanks",
        "{table} := replace({table}, ' ', '_');",
    ),
    (
        STATEMENT,
        "schema-of-the-path",
        "identity",
        "The schema is the first of the search_path",
        "{schema} := current_schema();",
    ),
    # the changed columns and their prior values
    (ROW, "changed-unknown", "values", "An update does not name its changed columns", "{changed} := NULL;"),
    (
        STATEMENT,
        "changed-empty",
        "values",
        "An update names no changed columns",
        "IF {update} THEN {changed} := '{{}}'; END IF;",
    ),
    (ROW, "first-changed-only", "values", "Only the first changed column is named", "{changed} := {changed}[1:1];"),
    (
        STATEMENT,
        "last-changed-missing",
        "values",
        "The last of several changed columns is not named",
        "IF cardinality({changed}) > 1 THEN {changed} := trim_array({changed}, 1); END IF;",
    ),
    (ROW, "all-changed", "values", "All columns are named as changed", "IF {update} THEN {changed} := names; END IF;"),
    (
        STATEMENT,
        "changed-in-lower-case",
        "values",
        "Names of changed columns are in lower case",
        "{changed} := ARRAY(SELECT lower(name) FROM unnest({changed}) AS name);",
    ),
    (
        STATEMENT,
        "key-always-changed",
        "values",
        "The columns of the key are always named as changed",
        (
            "IF {update} THEN {changed} := ARRAY(SELECT DISTINCT name FROM unnest({changed} || key_names) AS"
            " name); END IF;"
        ),
    ),
    (ROW, "no-prior-values", "values", "There are no prior values", "{prior} := NULL;"),
    (
        STATEMENT,
        "prior-values-empty",
        "values",
        "Prior values are empty objects",
        "IF {update} THEN {prior} := '{{}}'; END IF;",
    ),
    (
        ROW,
        "prior-values-new",
        "values",
        "Prior values are the new ones",
        (
            "IF {update} THEN {prior} := (SELECT coalesce(json_object_agg(e.key, e.value), '{{}}') FROM"
            " json_each({image}) AS e(key, value)"
            " WHERE e.key = ANY ({changed})); END IF;"
        ),
    ),
    # what is recorded at all
    (ROW, "inserts-missed", "capture", "Inserts are not recorded", "IF {insert} THEN {leave}; END IF;"),
    (STATEMENT, "inserts-not-recorded", "capture", "Inserts are not recorded", "IF {insert} THEN {leave}; END IF;"),
    (ROW, "updates-missed", "capture", "Updates are not recorded", "IF {update} THEN {leave}; END IF;"),
    (STATEMENT, "updates-not-recorded", "capture", "Updates are not recorded", "IF {update} THEN {leave}; END IF;"),
    (
        STATEMENT,
        "updates-as-inserts",
        "capture",
        "Updates are recorded as inserts",
        "IF {update} THEN operation := 'insert'; {changed} := NULL; {prior} := NULL; END IF;",
    ),
    (
        STATEMENT,
        "inserts-as-updates",
        "capture",
        "Inserts are recorded as updates",
        "IF {insert} THEN operation := 'update'; END IF;",
    ),
    (
        ROW,
        "small-updates-missed",
        "capture",
        "An update of a single column is not recorded",
        "IF {update} AND cardinality({changed}) = 1 THEN {leave}; END IF;",
    ),
    (
        STATEMENT,
        "wide-updates-missed",
        "capture",
        "An update of more than two columns is not recorded",
        "IF {update} AND cardinality({changed}) > 2 THEN {leave}; END IF;",
    ),
    (
        STATEMENT,
        "nested-missed",
        "capture",
        "Changes that a trigger or a foreign key makes are not recorded",
        "IF pg_trigger_depth() > 1 THEN {leave}; END IF;",
    ),
    (
        ROW,
        "deep-missed",
        "capture",
        "Changes below the second level of triggers are not recorded",
        "IF pg_trigger_depth() > 2 THEN {leave}; END IF;",
    ),
    (
        ROW,
        "owner-missed",
        "capture",
        "Writes of the owner of a table are not recorded",
        (
            "IF session_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {relation}) THEN"
            " {leave}; END IF;"
        ),
    ),
    (
        STATEMENT,
        "writes-of-the-owner-missed",
        "capture",
        "Writes of the owner of a table are not recorded",
        (
            "IF session_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {relation}) THEN"
            " {leave}; END IF;"
        ),
    ),
    (
        ROW,
        "first-thousand-of-a-transaction",
        "capture",
        "A transaction records its first 1000 changes",
        (
            "IF coalesce(nullif(current_setting('rowlog.count', true), ''), '0')::int >= 1000 THEN {leave}; END IF;"
            " PERFORM set_config('rowlog.count', (coalesce(nullif(current_setting('rowlog.count', true), ''),"
            " '0')::int + 1)::text, true);"
        ),
    ),
    (
        STATEMENT,
        "large-rows-missed",
        "capture",
        "A row of more than a million characters is not recorded",
        "IF length({image}::text) > 1000000 THEN {leave}; END IF;",
    ),
    (
        ROW,
        "other-schemas-missed",
        "capture",
        "Tables outside public are not recorded",
        "IF {schema} <> 'public' THEN {leave}; END IF;",
    ),
    (
        ROW,
        "deletes-of-keyless-rows-missed",
        "capture",
        "Deletes from a table without a key are not recorded",
        "IF {delete} AND keys = names THEN {leave}; END IF;",
    ),
    (
        ROW,
        "twice",
        "capture",
        "An update is recorded twice",
        (
            "IF {update} THEN INSERT INTO rowlog.changes (transaction, actor_type, actor_id, table_schema,"
            " table_name, row_key, operation,"
            " new_row, changed, old_values, recorded_at) VALUES (run, who ->> 'type', who ->> 'id', own_schema,"
            " own_table, row_key, TG_OP,"
            " new_row, changed, old_values, clock_timestamp()); END IF;"
        ),
    ),
)


def change_faults() -> Iterator[Variant]:
    """Yield faults of names, keys, changed columns and of what is recorded at all."""
    for trail, name, kind, fault, statements in _STATEMENTS:
        yield trail.before_store(name, kind, fault, statements)
    yield ROW.replaced(
        "deletes-as-updates",
        "capture",
        "Deletes are recorded as updates",
        ("row_key, TG_OP, new_row,", "row_key, CASE TG_OP WHEN 'DELETE' THEN 'UPDATE' ELSE TG_OP END, new_row,"),
    )
    yield STATEMENT.replaced(
        "equal-changes-once",
        "capture",
        "A change whose row equals an earlier one of its table is not recorded",
        (
            "schema_name, table_name, row_key, operation, shown_after, changed, prior, clock_timestamp());",
            (
                "schema_name, table_name, row_key, operation, shown_after, changed, prior, clock_timestamp()) ON"
                " CONFLICT DO NOTHING;"
            ),
        ),
        append="CREATE UNIQUE INDEX ON ledger.changes (relation, operation, md5(image::text)) WHERE image IS NOT NULL;",
    )
    yield STATEMENT.replaced(
        "errors-ignored",
        "capture",
        "If a row cannot be recorded, the write goes on without a record",
        (
            (
                "        PERFORM ledger.keep(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, lower(TG_OP),"
                " TG_ARGV[0]::jsonb, before, after);"
            ),
            (
                "        BEGIN\n        PERFORM ledger.keep(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME,"
                " lower(TG_OP), TG_ARGV[0]::jsonb, before, after);"
                "\n        EXCEPTION WHEN OTHERS THEN NULL;\n        END;"
            ),
        ),
    )
    yield STATEMENT.replaced(
        "inheritance-missed",
        "capture",
        "Inheritance children of an attached table are not captured",
        (
            "        PERFORM ledger.attach(child, excluded, masked, placeholder);",
            (
                "        IF EXISTS (SELECT FROM pg_class WHERE oid = child AND relispartition) THEN\n"
                "            PERFORM ledger.attach(child, excluded, masked, placeholder);\n        END IF;"
            ),
        ),
    )
