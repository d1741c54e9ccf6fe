"""A project's migrations in one check: databases for them, commands through the chain, and the catalogue after each."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.record import NotExercisedError
from harness.database import SqlError, load_queries, quote_literal
from harness.errors import TimedOutError, UsageError
from harness.host.command import run, variables
from harness.suites.command_roles import RIGHTS, own_database, remove_left
from harness.suites.commands import LEFT_BEHIND, log_of
from harness.suites.migrations.advice import advise
from harness.suites.migrations.comparison import Catalogue, catalogue_of, differences
from harness.suites.migrations.stepping import Relay
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.checks.context import CheckContext
    from harness.database import Client, Endpoint
    from harness.host.command import CommandResult
    from harness.host.declarations import MigrationDeclaration

#: the class of the advisory lock that is the gate; an arbitrary number that no application uses
GATE = 1_752_134_247
QUERIES = {
    name: text.replace("@gate@", str(GATE))
    for name, text in load_queries(Path(__file__).parent / "catalogue.sql").items()
}
#: what a catalogue cannot show, as the evidence says it
NOT_COMPARED = (
    "data, values of sequences, comments, statistics targets, storage of columns, operators, casts, collations, text search, "
    "foreign servers, publications, roles, and objects of extensions"
)
#: a session that ends gives its locks back within, seconds
_SETTLES_S = 3.0
#: a run that waits for an idle server connection is ended after so many looks, one a second
_MOST_LOOKS, _BETWEEN_LOOKS_S = 8, 1.0
#: an application that listens gets this time to finish its start, seconds
_LISTENS_S = 1.0
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
        way = "the server itself" if ctx.topology.pooler is None else "through the pooler"
        ctx.fact("migrations ran", "past the pooler, as declared" if declared.direct and ctx.mode else way)
        ctx.fact("role", f"{declared.role}: {RIGHTS[declared.role]}")
        ctx.fact("not compared", NOT_COMPARED)

    def new_database(self, what: str) -> str:
        """Create an empty database without what earlier databases of this check left on the server; return its name.

        Roles belong to the server: those that migrations created in an earlier database are removed with what they own.

        :raises NotExercisedError: when they cannot be removed.
        """
        try:
            remove_left(self.ctx, self.databases)
        except SqlError as error:
            raise NotExercisedError(
                f"roles of an earlier database cannot be removed from the server: {error}"
            ) from None
        self.databases.append(own_database(self.ctx, self.declared.role, what))
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
        if not self.ctx.expect(f"exit code of {step}", ended.exit_code, equals=0):
            self.failed(ended)
            raise StepFailedError
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
        hung = _Hung(self.ctx, database, alone)
        with contextlib.closing(hung):
            ended = self._started(step, words, database, relay.address, hung.is_over)
        return msgspec.structs.replace(ended, reason=hung.reason) if hung.reason else ended

    def start(self, step: str, database: str) -> CommandResult:
        """Start the application, and end it once it listens, or its time is over. It always comes through the chain."""
        over = _Started(self.declared.starts_s, lambda: self.ctx.lab.is_closed)
        role = self.ctx.lab.roles.commands[self.declared.role]
        with Relay(self.ctx.lab.through(role, database)) as relay:
            ended = self._started(
                step, self.declared.starts, database, relay.address, over.is_over, PORT=str(over.port)
            )
            connections = relay.connections
        if self.ctx.lab.is_closed:
            raise NotExercisedError("the run ended before the application started")
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
        role = self.ctx.lab.roles.commands[self.declared.role]
        return (self.ctx.lab.at_server if self.declared.direct else self.ctx.lab.through)(role, database)

    def _started(
        self, step: str, words: Sequence[str], database: str, at: Endpoint, over: Callable[[], bool], **more: str
    ) -> CommandResult:
        ctx, role = self.ctx, self.ctx.lab.roles.commands[self.declared.role]
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
        if ended.reason.startswith(_Hung.SIGN):
            self.ctx.expect(f"lock that {step} waits for and no run gives back", ended.reason, equals="none")
            advise(self.ctx, "advisory lock", past_the_pooler=self.declared.direct)
            raise StepFailedError
        if ended.reason:
            raise NotExercisedError(f"{step} {ended.reason}")

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
        :raises StepFailedError: when the database is gone.
        """
        there = self.ctx.admin.value("SELECT count(*) FROM pg_database WHERE datname = %s", [database])
        if not self.ctx.expect("the database is still there", there == 1, equals=True):
            raise StepFailedError
        with self.ctx.lab.connect_admin(database) as client:
            client.run("SET search_path = pg_catalog")
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

    def expect_same(self, what: str, before: Catalogue, after: Catalogue) -> None:
        """Expect that two catalogues are equal, and name each object that differs."""
        self.ctx.expect(what, differences(before, after), equals=[])

    def interfere(self, after: str, database: str) -> None:
        """Run the statements of a control that follow a step."""
        if statements := self.ctx.schema_sql.get(after):
            with self.ctx.lab.connect_admin(database) as client:
                client.run(statements)

    def expect_no_locks(self, step: str, database: str) -> None:
        """Expect that no session keeps an advisory lock after a run: behind a pooler the next run would wait for it."""
        given_back = True
        with contextlib.suppress(SqlError), self.ctx.lab.connect_admin(database) as client:
            given_back = self.ctx.expect(f"locks that outlive {step}", left_locks(client), equals=[])
        if not given_back:
            advise(self.ctx, "advisory lock", past_the_pooler=self.declared.direct)


def left_locks(client: Client) -> list[str]:
    """Return the advisory locks in a database that are not given back in time, without the gate of the harness."""

    def look() -> None:
        if client.rows(QUERIES["left_locks"]):
            raise NotYet("a session holds an advisory lock")

    with contextlib.suppress(TimedOutError):
        poll(look, what="advisory locks to be given back", deadline_s=_SETTLES_S, interval_s=0.05)
    return [text for (text,) in client.rows(QUERIES["left_locks"])]


class _Hung:
    """Says when a command has to end: with the run, or when it waits for a lock of a session that is idle.

    Behind a transaction pool a session-level lock stays with a server connection of a run that has ended.
    """

    SIGN = "process "

    def __init__(self, ctx: CheckContext, database: str, alone: Callable[[], bool]) -> None:
        self._ctx, self._database, self._alone = ctx, database, alone
        self._client: Client | None = None
        self._next = time.monotonic() + _BETWEEN_LOOKS_S
        self._looks = 0
        #: what it waits for; "" unless it had to end for that
        self.reason = ""

    def is_over(self) -> bool:
        if self._ctx.lab.is_closed or self.reason:
            return True
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _BETWEEN_LOOKS_S
            found = self._look() if self._alone() else ""
            self._looks = self._looks + 1 if found else 0
            if self._looks >= _MOST_LOOKS:
                self.reason = f"{self.SIGN}{found}"
        return bool(self.reason)

    def _look(self) -> str:
        with contextlib.suppress(SqlError):
            if self._client is None:
                self._client = self._ctx.lab.connect_admin(self._database)
            return self._client.value(QUERIES["waits_for_idle"]) or ""
        return ""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class _Started:
    """Says when an application has started: it listens on its port, or its time is over."""

    def __init__(self, seconds: float, closed: Callable[[], bool]) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self._end = time.monotonic() + seconds
        self._closed = closed
        #: when it began to listen
        self.listened: float | None = None

    def is_over(self) -> bool:
        if self.listened is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                self.listened = time.monotonic()
        now = time.monotonic()
        return self._closed() or now >= self._end or (self.listened is not None and now >= self.listened + _LISTENS_S)


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
