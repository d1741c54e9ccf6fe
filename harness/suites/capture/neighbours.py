"""Attacks with tables of the application next to each other: one with the trail's triggers, and those that they write to.

A trail may write to a table in the schema of the captured table, or to one that an argument of a trigger or function
names. If the application may put the trigger on a table of its own, or call the function, it chooses that schema. Its own
table then receives the record, and what runs for that table has the rights of the trail's owner.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.database import SqlError, is_lost
from harness.suites.actors import ADA
from harness.suites.capture import shadows
from harness.suites.capture.attempts import CANCELLED, LIMIT, LONGEST_S, calls, leading_to

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


def with_rights_of_others(ctx: CheckContext) -> list[str]:
    """Put the trail's triggers on tables of the application, and return which tables next to them ran with other rights.

    Everything is undone. The schemas of :mod:`harness.suites.capture.shadows` must be there.

    :raises NotExercisedError: when a statement did not end.
    """
    own = ctx.target.with_found_tables(ctx.admin).tables
    definitions = [definition for _, _, definition in ctx.admin.rows(TRIGGERS)]
    words = {*shadows.names_of(ctx.admin).words, *re.findall(r"\w+", " ".join(definitions))}
    named = [name for (name,) in ctx.admin.rows(_NAMED, [list(shadows.FOREIGN), sorted(words)])]
    nearby = list(dict.fromkeys((*own, *leading_to(ctx.admin, own), *named)))
    schemas = {table.partition(".")[0].strip('"') for table in nearby}
    kinds = [shadows.tables(ctx.admin, nearby, as_views=as_views) for as_views in (False, True)]
    called = [call.statement for call in calls(ctx, with_rights=True)]
    attack = _Attack(ctx)
    for place in _PLACES:
        given = [moved for definition in definitions for moved in _moved(definition, place, schemas)]
        for made in kinds:
            create = shadows.creating(made, place)
            # each alone, because one that fails stops the others; then together, because one may need another
            for trigger in given:
                attack.run(place, create, [trigger])
            attack.run(place, create, given, [call.replace("'public", f"'{place}") for call in called])
    ctx.fact("triggers of the trail on tables of the application", len(attack.created))
    return attack.result()


class _Attack:
    """Writes to a table with triggers of the trail, again and again, and collects whose rights its neighbours had."""

    def __init__(self, ctx: CheckContext) -> None:
        self._ctx = ctx
        self._listeners: list[shadows.Listener] = []
        self._unended: list[str] = []
        self._connect()
        #: the definitions of triggers that the server accepted
        self.created: set[str] = set()

    def _connect(self) -> None:
        self._client = self._ctx.client()
        self._listeners.append(shadows.Listener(self._client))

    def run(self, place: str, create: str, triggers: Sequence[str], called: Sequence[str] = ()) -> None:
        """Make the tables and triggers, write, call functions of the trail, and undo everything."""
        client = self._client
        if self._unended:  # each further one would take as long
            return
        try:
            self._ctx.application.begin_audited(client, ADA)
            client.run(f"{LIMIT}; CREATE TABLE {place}.posts (LIKE public.posts INCLUDING INDEXES); {create}")
            self.created |= {trigger for trigger in triggers if self._runs(client, trigger)}
            writes = [write.format(place=place) for write in _WRITES]
            for statement in (*writes, "SET CONSTRAINTS ALL IMMEDIATE", *called):
                self._runs(client, statement)
            client.run("ROLLBACK")
        except SqlError as error:
            if is_lost(error):  # the trail ended the session, and the next attempt needs another
                self._connect()
            else:
                client.run("ROLLBACK")

    def _runs(self, client: Client, statement: str) -> bool:
        try:
            with client.transaction():
                client.run(statement)
        except SqlError as error:
            if is_lost(error):
                raise
            if error.sqlstate == CANCELLED:
                self._unended.append(statement)
            return False
        return True

    def result(self) -> list[str]:
        """Return which tables ran with other rights, and as which role.

        :raises NotExercisedError: when none did, and a statement did not end.
        """
        reports = {report for listener in self._listeners for report in listener.take()}
        found = sorted(f"{report.name} as {report.role}" for report in reports if report.role != "harness_app")
        if self._unended and not found:
            raise NotExercisedError(f"a statement did not end within {LONGEST_S} s: {self._unended[0]}")
        return found


def _moved(definition: str, place: str, schemas: set[str]) -> Iterator[str]:
    """Yield a trigger's definition for the application's table, as it is and with its schema in place of the trail's."""
    definition = definition.replace(" ON public.posts ", f" ON {place}.posts ")
    yield definition
    before, function, called = definition.rpartition(" EXECUTE FUNCTION ")
    name, bracket, arguments = called.partition("(")
    pointed = re.sub(rf"\b(?:{'|'.join(map(re.escape, schemas))})\b", place, arguments) if schemas else arguments
    if pointed != arguments:
        yield f"{before}{function}{name}{bracket}{pointed}"
