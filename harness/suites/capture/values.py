"""Capture: values of every type survive, in the row image, among the prior values, and in the key.

The server compares: what the trail holds is read back as the column's type, and compared as that type compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.text_values import IMAGE, KEY
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import quote_literal
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.capture.specimens import SETTINGS, SPECIMENS, TYPES, Specimen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: the last row has only NULL
_ROWS = max(len(specimen.values) for specimen in SPECIMENS) + 1
_COLUMNS = ", ".join(specimen.column for specimen in SPECIMENS)
#: columns of the composite key, in another order than those of the table
_KEY = tuple(
    specimen
    for specimen in reversed(SPECIMENS)
    if specimen.column
    in {
        *("c_bool", "c_bigint", "c_numeric", "c_double_digits", "c_text", "c_bytea", "c_date", "c_timestamptz"),
        *("c_interval", "c_uuid", "c_integers", "c_daterange", "c_tstzrange", "c_inet", "c_enum", "c_domain"),
    }
)
#: under a setting, only the first values are written
_UNDER_A_SETTING = 3
_WRITTEN = _ROWS + (len(SETTINGS) - 1) * _UNDER_A_SETTING
#: the texts of a list that a report shows, and the characters of each value
_SHOWN, _LONGEST = 12, 60
#: types whose values are JSON numbers
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision", "public.percent")
#: reads a row from JSON; a column that cannot be read is NULL
_ROW_OF = """
CREATE OR REPLACE FUNCTION pg_temp.row_of(image json) RETURNS public.specimens LANGUAGE plpgsql AS $$
DECLARE
    result public.specimens;
    name text;
BEGIN
    RETURN json_populate_record(NULL::public.specimens, image);
EXCEPTION WHEN OTHERS THEN
    FOR name IN SELECT json_object_keys(image) LOOP
        BEGIN
            result := json_populate_record(result, json_build_object(name, image -> name));
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    RETURN result;
END $$
"""


def _create(ctx: CheckContext) -> None:
    """Create the table of specimens, a captured one and two that are not, and the values."""
    columns = ", ".join(f"{specimen.column} {specimen.type}" for specimen in SPECIMENS)
    key = ", ".join(f"{specimen.column} {specimen.type}" for specimen in reversed(_KEY))
    rows = [
        [str(row + 1), *(quote_literal(specimen.values[row % len(specimen.values)]) for specimen in SPECIMENS)]
        for row in range(_ROWS - 1)
    ]
    rows.append([str(_ROWS), *["NULL"] * len(SPECIMENS)])
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    ctx.owner.run(
        f"{TYPES}; CREATE TABLE public.specimen_values (id integer PRIMARY KEY, {columns});"
        f"INSERT INTO public.specimen_values VALUES {values};"
        f"CREATE TABLE public.specimens (setting text, id integer, {columns}, PRIMARY KEY (setting, id));"
        "CREATE TABLE public.specimens_before (LIKE public.specimens);"
        f"CREATE TABLE public.keyed (setting text, id integer, {key}, "
        f"PRIMARY KEY ({', '.join(specimen.column for specimen in _KEY)}, id));"
        "CREATE TABLE public.keyed_before (LIKE public.keyed);"
        "GRANT ALL ON public.specimen_values, public.specimens, public.specimens_before, public.keyed, "
        "public.keyed_before TO harness_app"
    )


def _write(ctx: CheckContext, statements: str) -> None:
    """Run statements under each setting, each time in a transaction of its own.

    :param statements: `{setting}` stands for the text of the setting, and `{rows}` for the number of rows to write.
    """
    client = ctx.client()
    for setting in SETTINGS:
        with ctx.audited(client, ADA):
            if setting:
                client.run(f"SET LOCAL {setting}")
            client.run(statements.format(setting=quote_literal(setting), rows=_UNDER_A_SETTING if setting else _ROWS))


def _rows(ctx: CheckContext, statement: str) -> list[tuple[Any, ...]]:
    """Run a query about the trail in another time zone than that of every writer: a time without its zone differs."""
    ctx.admin.run(_ROW_OF)
    ctx.admin.run("SET TimeZone = 'Asia/Kathmandu'")
    try:
        with ctx.target.within_a_query():
            return ctx.admin.rows(statement)
    finally:
        ctx.admin.run("RESET TimeZone")


#: what the trail holds of a row (held), the row itself (own), and the row after the change (new)
_INSERTED = """
SELECT held, t AS own, t AS new
FROM (SELECT data_after::text::json AS held FROM change WHERE table_name = 'specimens' AND lower(op::text) = 'insert') c
JOIN public.specimens_before t ON t.setting = held ->> 'setting' AND t.id::text = held ->> 'id'"""
_UPDATED = """
SELECT held, t AS own, t AS new
FROM (SELECT data_after::text::json AS held FROM change WHERE table_name = 'specimens' AND lower(op::text) = 'update') c
JOIN public.specimens t ON t.setting = held ->> 'setting' AND t.id::text = held ->> 'id'"""
_PRIOR = """
SELECT coalesce(prior, '{}') AS held, b AS own, t AS new
FROM (SELECT data_after::text::json AS image, changed_from::text::json AS prior
      FROM change WHERE table_name = 'specimens' AND lower(op::text) = 'update') c
