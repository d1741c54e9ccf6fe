"""A project's migrations in one check: databases for them, commands through the chain, and the catalogue after each."""

from __future__ import annotations

import contextlib
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe, quote_literal
from harness.errors import TimedOutError, UsageError
from harness.host.command import run, variables
from harness.host.missing_right import lacked_right
from harness.suites.command_roles import RIGHTS, chosen_by_the_harness, own_database, remove_left
from harness.suites.commands import LEFT_BEHIND, log_of
from harness.suites.migrations.advice import advise, errors_in
from harness.suites.migrations.comparison import NO_DIFFERENCE, Catalogue, catalogue_of, differences, in_words
from harness.suites.migrations.ending import Hung, Started
from harness.suites.migrations.queries import QUERIES, enter
from harness.suites.migrations.stepping import Relay
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.checks.context import CheckContext
    from harness.database import Client, Endpoint
    from harness.host.command import CommandResult
    from harness.host.declarations import MigrationDeclaration

#: what a catalogue cannot show, as the evidence says it
NOT_COMPARED = (
    "data, values of sequences, comments, statistics targets, storage of columns, operators, casts, collations, text search, "
    "foreign servers, publications, roles, and objects of extensions"
)
#: a session that ends gives its locks back within, seconds
_SETTLES_S = 3.0
#: the expectation that a step leaves the database as it is, and the state that it expects
_DATABASE, _THERE = "the database of the migrations", "there"
#: the last lines of a failed command that a row repeats
_TAIL_LINES, _LINE_CHARACTERS = 4, 90


class StepFailedError(Exception):
    """A step failed, and its expectation is broken: the steps after it would show nothing."""


#: no value of a catalogue has it
_BETWEEN = "\n\0\n"


