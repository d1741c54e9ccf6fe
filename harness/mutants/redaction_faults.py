"""Faults of redaction, and of what a coverage says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

#: trail, name, kind, fault, a text of the trail, its replacement
_EDITS = (
    # redaction
    (
        ROW,
        "misspelt-accepted",
        "redaction",
        "A rule for a column that does not exist is accepted",
        "    IF NOT known @> (excluded || masked) THEN",
        "    IF false THEN",
    ),
    (
        ROW,
        "renamed-shown",
        "redaction",
        "A redacted column is recorded after it is renamed",
        "    IF NOT present @> protected THEN",
        "    IF false THEN",
    ),
    (
        ROW,
        "placeholder-ignored",
        "redaction",
        "Masked values have another placeholder than that of the rule",
        "THEN to_json(placeholder) ELSE",
        "THEN to_json('***'::text) ELSE",
    ),
    (
        STATEMENT,
        "placeholder-cut",
        "redaction",
        "The placeholder is cut to three characters",
        "THEN rule -> 'placeholder' ELSE",
        "THEN to_jsonb(left(rule ->> 'placeholder', 3)) ELSE",
    ),
    (
        ROW,
        "masked-by-hash",
        "redaction",
        "Masked values are replaced by their hash",
        "THEN to_json(placeholder) ELSE",
        "THEN to_json(md5(f.field::text)) ELSE",
    ),
    (
        ROW,
        "objects-not-masked",
        "redaction",
        "JSON objects in masked columns are shown",
        "WHEN f.name = ANY (masked) THEN",
        "WHEN f.name = ANY (masked) AND json_typeof(f.field) <> 'object' THEN",
    ),
    (
        STATEMENT,
        "numbers-not-masked",
        "redaction",
        "Numbers in masked columns are shown",
        "WHEN name = ANY (masked) THEN",
        "WHEN name = ANY (masked) AND jsonb_typeof(value) <> 'number' THEN",
    ),
    (
        STATEMENT,
        "short-values-not-masked",
        "redaction",
        "Values of fewer than four characters in masked columns are shown",
        "WHEN name = ANY (masked) THEN",
        "WHEN name = ANY (masked) AND length(value #>> '{}') > 3 THEN",
    ),
    (
        STATEMENT,
        "children-not-redacted",
        "redaction",
        "The rule does not reach partitions that are attached one by one, and children",
        "PERFORM ledger.attach(child, excluded, masked, placeholder);",
        "PERFORM ledger.attach(child);",
    ),
    (
        ROW,
        "children-not-redacted",
        "redaction",
        "The rule does not reach inheritance children",
        "PERFORM rowlog.attach(child, excluded, masked, placeholder);",
        "PERFORM rowlog.attach(child);",
    ),
    (
        STATEMENT,
        "only-inserts-redacted",
        "redaction",
        "Only inserts are redacted",
        "    shown_after  jsonb := ledger.redacted(relation, after, rule);",
        (
            "    shown_after  jsonb := CASE operation WHEN 'insert' THEN ledger.redacted(relation, after, rule)"
            " ELSE after END;"
        ),
    ),
    (
        STATEMENT,
        "keyless-shown",
        "redaction",
        "In a table without a key, the key is the whole row with its redacted columns",
        "row_key := coalesce(shown_after, shown_before);",
        "row_key := coalesce(after, before);",
    ),
    (
        ROW,
        "values-in-the-log",
        "redaction",
        "Capture writes the whole row to the server's log",
        "        names := rowlog.columns(TG_RELID);",
        (
            "        RAISE LOG 'captured %', CASE TG_OP WHEN 'DELETE' THEN OLD::text ELSE NEW::text END;\n       "
            " names := rowlog.columns(TG_RELID);"
        ),
    ),
    # coverage
    (
        ROW,
        "disabled-counts",
        "coverage",
        "A table whose trigger is disabled counts as captured",
        "t.tgenabled = 'A' AND ",
        "",
    ),
    (
        ROW,
        "replica-counts",
        "coverage",
        "A table whose trigger fires in a replica only counts as captured",
        "t.tgenabled = 'A' AND ",
        "t.tgenabled <> 'D' AND ",
    ),
    (
        STATEMENT,
        "replica-counts",
        "coverage",
        "A table whose triggers fire in a replica only counts as captured",
        "WHERE tgenabled = 'A' AND",
        "WHERE tgenabled <> 'D' AND",
    ),
    (
        ROW,
        "condition-counts",
        "coverage",
        "A table whose trigger has a condition counts as captured",
        "AND t.tgqual IS NULL ",
        "",
    ),
    (
        STATEMENT,
        "condition-counts",
        "coverage",
        "A table whose triggers have a condition counts as captured",
        "AND tgqual IS NULL ",
        "",
    ),
    (
        ROW,
        "columns-count",
        "coverage",
        "A table whose trigger fires for updates of some columns counts as captured",
        " AND t.tgattr = ''",
        "",
    ),
    (
        ROW,
        "inserts-count",
        "coverage",
        "A table whose trigger fires for inserts only counts as captured",
        "= (1 | 4 | 8 | 16))",
        "& 4 <> 0)",
    ),
    (
        ROW,
        "public-only",
        "coverage",
        "The coverage lists no table outside public",
        "n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowlog');",
        "n.nspname = 'public';",
    ),
    (
        STATEMENT,
        "all-is-well",
        "coverage",
        "Every table counts as captured",
        "SELECT n.nspname AS schema_name, c.relname AS table_name, CASE\n",
        "SELECT n.nspname AS schema_name, c.relname AS table_name, CASE\n    WHEN true THEN NULL\n",
    ),
    (
        STATEMENT,
        "deletes-not-needed",
        "coverage",
        "A table whose deletes are not captured counts as captured",
        "                       ('deletes', 'ledger.capture_statement()'::regprocedure, 8),\n",
        "",
    ),
)


def redaction_faults() -> Iterator[Variant]:
    """Yield faults of redaction and of coverage."""
    for trail, name, kind, fault, old, new in _EDITS:
        yield trail.replaced(name, kind, fault, (old, new))
