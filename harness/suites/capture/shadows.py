"""Objects of an attacker that bear the names of what a trail uses: functions, operators, types, views and tables.

They are what any application may make in a schema of its own, or as temporary objects. Each of them returns what the
genuine object returns, and reports the role that it runs as. If it is asked to lie, it returns something else. An
aggregate always returns NULL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.database import quote_literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.database import Client

#: the schema of the application's own
SCHEMA = "own"
#: its other schemas, for objects that it has at another time
OTHER_SCHEMAS = ("own_tables", "own_types", "own_aggregates")
#: the setting that names the object that lies
_LIAR = "own.liar"
#: schemas whose functions are not the trail's: the server's, the attacker's, and those of other fixtures
FOREIGN = ("pg_catalog", "information_schema", SCHEMA, *OTHER_SCHEMAS, "pooling", "tenant_a")

#: the functions of the trail, without those of extensions
OF_THE_TRAIL = f"""
    SELECT p.* FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ({", ".join(f"'{schema}'" for schema in FOREIGN)}) AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""
#: the texts that the server looks names up in when the trail captures
_SOURCES = f"""
    SELECT prosrc FROM ({OF_THE_TRAIL}) AS trail
"""

_SPY = f"""
    {"; ".join(f"CREATE SCHEMA {schema} AUTHORIZATION harness_app" for schema in (SCHEMA, *OTHER_SCHEMAS))};
    SET ROLE harness_app;
    GRANT USAGE ON SCHEMA {", ".join((SCHEMA, *OTHER_SCHEMAS))} TO PUBLIC;
    -- returns whether the object lies. It reports an object once in a transaction: an operator may run for each row of a
    -- catalogue. INFO reaches the client whatever client_min_messages is. Qualified names are quicker than a pinned path
    CREATE FUNCTION {SCHEMA}.spy(object text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        report pg_catalog.text := pg_catalog.concat('own ', object, ' ran as ', current_user, '.');
        reported pg_catalog.text := coalesce(pg_catalog.current_setting('{SCHEMA}.reported', true), '');
    BEGIN
        IF pg_catalog.strpos(reported, report) OPERATOR(pg_catalog.=) 0 THEN
            RAISE INFO '%', report;
            PERFORM pg_catalog.set_config('{SCHEMA}.reported', pg_catalog.concat(reported, report), true);
        END IF;
        RETURN object OPERATOR(pg_catalog.=) coalesce(pg_catalog.current_setting('{_LIAR}', true), '');
    END $$;
    CREATE FUNCTION {SCHEMA}.watch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM {SCHEMA}.spy(pg_catalog.concat('table ', TG_ARGV[0]));
        RETURN NULL;
    END $$;
    RESET ROLE
"""
_REPORT = re.compile(r"^own (.+) ran as (.+)\.$")
#: the types of arguments that shadows of operators have: those that trails handle
_TYPES = (
    *("text", "name", "oid", "int4", "int8", "int2", "bool", "jsonb", "json", "uuid", "timestamptz", "xid8", "char"),
    *("text[]", "name[]", "int2[]", "jsonb[]", "regclass", "oidvector", "int2vector", "bytea"),
)
#: arguments in place of the pseudo-type "any", which a function of a user cannot have
_ANY = (
    *(", ".join(["text"] * count) for count in range(1, 7)),
    *("text, jsonb", "text, json", "text, name", "text, name, name", "text, text, text, jsonb"),
)
#: what a lie is, by type; the lie of other types is NULL
_LIES = {
    "boolean": "NOT ({})",
    "text": "'forged'",
    "name": "'forged'",
    "json": """'{{"id": "forged", "type": "user"}}'""",
    "jsonb": """'{{"id": "forged", "type": "user"}}'""",
}