class MigrationRun:
    """The commands of one declaration in one check. Its databases are dropped when the check ends."""

    def __init__(self, ctx: CheckContext, declared: MigrationDeclaration) -> None:
        self.ctx, self.declared = ctx, declared
        self.databases: list[str] = []
        self._outputs: list[str] = []
        self._idle_start = ""
        #: the last command whose login lacked a right, and what it printed
        self._lacked: tuple[str, str] | None = None
        way = "the server itself" if ctx.topology.pooler is None else "through the pooler"
        ctx.fact("migrations ran", "past the pooler, as declared" if declared.direct and ctx.mode else way)
        chosen = "" if declared.role else " (chosen by the harness)"
        ctx.fact("role", f"{declared.login}: {RIGHTS[declared.login]}{chosen}")
        ctx.fact("not compared", NOT_COMPARED)

    def new_database(self, what: str) -> str:
        """Create an empty database without what earlier databases of this check left on the server; return its name.

        Roles belong to the server: those that migrations created in an earlier database are removed with what they own.

        :raises NotExercisedError: when they cannot be removed.
        """
        try:
            remove_left(self.ctx, self.databases)
        except SqlError as error:
            left = describe(error)
            raise NotExercisedError(f"what commands left on the server cannot be removed: {left}") from None
        self.databases.append(own_database(self.ctx, self.declared.login, what))
        return self.databases[-1]

    # --- commands ----------------------------------------------------------------------------------

    def migrate(self, step: str, words: Sequence[str], database: str) -> None:
        """Run a command that migrates, and require that it succeeds.

        :raises StepFailedError: when it fails, or waits for a lock that no run holds.
        :raises NotExercisedError: when it cannot be started, does not end, or bypasses the pooler.
        """
        with Relay(self.address(database)) as relay:
            ended = self.run(step, words, database, relay)
            connections = relay.connections
        self.judge(step, ended)
        self.require_success(step, ended)
        if not connections and self.ctx.topology.pooler and not self.declared.direct:
            raise NotExercisedError(
                f"{step} did not use the given address, so nothing went through the pooler; if the project runs its "
                "migrations past the pooler, declare direct = true"
            )
        self.expect_no_locks(step, database)

    def run(
        self, step: str, words: Sequence[str], database: str, relay: Relay, *, alone: Callable[[], bool] = lambda: True
    ) -> CommandResult:
        """Run a command until it ends, or its deadline passes.

        :param alone: returns whether no other run of the project is alive, so that nobody gives a lock back.
        """
        hung = Hung(self.ctx, database, alone)
        with contextlib.closing(hung):
            ended = self._started(step, words, database, relay.address, hung.is_over)
        return msgspec.structs.replace(ended, reason=hung.reason) if hung.reason else ended

    def start(self, step: str, database: str) -> CommandResult:
        """Start the application, and end it once it listens, or its time is over. It always comes through the chain."""
        over = Started(self.declared.starts_s, lambda: self.ctx.lab.is_closed)
        role = self.ctx.lab.roles.commands[self.declared.login]
        with Relay(self.ctx.lab.through(role, database)) as relay:
            ended = self._started(
                step, self.declared.starts, database, relay.address, over.is_over, PORT=str(over.port)
            )
            connections = relay.connections
        if self.ctx.lab.is_closed:
            raise NotExercisedError("the run ended before the application started")
        self._note_lacked_right(step, ended)
        if over.listened is None and not connections and ended.exit_code in {None, 0}:
            how = "ended with 0" if ended.exit_code == 0 else f"ran {self.declared.starts_s:g} s"
            self._idle_start = f"{step} {how}, and neither connected to the given address nor listened on PORT"
        return ended

    def require_started(self) -> None:
        """Require that a start used its database or its port, once what it changed has been compared.

        :raises NotExercisedError: when it did neither: it ended early, or goes on in the background.
        """
        if self._idle_start:
            raise NotExercisedError(f"{self._idle_start}; the command has to stay in the foreground until SIGTERM")

    def address(self, database: str) -> Endpoint:
        """Return the address that migrations get."""
        role = self.ctx.lab.roles.commands[self.declared.login]
        return (self.ctx.lab.at_server if self.declared.direct else self.ctx.lab.through)(role, database)

    def _started(
        self, step: str, words: Sequence[str], database: str, at: Endpoint, over: Callable[[], bool], **more: str
    ) -> CommandResult:
        ctx, role = self.ctx, self.ctx.lab.roles.commands[self.declared.login]
        given = variables(at, at if self.declared.direct and not more else ctx.lab.at_server(role, database))
        given |= {"HARNESS_TOPOLOGY": ctx.topology.name, "POOL_MODE": str(ctx.mode or "none"), **more}
        try:
            ended = run(
                words,
                folder=Path.cwd() / self.declared.folder,
                given=given,
                deadline_s=self.declared.deadline_s,
                say=lambda _line: None,
                stopped=over,
            )
        except UsageError as error:
            raise NotExercisedError(f"{step}: {error.what}" + (f"; {error.hint}" if error.hint else "")) from None
        # before any part of it is cut: a part of a password is not recognised
        ended = msgspec.structs.replace(ended, output=ctx.lab.redact(ended.output))
        how = f"exit code {ended.exit_code}" if ended.exit_code is not None else ended.reason
        self._outputs.append(f"--- {step}: {join(words)}\n{ended.output.rstrip()}\n--- {how}, {ended.seconds:g} s\n")
        if ended.left_behind:
            ctx.fact(LEFT_BEHIND, ", ".join(ended.left_behind))
        return ended

    def judge(self, step: str, ended: CommandResult) -> None:
        """Judge a command that the harness ended.

        :raises StepFailedError: when it waited for a lock that no run gives back.
        :raises NotExercisedError: when it did not end.
        """
        if self.ctx.lab.is_closed:
            raise NotExercisedError("the run ended before the command did")
        if ended.reason.startswith(Hung.SIGN):
            self.ctx.expect(f"lock that {step} waits for and no run gives back", ended.reason, equals="none")
            advise(self.ctx, "advisory lock", past_the_pooler=self.declared.direct)
            raise StepFailedError
        if ended.reason:
            raise NotExercisedError(f"{step} {ended.reason}")

    def require_success(self, step: str, ended: CommandResult) -> None:
        """Expect that a command ended with 0.

        :raises StepFailedError: when it did not.
        :raises NotExercisedError: when it lacked a right under a login that the harness chose.
        """
        self.require_rights(step, ended)
        if not self.ctx.expect(f"exit code of {step}", ended.exit_code, equals=0):
            self.failed(ended)
            raise StepFailedError
        if errors := errors_in(ended.output):
            self.ctx.fact(f"error after which {step} went on", errors)

    def require_rights(self, step: str, ended: CommandResult) -> None:
        """Require that a command did not fail for a right that the login lacks, if the project names no login.

        :raises NotExercisedError: when it did.
        """
        self._note_lacked_right(step, ended)
        if ended.exit_code != 0 and self._lacked and self._lacked[0] == step:
            self.failed(ended)
            raise self._nothing_follows(f"{step} failed")

    def _note_lacked_right(self, step: str, ended: CommandResult) -> None:
        """Note a right that a login lacks which the harness chose: what a command does without it shows nothing."""
        if not self.declared.role and (line := lacked_right(ended.output)):
            self._lacked = (step, line)

    def expect_objects(self, name: str, found: Catalogue) -> None:
        """Expect that a command has created anything that an application could use."""
        self.expect(name, "yes" if found.has_objects else "no", equals="yes")

    def expect(self, name: str, observed: str, *, equals: str) -> None:
        """Compare two texts about the schema, which may miss what a login was not allowed to create."""
        if observed != equals and self._lacked:
            raise self._nothing_follows(
                f"{name}: expected {equals}, observed {observed}, but {self._lacked[0]} went on after an error"
            )
        self.ctx.expect(name, observed, equals=equals)

    def _nothing_follows(self, what: str) -> NotExercisedError:
        line = self._lacked[1] if self._lacked else ""
        owed = "the role that migrates your database"
        return NotExercisedError(chosen_by_the_harness(what, line, self.declared.login, owed))

    def failed(self, ended: CommandResult) -> None:
        """Record the end of the output of a command that failed, and what to do instead."""
        lines = [line.strip()[:_LINE_CHARACTERS] for line in ended.output.splitlines() if line.strip()]
        self.ctx.fact("last lines of the command that failed", "; ".join(lines[-_TAIL_LINES:]))
        advise(self.ctx, ended.output, past_the_pooler=self.declared.direct)

    def keep_output(self) -> None:
        """Keep the output of all commands as a log of the topology."""
        self.ctx.lab.keep_log(log_of(self.ctx.check, self.ctx.attempt_number), "\n".join(self._outputs))

    # --- the schema ----------------------------------------------------------------------------------

    def catalogue(self, database: str, when: str) -> Catalogue:
        """Return the catalogue of a database, and keep it as evidence.

        :param when: after which step, for the name of the file.
        :raises StepFailedError: when the database is gone, or closed.
        """
        try:
            entered = enter(self.ctx.lab, database)
        except SqlError:
            state = self._why_closed(database)
            if not state:
                raise
            self.ctx.expect(_DATABASE, state, equals=_THERE)
            raise StepFailedError from None
        self.ctx.expect(_DATABASE, _THERE, equals=_THERE)
        with entered as client:
            rows = client.rows(QUERIES["catalogue"])
        rows = _redacted(rows, self.ctx.lab.redact)
        found = catalogue_of(rows, schemas=self.declared.schemas, ledgers=self.declared.ledger)
        if found.ledgers:
            self.ctx.fact("tables of the migration tool, which are left out", ", ".join(found.ledgers))
        text = msgspec.json.format(msgspec.json.encode(found.objects), indent=1).decode()
        name = f"{when.replace(' ', '-')}.json"
        attempt = self.ctx.attempt_number
        self.ctx.lab.keep_artifact(self.ctx.check, f"attempt-{attempt}-{name}" if attempt > 1 else name, text)
        return found

    def _why_closed(self, database: str) -> str:
        """Return why nobody can connect to a database; "" if it allows connections."""
        with self.ctx.lab.connect_admin() as client:  # a migration may have ended older sessions
            allowed = client.value("SELECT datallowconn FROM pg_database WHERE datname = %s", [database])
        return {True: "", False: f"{_THERE}, and allows no connections", None: "gone"}[allowed]

    def expect_same(self, what: str, before: Catalogue, after: Catalogue) -> None:
        """Expect that two catalogues are equal, and name each object that differs."""
        found = differences(before, after)
        if found:  # the evidence of an expectation is cut
            self._outputs.append("\n".join((f"--- {what}", *found, "")))
        self.expect(what, in_words(found), equals=NO_DIFFERENCE)

    def interfere(self, after: str, database: str) -> None:
        """Run the statements of a control that follow a step."""
        if statements := self.ctx.schema_sql.get(after):
            with enter(self.ctx.lab, database) as client:
                client.run(statements)

    def expect_no_locks(self, step: str, database: str) -> None:
        """Expect that no session keeps an advisory lock after a run: behind a pooler the next run would wait for it."""
        given_back = True
        with contextlib.suppress(SqlError), enter(self.ctx.lab, database) as client:
            left = "; ".join(left_locks(client)) or "none"
            given_back = self.ctx.expect(f"locks that outlive {step}", left, equals="none")
        if not given_back:
            advise(self.ctx, "advisory lock", past_the_pooler=self.declared.direct)


