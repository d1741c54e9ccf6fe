"""Attacks with tables of the application next to each other: one with the trail's triggers, and those that they write to.

A trail may write to a table in the schema of the captured table, or to one that an argument of its trigger names. If the
application may put the trigger on a table of its own, it chooses that schema. Its own table then receives the record, and
what runs for that table has the rights of the trail's owner.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from harness.database import SqlError
from harness.suites.actors import ADA
from harness.suites.capture import shadows
from harness.suites.capture.attempts import LIMIT, leading_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.checks.context import CheckContext
    from harness.database import Client

#: the triggers of a captured table: name, function, and definition
TRIGGERS = """
    SELECT t.tgname::text, p.proname::text, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = 'public.posts'::regclass AND NOT t.tgisinternal
    ORDER BY t.tgname
"""
#: tables whose names are words of the trail's functions or triggers; the attack makes `posts` itself
_NAMED = """
    SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname <> ALL (%s) AND n.nspname !~ '^pg_'
      AND c.relname = ANY (%s) AND c.relname <> 'posts'
    ORDER BY 1
"""
#: the application's schemas: that of its temporary tables, and another one
_PLACES = ("pg_temp", shadows.SCHEMA)
_WRITES = (
    "INSERT INTO {place}.posts (id, slug, views) VALUES (9, 'forged', 0)",
    "UPDATE {place}.posts SET slug = 'forged again'",
    "DELETE FROM {place}.posts",
    "TRUNCATE {place}.posts",
)


class _UndoneError(Exception):
    """Ends a unit of work, and undoes it."""


def with_rights_of_others(ctx: CheckContext) -> list[str]:
    """Put the trail's triggers on tables of the application, and return which tables next to them ran with other rights.

    Everything is undone. The schemas of :mod:`harness.suites.capture.shadows` must be there.
    """
    own = ctx.target.with_found_tables(ctx.admin).tables
    definitions = [definition for _, _, definition in ctx.admin.rows(TRIGGERS)]
    words = {*shadows.names_of(ctx.admin).words, *re.findall(r"\w+", " ".join(definitions))}
    named = [name for (name,) in ctx.admin.rows(_NAMED, [list(shadows.FOREIGN), sorted(words)])]
    nearby = list(dict.fromkeys((*own, *leading_to(ctx.admin, own), *named)))
    schemas = {table.partition(".")[0].strip('"') for table in nearby}
    kinds = [shadows.tables(ctx.admin, nearby, as_views=as_views) for as_views in (False, True)]
    client = ctx.client()
    listener = shadows.Listener(client)
    for place in _PLACES:
        given = [moved for definition in definitions for moved in _moved(definition, place, schemas)]
        for made in kinds:
            create = shadows.creating(made, place)
            # each alone, because one that fails stops the others; then together, because one may need another
            for triggers in (*([trigger] for trigger in given), given):
                with contextlib.suppress(SqlError, _UndoneError), ctx.audited(client, ADA):
                    _write(client, place, create, triggers)
                    raise _UndoneError
    reports = [report for report in listener.take() if report.role != "harness_app"]
    return sorted({f"{report.name} as {report.role}" for report in reports})


def _moved(definition: str, place: str, schemas: set[str]) -> Iterator[str]:
    """Yield a trigger's definition for the application's table, as it is and with its schema in place of the trail's."""
    definition = definition.replace(" ON public.posts ", f" ON {place}.posts ")
    yield definition
    before, function, called = definition.rpartition(" EXECUTE FUNCTION ")
    name, bracket, arguments = called.partition("(")
    pointed = re.sub(rf"\b(?:{'|'.join(map(re.escape, schemas))})\b", place, arguments)
    if pointed != arguments:
        yield f"{before}{function}{name}{bracket}{pointed}"


def _write(client: Client, place: str, create: str, triggers: Sequence[str]) -> None:
    client.run(f"{LIMIT}; CREATE TABLE {place}.posts (LIKE public.posts INCLUDING INDEXES); {create}")
    for statement in (*triggers, *(write.format(place=place) for write in _WRITES), "SET CONSTRAINTS ALL IMMEDIATE"):
        with contextlib.suppress(SqlError), client.transaction():
            client.run(statement)
