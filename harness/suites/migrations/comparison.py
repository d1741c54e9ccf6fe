"""The catalogue of a schema, and a pure comparison that names each object that differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

#: the tables in which migration tools keep what has run, by their names without the schema: Alembic, Django; Rails, Ecto,
#: golang-migrate and dbmate; node-pg-migrate, Flyway, Liquibase, Prisma, Knex, Sequelize, sqlx, goose, Drizzle, Entity
#: Framework, Kysely, yoyo
LEDGERS = frozenset(
    (
        *("alembic_version", "django_migrations", "schema_migrations", "ar_internal_metadata", "pgmigrations"),
        *("flyway_schema_history", "databasechangelog", "databasechangeloglock", "_prisma_migrations"),
        *("knex_migrations", "knex_migrations_lock", "SequelizeMeta", "_sqlx_migrations", "goose_db_version"),
        *("__drizzle_migrations", "__EFMigrationsHistory", "kysely_migration", "kysely_migration_lock"),
        *("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock"),
    )
)
#: the longest value that a difference repeats
_SHORT = 100
#: what is shown around the first place at which two long values differ
_AROUND = 30
#: the kinds of objects, as a difference begins with them
_KINDS = (
    *("schema", "table", "view", "materialized view", "foreign table", "column", "sequence", "index", "constraint"),
    *("trigger", "rule", "policy", "statistics", "function", "procedure", "aggregate", "enum", "domain"),
    *("composite type", "range", "extension", "event trigger", "default privileges", "settings"),
)
#: between two differences of one text; a value may contain a semicolon, too
_NEXT = re.compile(rf"; (?=(?:{'|'.join(_KINDS)}) |and \d+ more differences?\b)")
#: the evidence of one expectation holds 400 characters
_LONGEST = 360
NO_DIFFERENCE = "no difference"
#: objects without which an application has no schema: an empty database has schemas and settings, too
_NO_OBJECTS = frozenset({"schema", "settings", "extension", "default privileges"})


class SchemaObject(Struct, frozen=True, kw_only=True):
    """One object of a schema."""

    #: such as `index`
    kind: str
    #: the schema; "" for an object of the whole database
    schema: str
    #: the table that it belongs to; "" for one of its own
    table: str
    #: with the schema, quoted where SQL needs it
    name: str
    #: by name; without those that the object does not have
    properties: dict[str, str]


class Catalogue(Struct, frozen=True, kw_only=True):
    """The objects of a schema at one time."""

    objects: tuple[SchemaObject, ...]
    #: tables of migration tools that are left out
    ledgers: tuple[str, ...] = ()

    @property
    def has_objects(self) -> bool:
        """Whether there is anything that an application could use."""
        return any(found.kind not in _NO_OBJECTS for found in self.objects)


def catalogue_of(
    rows: Iterable[tuple[str, str, str, str, str, str | None]],
    *,
    schemas: Collection[str] = (),
    ledgers: Collection[str] = (),
) -> Catalogue:
    """Return the catalogue from rows: kind, schema, table, name, property and value.

    :param schemas: the schemas to keep; all when empty. Objects of the whole database stay.
    :param ledgers: tables to leave out, as schema.table, in addition to those of known tools.
    """
    found: dict[tuple[str, str], SchemaObject] = {}
    left_out = set()
    for kind, schema, table, name, named, value in rows:
        if schemas and schema and schema not in schemas:
            continue
        bare = _without_schema(table, schema)
        if table and (bare in LEDGERS or f"{schema}.{bare}" in ledgers):
            left_out.add(table)
            continue
        one = found.setdefault(
            (kind, name), SchemaObject(kind=kind, schema=schema, table=table, name=name, properties={})
        )
        if value:
            one.properties[named] = value
    return Catalogue(objects=tuple(found.values()), ledgers=tuple(sorted(left_out)))


def _without_schema(table: str, schema: str) -> str:
    """Return the name of a table alone, without the quotes that SQL needs.

    :param table: schema and name, each quoted where SQL needs it.
    :param schema: its schema, never quoted.
    """
    quoted = schema.replace('"', '""')
    name = table.removeprefix(f'"{quoted}".').removeprefix(f"{schema}.")
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def differences(before: Catalogue, after: Catalogue) -> list[str]:
    """Return a phrase for each object that differs, by kind and name; parts of a new or missing table are left out."""
    first, second = _by_name(before), _by_name(after)
    gone, new = _tables(first) - _tables(second), _tables(second) - _tables(first)
    found = []
    for key in sorted({*first, *second}):
        old, now = first.get(key), second.get(key)
        if old and now:
            found += _changes(old, now)
        elif old and (old.table not in gone or old.table == old.name):
            found.append(f"{old.kind} {old.name} is missing")
        elif now and (now.table not in new or now.table == now.name):
            found.append(f"{now.kind} {now.name} is new")
    return found


def _by_name(catalogue: Catalogue) -> dict[tuple[str, str], SchemaObject]:
    return {(found.kind, found.name): found for found in catalogue.objects}


def _tables(objects: Mapping[tuple[str, str], SchemaObject]) -> set[str]:
    return {found.name for found in objects.values() if found.table == found.name}


def _changes(old: SchemaObject, now: SchemaObject) -> list[str]:
    what = f"{old.kind} {old.name}"
    return [
        f"{what}: {name} {_from_to(old.properties.get(name, 'none'), now.properties.get(name, 'none'))}"
        for name in sorted({*old.properties, *now.properties})
        if old.properties.get(name) != now.properties.get(name)
    ]


def _from_to(old: str, now: str) -> str:
    """Return two values in words; of long ones only what is around the first place at which they differ."""
    if len(old) <= _SHORT and len(now) <= _SHORT and "\n" not in old + now:
        return f"was {old}, is {now}"
    at = next(
        (at for at, (one, other) in enumerate(zip(old, now, strict=False)) if one != other), min(len(old), len(now))
    )
    start = max(0, at - _AROUND)
    parts = [" ".join(text[start : at + 2 * _AROUND].split()) for text in (old, now)]
    return f"differs at character {at + 1}: was … {parts[0]} …, is … {parts[1]} …"


def in_words(found: Sequence[str]) -> str:
    """Return differences as one text: as many as the evidence of an expectation holds, and the number of the others."""
    if not found:
        return NO_DIFFERENCE
    shown: list[str] = []
    for number, phrase in enumerate(found):
        if shown and len("; ".join((*shown, phrase))) > _LONGEST:
            left = len(found) - number
            return f"{'; '.join(shown)}; and {left} more difference{'s' if left > 1 else ''}"
        shown.append(phrase if len(phrase) <= _LONGEST else f"{phrase[: _LONGEST - 1]}…")
    return "; ".join(shown)


def in_lines(text: str) -> list[str]:
    """Return a text that may have differences as lines: each difference begins one."""
    return _NEXT.split(text)