_FUNCTIONS = """
    SELECT DISTINCT p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_identity_arguments(p.oid),
           pg_get_function_result(p.oid), p.proretset, p.pronargs
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname = ANY (%s)
      AND NOT p.proargtypes::oid[] && ARRAY['internal', 'cstring']::regtype[]::oid[]
      AND p.prorettype <> ALL (ARRAY['internal', 'cstring', 'trigger', 'event_trigger', 'void']::regtype[])
    ORDER BY 1, 2
"""
_AGGREGATES = """
    SELECT DISTINCT p.proname::text, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid)
    FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.aggkind = 'n' AND p.proname = ANY (%s)
    ORDER BY 1, 2
"""
_OPERATORS = """
    SELECT o.oprname::text, format_type(o.oprleft, NULL), format_type(o.oprright, NULL), format_type(o.oprresult, NULL)
    FROM pg_operator o
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname = ANY (%s)
      AND o.oprleft = ANY (%s::regtype[]) AND o.oprright = ANY (%s::regtype[])
    ORDER BY o.oid
"""
_WORD_TYPES = """
    SELECT typname::text FROM pg_type
    WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typname = ANY (%s) AND typname !~ '^_'
"""
_RELATIONS = """
    SELECT n.nspname::text, c.relname::text,
           (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND atttypid <> 'anyarray'::regtype)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v') AND c.relname = ANY (%s)
      AND has_table_privilege('harness_app', c.oid, 'SELECT')
"""
#: definitions of the trail's tables, without their rights: a table, then its unique indexes. A type that the application
#: may not name is a text
_TABLES = """
    SELECT c.relname::text,
           (SELECT string_agg(format('%%I %%s', a.attname, CASE
                       WHEN y.typnamespace = 'pg_catalog'::regnamespace THEN format_type(a.atttypid, a.atttypmod)
                       WHEN has_schema_privilege('harness_app', y.typnamespace, 'USAGE')
                           AND has_type_privilege('harness_app', y.oid, 'USAGE')
                           THEN format('%%s.%%I', y.typnamespace::regnamespace, y.typname)
                       ELSE 'text' END), ', ' ORDER BY a.attnum)
            FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT coalesce(array_agg(substring(pg_get_indexdef(i.indexrelid) FROM ' USING .*')), '{}')
            FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL)
    FROM unnest(%s::text[]) AS t (name) JOIN pg_class c ON c.oid = t.name::regclass
"""


class Shadow(Struct, frozen=True):
    """One object of the attacker."""

    #: as its report names it
    name: str
    #: SQL that makes it, in the schema `{place}`
    create: str


class Report(Struct, frozen=True):
    """A shadow that ran."""

    name: str
    role: str


class Names(Struct, frozen=True):
    """The names in the sources of a trail."""

    words: tuple[str, ...]
    called: tuple[str, ...]
    operators: tuple[str, ...]


def names_of(admin: Client) -> Names:
    """Return the names that the functions of the trail use."""
    source = re.sub(r"--[^\n]*", "", "\n".join(row[0] for row in admin.rows(_SOURCES))).lower()
    return Names(
        words=tuple(sorted(set(re.findall(r"[a-z_][a-z0-9_]*", source)))),
        called=tuple(sorted(set(re.findall(r"\b([a-z_][a-z0-9_]*)\s*\(", source)))),
        operators=tuple(sorted(set(re.findall(r"[-+*/<>=~!@#%^&|?]+", source)) - {"--", "=>", ":="})),
    )


def functions(admin: Client, names: Names) -> list[Shadow]:
    """Return functions named like those of the server that the trail calls, with the same signatures.

    Of two functions with one signature, PostgreSQL calls the one whose schema is first on the path. Others than these
    could be ambiguous, and the write would fail.
    """
    found = []
    for name, arguments, identity, result, is_set, count in admin.rows(_FUNCTIONS, [list(names.called)]):
        if '"any"' in identity:
            found += [_function(name, types, types.count(",") + 1, result, is_set=is_set) for types in _ANY]
        else:
            found.append(_function(name, arguments, count, result, is_set=is_set))
    return list({shadow.create: shadow for shadow in found}.values())


def _function(name: str, arguments: str, count: int, result: str, *, is_set: bool) -> Shadow:
    given = [f"${number}" for number in range(1, count + 1)]
    if "VARIADIC" in arguments and given:
        given[-1] = f"VARIADIC {given[-1]}"
    genuine = f'pg_catalog."{name}"({", ".join(given)})'
    label = f"function {name}"
    if is_set:
        body = f"IF NOT {SCHEMA}.spy('{label}') THEN RETURN QUERY SELECT * FROM {genuine}; END IF;"
    else:
        body = _answering(label, result, genuine)
    return Shadow(
        label,
        f'CREATE FUNCTION {{place}}."{name}"({arguments}) RETURNS {result} LANGUAGE plpgsql '
        f"AS $own$ BEGIN {body} END $own$",
    )


def _answering(label: str, result: str, genuine: str) -> str:
    lie = _LIES.get(result, "NULL").format(genuine)
    return f"IF {SCHEMA}.spy('{label}') THEN RETURN {lie}; END IF; RETURN {genuine};"


def aggregates(admin: Client, names: Names) -> list[Shadow]:
    """Return aggregates named like those of the server that the trail calls."""
    found: list[Shadow] = []
    for name, arguments, result in admin.rows(_AGGREGATES, [list(names.called)]):
        pseudo = arguments.count('"any"')
        for types in [types for types in _ANY if types.count(",") + 1 == pseudo] if pseudo else [arguments]:
            step, label = f"{{place}}.step_{len(found)}", f"aggregate {name}"
            found.append(
                Shadow(
                    label,
                    f"CREATE FUNCTION {step}({', '.join(filter(None, (result, types)))}) RETURNS {result} LANGUAGE plpgsql "
                    f"AS $own$ BEGIN PERFORM {SCHEMA}.spy('{label}'); RETURN $1; END $own$; "
                    f'CREATE AGGREGATE {{place}}."{name}"({types or "*"}) (SFUNC = {step}, STYPE = {result})',
                )
            )
    return found