JOIN public.specimens t ON t.setting = image ->> 'setting' AND t.id::text = image ->> 'id'
JOIN public.specimens_before b USING (setting, id)"""
_DELETED = """
SELECT held, t AS own, t AS new
FROM (SELECT table_pk::text::json AS held FROM change WHERE table_name = 'keyed' AND lower(op::text) = 'delete') c
JOIN public.keyed_before t ON t.id::text = held ->> 'id'"""
#: (0) readings, (1) columns as rows of place, whether the value is the same, its texts, and whether it is needed
_COMPARED = """
WITH change AS MATERIALIZED (SELECT * FROM ({query}) c),
reading AS MATERIALIZED (SELECT *, pg_temp.row_of(held) AS row FROM ({readings}) AS of_the_trail)
SELECT d.place, d.same, array_agg(DISTINCT (r.own).setting), (array_agg(coalesce(d.held, 'nothing') ORDER BY (r.own).id))[1],
       (array_agg(coalesce(d.own, 'NULL') ORDER BY (r.own).id))[1]
FROM reading r CROSS JOIN LATERAL (VALUES {columns}) AS d (place, same, held, read, own, needed)
WHERE d.needed AND NOT (d.same AND d.read IS NOT DISTINCT FROM d.own)
GROUP BY d.place, d.same
ORDER BY d.place"""

#: the same, for the names of changed columns
_PRIOR_FIELDS = """
SELECT changed_fields, b AS own, t AS new
FROM (SELECT data_after::text::json AS image, changed_fields::text[] AS changed_fields
      FROM change WHERE table_name = 'specimens' AND lower(op::text) = 'update') c