def left_locks(client: Client) -> list[str]:
    """Return the advisory locks in a database that are not given back in time, without the gate of the harness."""
    left: list[str] = []

    def look() -> None:
        left[:] = [text for (text,) in client.rows(QUERIES["left_locks"])]
        if left:
            raise NotYet("a session holds an advisory lock")

    with contextlib.suppress(TimedOutError):
        poll(look, what="advisory locks to be given back", deadline_s=_SETTLES_S, interval_s=0.05)
    return left


def left_over(schema: str) -> str:
    """Return statements that leave a table which no migration creates."""
    literal = quote_literal(schema)
    return (
        f"DO $$ BEGIN EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', {literal}); "
        f"EXECUTE format('CREATE TABLE %I.harness_left_over (id integer)', {literal}); END $$"
    )


def _redacted(rows: Sequence[tuple[Any, ...]], redact: Callable[[str], str]) -> list[tuple[Any, ...]]:
    """Return the rows of a catalogue without secrets, before values are compared, and cut where they differ."""
    texts = [cell for row in rows for cell in row if cell is not None]
    clean = redact(_BETWEEN.join(texts)).split(_BETWEEN)
    if len(clean) != len(texts):  # something that looks like a secret spans two of them
        clean = [redact(text) for text in texts]
    cells = iter(clean)
    return [tuple(None if cell is None else next(cells) for cell in row) for row in rows]