def operators(admin: Client, names: Names) -> list[Shadow]:
    """Return operators named like those of the server that the trail uses."""
    found = []
    types = [f"{name}" if name != "char" else '"char"' for name in _TYPES]
    for number, (name, left, right, result) in enumerate(admin.rows(_OPERATORS, [list(names.operators), types, types])):
        label = f"operator {name}"
        body = _answering(label, result, f"$1 OPERATOR(pg_catalog.{name}) $2")
        found.append(
            Shadow(
                label,
                f"CREATE FUNCTION {{place}}.operator_{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql "
                f"AS $own$ BEGIN {body} END $own$; "
                f"CREATE OPERATOR {{place}}.{name} (LEFTARG = {left}, RIGHTARG = {right}, "
                f"FUNCTION = {{place}}.operator_{number})",
            )
        )
    return found


def types(admin: Client, names: Names) -> list[Shadow]:
    """Return domains named like the server's types that the trail names: their constraint is a function."""
    return [
        Shadow(
            f"type {name}",
            f'CREATE DOMAIN {{place}}."{name}" AS pg_catalog."{name}" CHECK (NOT {SCHEMA}.spy(\'type {name}\'))',
        )
        for (name,) in admin.rows(_WORD_TYPES, [list(names.words)])
    ]


def catalogues(admin: Client, names: Names) -> list[Shadow]:
    """Return views named like the catalogues that the trail reads."""
    return [
        Shadow(
            f"view {name}",
            f'CREATE VIEW {{place}}."{name}" AS SELECT {columns} FROM {schema}."{name}" '
            f"WHERE NOT {SCHEMA}.spy('view {name}'); GRANT SELECT ON {{place}}.\"{name}\" TO PUBLIC",
        )
        for schema, name, columns in admin.rows(_RELATIONS, [list(names.words)])
    ]


def tables(admin: Client, names: Sequence[str], *, as_views: bool = False) -> list[Shadow]:
    """Return empty tables named like these, which everybody may write to, and which report the role that does.

    :param names: tables as SQL identifiers.
    :param as_views: return views on such tables, which report the role that reads, too.
    """
    found = []
    for name, columns, indexes in admin.rows(_TABLES, [list(names)]):
        table = f'{{place}}."{name}{"_rows" if as_views else ""}"'
        create = [
            f"CREATE TABLE {table} ({columns})",
            *(f"CREATE UNIQUE INDEX ON {table}{index}" for index in indexes),
            f"CREATE TRIGGER own BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT "
            f"EXECUTE FUNCTION {SCHEMA}.watch({quote_literal(name)})",
            f"GRANT ALL ON {table} TO PUBLIC",
        ]
        if as_views:
            spy = f"{SCHEMA}.spy({quote_literal(f'table {name}')})"
            create += [
                # a subquery runs although the table has no row
                f'CREATE VIEW {{place}}."{name}" AS SELECT * FROM {table} WHERE NOT (SELECT {spy})',
                f'GRANT ALL ON {{place}}."{name}" TO PUBLIC',
            ]
        found.append(Shadow(f"table {name}", "; ".join(create)))
    return found


def make_schemas(admin: Client) -> None:
    """Create schemas of the application's own, as the owner of a database grants them, and what reports."""
    admin.run(_SPY)


def creating(shadows: list[Shadow], place: str) -> str:
    """Return one statement that makes shadows. One that the server does not accept is left out."""
    blocks = (
        f"BEGIN EXECUTE $make${shadow.create.replace('{place}', place)}$make$; EXCEPTION WHEN OTHERS THEN NULL; END;"
        for shadow in shadows
    )
    # bodies that are validated take ten times as long
    off = "PERFORM pg_catalog.set_config('check_function_bodies', 'off', true);"
    return f"DO $all$ BEGIN {off} {' '.join(blocks)} END $all$"


class Listener:
    """Collects the reports of shadows that run for one client."""

    def __init__(self, client: Client) -> None:
        self.reports: list[Report] = []
        client.add_notice_handler(lambda notice: self._hear(notice.message_primary or ""))

    def _hear(self, message: str) -> None:
        if match := _REPORT.match(message):
            self.reports.append(Report(*match.groups()))

    def take(self) -> list[Report]:
        """Return the new reports, each once, in the order of their first."""
        found = list(dict.fromkeys(self.reports))
        self.reports.clear()
        return found


def lying(name: str) -> str:
    """Return the statement that makes one shadow lie until the transaction ends."""
    quoted = name.replace("'", "''")
    return f"SET LOCAL {_LIAR} = '{quoted}'"