JOIN public.specimens t ON t.setting = image ->> 'setting' AND t.id::text = image ->> 'id'
JOIN public.specimens_before b USING (setting, id)"""
_NAMED = """
WITH change AS MATERIALIZED (SELECT * FROM ({query}) c), reading AS MATERIALIZED ({readings})
SELECT DISTINCT ON (d.name, d.same) d.type, d.same, coalesce(d.own, 'NULL'), coalesce(d.new, 'NULL')
FROM reading r CROSS JOIN LATERAL (VALUES {columns}) AS d (name, type, same, own, new)
WHERE CASE WHEN d.name = ANY (r.changed_fields) THEN d.own IS NOT DISTINCT FROM d.new ELSE NOT d.same END
ORDER BY d.name, d.same"""


def _compare(ctx: CheckContext, name: str, readings: str, specimens: Sequence[Specimen], *, all_: bool = True) -> None:
    """Expect that the trail holds each value. A value that is equal and has another text is a fact.

    :param all_: whether the trail has all columns, and not only the changed ones.
    """
    known = ctx.target.trial.texts if ctx.target.trial else ()
    typed = (KEY if specimens is _KEY else IMAGE) not in known
    columns = ", ".join(
        f"({place}, {_held(specimen, typed=typed)}, {_shown(specimen)}, "
        f"(r.row).{specimen.column}::text, (r.own).{specimen.column}::text, "
        f"{'true' if all_ else 'NOT ' + specimen.same.format(f'(r.own).{specimen.column}', f'(r.new).{specimen.column}')})"
        for place, specimen in enumerate(specimens)
    )
    query = ctx.target.changes_query(ctx.admin)
    wrong, equal = [], []
    for place, same, settings, held, own in _rows(
        ctx, _COMPARED.format(query=query, readings=readings, columns=columns)
    ):
        type_ = specimens[place].type
        if same:
            equal.append(f"{type_} {_short(own)} as {_short(held)}")
        else:
            under = "" if "" in settings else f" under {' or '.join(settings)}"
            wrong.append(f"{type_}{under}: it holds {_short(held)}, and the row {_short(own)}")
    ctx.expect(name, _first(wrong), equals=[])
    if equal:
        ctx.fact(f"equal values with another text: {name}", "; ".join(_first(equal)))


def _held(specimen: Specimen, *, typed: bool) -> str:
    """Return SQL for whether the trail holds the value of a column.

    :param typed: whether the trail holds JSON values of the types of their columns. A boolean is then not a number, a
        number not a text unless JSON has no form for it, and a text not a JSON object. Otherwise it holds texts, and the
        text of a value is right.
    """
    column = specimen.column
    same = specimen.same.format(f"(r.row).{column}", f"(r.own).{column}")
    if not typed:
        return f"({same} OR held ->> '{column}' = (r.own).{column}::text)"
    if specimen.type == "boolean":
        return f"({same} AND coalesce(json_typeof(held -> '{column}'), 'null') IN ('boolean', 'null'))"
    if specimen.type.partition("(")[0] in _NUMBERS:
        form = f"coalesce(json_typeof(held -> '{column}'), 'null') IN ('number', 'null')"
        return f"({same} AND ({form} OR (r.own).{column}::text IN ('NaN', 'Infinity', '-Infinity')))"
    return f"({same})"


def _shown(specimen: Specimen) -> str:
    """Return SQL for the text of what the trail holds: JSON with its quotes, and the text of anything else."""
    if specimen.type in {"json", "jsonb"}:
        return f"(held -> '{specimen.column}')::text"
    return f"held ->> '{specimen.column}'"


def _misnamed(ctx: CheckContext) -> list[str]:
    """Return the columns whose value changed without being named, and those that are named with an equal text."""
    columns = ", ".join(
        f"('{specimen.column}', '{specimen.type}', {specimen.same.format(f'(r.own).{specimen.column}', f'(r.new).{specimen.column}')}, "
        f"(r.own).{specimen.column}::text, (r.new).{specimen.column}::text)"
        for specimen in SPECIMENS
    )
    query = ctx.target.changes_query(ctx.admin)
    found = _rows(ctx, _NAMED.format(query=query, readings=_PRIOR_FIELDS, columns=columns))
    return _first(
        [
            f"{type_}: {_short(own)} to {_short(new)} {'is named' if same else 'is not named'}"
            for type_, same, own, new in found
        ]
    )


def _count(ctx: CheckContext, readings: str) -> int:
    query = ctx.target.changes_query(ctx.admin)
    statement = f"WITH change AS MATERIALIZED (SELECT * FROM ({query}) c) SELECT count(*) FROM ({readings}) r"
    return int(_rows(ctx, statement)[0][0])


def _first(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - _SHOWN
    return [*sentences[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


@check(
    "capture.values",
    claim="a value of any type is in the trail as the row has it, whatever the settings of the client that wrote it",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.IMAGE,),
)
def values(ctx: CheckContext) -> None:
    _create(ctx)
    keeps_prior_values = ctx.claims(TrailFeature.CHANGED_FROM)
    ctx.target.attach(ctx.owner, "public.specimens", changed_from=keeps_prior_values)
    following = ", ".join(f"{specimen.column} = v.{specimen.column}" for specimen in SPECIMENS)
    _write(
        ctx,
        f"INSERT INTO public.specimens (setting, id, {_COLUMNS}) "
        f"SELECT {{setting}}, id, {_COLUMNS} FROM public.specimen_values WHERE id <= {{rows}};"
        f"INSERT INTO public.specimens_before SELECT setting, id, {_COLUMNS} FROM public.specimens "
        "WHERE setting = {setting};"
        f"UPDATE public.specimens s SET {following} FROM public.specimen_values v "
        f"WHERE s.setting = {{setting}} AND v.id = s.id % {_ROWS} + 1",
    )
    if ctx.records(Recorded.INSERTS) and ctx.expect("images of inserted rows", _count(ctx, _INSERTED), equals=_WRITTEN):
        _compare(ctx, "inserted values that differ", _INSERTED, SPECIMENS)
    if ctx.records(Recorded.UPDATES) and ctx.expect("images of updated rows", _count(ctx, _UPDATED), equals=_WRITTEN):
        _compare(ctx, "updated values that differ", _UPDATED, SPECIMENS)
        if keeps_prior_values:
            _compare(ctx, "prior values that differ", _PRIOR, SPECIMENS, all_=False)
        if ctx.claims(TrailFeature.CHANGED_FIELDS):
            ctx.expect("changed columns that are not named, and others that are", _misnamed(ctx), equals=[])


@breaks(values, at="updated values that differ")
def values_of_floats_with_the_digits_of_the_client(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SET extra_float_digits TO '1'", ""))


@breaks(values, at="inserted values that differ")
def values_of_intervals_in_the_style_of_the_client(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SET \"IntervalStyle\" TO 'postgres'", ""))


@breaks(values, at="prior values that differ")
def values_before_the_change_are_cut(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes",
        "NEW.changed_from := NEW.changed_from || jsonb_build_object('c_text', left(NEW.changed_from ->> 'c_text', 5))",
    )


@check(
    "capture.key-values",
    claim="a composite key of columns of many types identifies a deleted row, whatever the settings of the client",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="row key",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.DELETES,),
)
def key_values(ctx: CheckContext) -> None:
    _create(ctx)
    ctx.target.attach(ctx.owner, "public.keyed")
    columns = ", ".join(specimen.column for specimen in _KEY)
    _write(
        ctx,
        f"INSERT INTO public.keyed (setting, id, {columns}) "
        f"SELECT {{setting}}, (SELECT count(*) FROM public.keyed_before) + id, {columns} "
        "FROM public.specimen_values WHERE id <= {rows} AND c_bool IS NOT NULL;"
        f"INSERT INTO public.keyed_before (setting, id, {columns}) SELECT setting, id, {columns} FROM public.keyed;"
        "DELETE FROM public.keyed",
    )
    if ctx.expect("keys of deleted rows", _count(ctx, _DELETED), equals=_WRITTEN - 1):
        _compare(ctx, "parts of keys that differ", _DELETED, _KEY)


@breaks(key_values, at="parts of keys that differ")
def key_values_in_the_time_zone_of_the_client(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SET \"DateStyle\" TO 'ISO, MDY'", ""))
