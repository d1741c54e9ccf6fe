"""Deliberate breaks of the trail in the database of one check, for controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.clients import CheckClients
from harness.checks.pipeline_breaks import PipelineBreaks
from harness.checks.record import NotExercisedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.audit.target import AuditTarget
    from harness.checks.clients import DatabaseSource
    from harness.checks.judges import Judge
    from harness.lab.lab import Lab

_UNTAMPER = "DROP FUNCTION public.tamper() CASCADE"


class CheckBreaks(CheckClients):
    """Breaks what a check observes, when a control asks for it."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workspace: DatabaseSource) -> None:
        super().__init__(lab, target, database, workspace)
        #: set by a control: wrong facts that are declared of the chain, by name
        self.declared: dict[str, str] = {}
        #: set by a control: the address of the chain is the server's own
        self.past_the_pooler = False
        #: replaced by a control: returns the judge that decides instead of the given one
        self.judged_by: Callable[[Judge], Judge] = lambda judge: judge
        #: set by a control: statements that run in the database of effects of jobs
        self.effects_sql = ""
        #: set by a control: statements that run in the database of migrations, by the step that they follow
        self.schema_sql: dict[str, str] = {}
        #: set by a control: replaces the query for the states of jobs
        self.engine_states = ""
        #: set by a control: what jobs are awaited for does not come
        self.awaited_in_vain = False
        #: set by a control: gets the name of the database of the job engine
        self.with_engine_database: Callable[[str], None] = lambda _database: None
        #: set by a control: what it changes of an ingest pipeline
        self.pipeline = PipelineBreaks()
        #: cleared by a control: the canary table is not captured
        self.canary_captured = True

    def sabotage(self, statements: str) -> None:
        """Run SQL statements as superuser in the database of this check."""
        self.admin.run(statements)

    def disable_capture(self, table: str) -> None:
        """Disable the triggers of a table, so that its changes are not captured."""
        self.sabotage(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def tamper(self, table: str, body: str) -> None:
        """Change every row that is inserted into a table of the trail.

        :param body: PL/pgSQL that assigns to NEW, without the last semicolon.
        """
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
            f"$t$ BEGIN {body}; RETURN NEW; END $t$;"
            f"CREATE TRIGGER tamper BEFORE INSERT ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )

    def tamper_for_now(self, table: str, body: str) -> None:
        """Tamper until the check ends: for the database of the host, which other checks use as well."""
        self.tamper(table, body)
        self._stack.callback(self.sabotage, _UNTAMPER)

    def tamper_at_commit(self, table: str, statement: str) -> None:
        """Change a table of the trail when a transaction commits, so that the host does not notice.

        The trigger lasts until the check ends.

        :param statement: SQL that runs as superuser for each inserted row, without the last semicolon.
        """
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
            f"$t$ BEGIN {statement}; RETURN NULL; END $t$;"
            f"CREATE CONSTRAINT TRIGGER tamper AFTER INSERT ON public.{table} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )
        self._stack.callback(self.sabotage, _UNTAMPER)

    def rewrite_function(self, name: str, *replacements: tuple[str, str]) -> None:
        """Replace text in one function of the trail.

        :param replacements: old and new text; each old text must occur in the function.
        :raises NotExercisedError: when one does not occur.
        """
        definition = self.admin.value(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace",
            [name],
        )
        for old, new in replacements:
            if old not in (definition or ""):
                raise NotExercisedError(f"the function {name} does not contain {old!r}, so it cannot be broken there")
            definition = definition.replace(old, new)
        self.sabotage(definition)

    def rewrite_capture(self, *replacements: tuple[str, str]) -> None:
        """Replace text in all capture functions.

        :param replacements: old and new text; each old text must occur in at least one of the functions.
        :raises NotExercisedError: when one occurs in none.
        """
        changed = dict(self.target.functions(self.admin))
        for old, new in replacements:
            if not any(old in definition for definition in changed.values()):
                raise NotExercisedError(f"the capture functions do not contain {old!r}, so they cannot be broken there")
            changed = {name: definition.replace(old, new) for name, definition in changed.items()}
        for definition in changed.values():
            self.sabotage(definition)
