"""pgbench: its scripts, one run of it next to the server, and its log in the database.

pgbench runs in the container of the server, or next to its binary, so it is as old as the server. Its script and its
log are files of the server's machine: the server itself writes and reads them, on every engine the same way.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.database import quote_literal
from harness.errors import ServiceFailedError
from harness.suites.soak.tables import actor_of, queries

if TYPE_CHECKING:
    from harness.audit.actor_convention import ActorConvention
    from harness.checks.context import CheckContext

AUDITED, PLAIN = "audited", "plain"
#: the numbers of the clients of one run; those of the next run follow
CLIENT_NUMBERS = 1000
_VERSION = re.compile(r"pgbench \(PostgreSQL\) (\S+)|pgbench \((\S+)")
#: such as `client 3 script 0 aborted in command 4 query 0: ERROR:  …`, or without the script's number
_ABORTED = re.compile(r"client (\d+) (?:script \d+ )?aborted in [^:\n]*(?:: *(.*))?")
_COUNTS = r"""\set seq :seq + 1
\set client :first + :client_id
"""


class Pace(Struct, frozen=True, kw_only=True):
    """How many clients a load has, and how fast they are."""

    clients: int
    #: transactions per second of all clients; None for as many as possible
    rate: float | None


class Aborted(Struct, frozen=True):
    """A client of pgbench that ended because of an error."""

    #: its number in the run, from 0
    client: int
    error: str


class Ended(Struct, frozen=True, kw_only=True):
    """One run of pgbench that ended."""

    load: str
    #: the numbers of its clients begin here
    first: int
    #: None for a run without a rate: its log has one column less
    rate: float | None
    code: int
    output: str

    @property
    def last(self) -> int:
        """The highest number that a client of the run can have."""
        return self.first + CLIENT_NUMBERS - 1


def scripts(convention: ActorConvention) -> dict[str, str]:
    """Return the scripts of both loads: the same insert, with an actor of each client and without any."""
    declare, local = convention.declaration(actor_of(":client")), convention.is_local
    values = "(client, seq, value) VALUES (:client, :seq, 'write :client-:seq')"
    insert, plain = (f"INSERT INTO public.{table} {values}" for table in ("soak_writes", "soak_plain"))
    # one round trip for the transaction; an actor of the session is set in a statement of its own, before it
    audited = (
        f"BEGIN \\; {declare} \\; {insert} \\; COMMIT;"
        if local and declare
        else f"{declare}{';' if declare else ''}\nBEGIN \\; {insert} \\; COMMIT;"
    )
    return {AUDITED: f"{_COUNTS}{audited}\n", PLAIN: f"{_COUNTS}BEGIN \\; {plain} \\; COMMIT;\n"}


def aborted_clients(output: str) -> tuple[Aborted, ...]:
    """Return the clients that pgbench reports as aborted, with their errors."""
    found = {int(match[1]): " ".join((match[2] or match[0]).split()) for match in _ABORTED.finditer(output)}
    return tuple(Aborted(client, error) for client, error in sorted(found.items()))


class Pgbench:
    """Runs pgbench through the chain, with the scripts of one load."""

    def __init__(self, ctx: CheckContext) -> None:
        """Write the scripts.

        :raises NotApplicableError: where pgbench is not installed with the server.
        """
        self._ctx = ctx
        try:
            code, output = ctx.lab.postgres.run(["pgbench", "--version"], {})
        except ServiceFailedError:
            code, output = -1, ""
        if code != 0:
            raise NotApplicableError("the installation of the server has no pgbench")
        found = _VERSION.search(output)
        self.version = (found[1] or found[2]) if found else output.strip()
        self._folder = PurePosixPath(ctx.admin.value("SHOW config_file")).parent
        for load, script in scripts(ctx.target.actor).items():
            self._write(self._script(load), script)

    def _script(self, load: str) -> str:
        return str(self._folder / f"{self._ctx.database}-{load}.sql")

    def _write(self, path: str, text: str) -> None:
        """Write a file where the server runs."""
        with self._ctx.admin.transaction():
            number = self._ctx.admin.value("SELECT lo_from_bytea(0, %s)", [text.encode()])
            self._ctx.admin.run("SELECT lo_export(%s, %s)", [number, path])
            self._ctx.admin.run("SELECT lo_unlink(%s)", [number])

    def run(self, load: str, number: int, seconds: float, pace: Pace, *, logs: bool = True) -> Ended:
        """Run one load for some seconds.

        :param load: `AUDITED` or `PLAIN`.
        :param number: of the run, unique in the load.
        :param logs: whether pgbench writes its log, which :meth:`read_log` reads.
        """
        ctx, first = self._ctx, number * CLIENT_NUMBERS
        address, app = ctx.lab.outermost.inside, ctx.lab.roles.app
        command = ["pgbench", "--no-vacuum", "--protocol=simple", f"--file={self._script(load)}", "--jobs=1"]
        command += [f"--client={pace.clients}", f"--time={max(1, round(seconds))}"]
        command += ["--define=seq=0", f"--define=first={first}"]
        command += [f"--rate={pace.rate:g}"] if pace.rate else []
        command += ["--log", f"--log-prefix={self._folder / self._log_name(load, first)}"] if logs else []
        code, output = ctx.lab.postgres.run(
            command,
            {
                "PGHOST": address.host,
                "PGPORT": str(address.port),
                "PGDATABASE": ctx.database,
                "PGUSER": app.name,
                "PGPASSWORD": app.password,
            },
        )
        return Ended(load=load, first=first, rate=pace.rate, code=code, output=output)

    def end_soon(self) -> None:
        """Let a running load end: its clients stop at their next transaction, and pgbench completes its log."""
        role = self._ctx.lab.roles.app.name
        self._ctx.admin.run(f"REVOKE INSERT ON public.soak_writes, public.soak_plain FROM {role}")

    def read_log(self, ended: Ended) -> int:
        """Read the log of a run into the database, and return the number of its lines.

        :raises NotExercisedError: when pgbench could not run, or was killed.
        """
        admin, lines, start = self._ctx.admin, 0, f"{self._log_name(ended.load, ended.first)}."
        names = [name for (name,) in admin.rows("SELECT pg_ls_dir(%s)", [str(self._folder)]) if name.startswith(start)]
        columns = "client, number, took, script, epoch, microsecond" + (", lag" if ended.rate else "")
        for name in names:
            admin.run("DROP TABLE IF EXISTS pg_temp.staged")
            admin.run(queries()["staging"])
            path = quote_literal(str(self._folder / name))
            lines += admin.run(f"COPY pg_temp.staged ({columns}) FROM {path} (DELIMITER ' ')")
            admin.run(queries()["staged_to_log"], [ended.load, ended.first])
        # one that was killed knows writes that are not in its log; with aborted clients, it has written the whole log
        if ended.code and not aborted_clients(ended.output):
            said = ended.output.strip().splitlines()[-1:] or ["it printed nothing"]
            raise NotExercisedError(f"pgbench did not run to its end (exit code {ended.code}): {said[0]}")
        return lines

    def _log_name(self, load: str, first: int) -> str:
        return f"{self._ctx.database}-{load}-{first}"
