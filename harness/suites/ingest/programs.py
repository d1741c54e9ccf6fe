"""The programs of a pipeline in one check: its packages, its database, its environment, its API and its workers."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from harness.checks.judges.ingest_state import ProgramExit
from harness.checks.pauses import TOO_SLOW_S, PauseMeter
from harness.checks.record import NotExercisedError
from harness.engine.native_group import free_port
from harness.errors import HarnessError
from harness.host.command import run as run_command
from harness.host.command import variables
from harness.job_engines.scratch import scratch_folder
from harness.job_engines.workers import GRACE_S, Supervisor, Worker
from harness.suites.ingest.description import Misfit, error_of, unloadable
from harness.suites.ingest.store import CheckStore
from harness.suites.package_installation import install_packages

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.host.command import CommandResult
    from harness.ingest.loading import LoadedPipeline
    from harness.job_engines.installation import Installed
    from harness.job_engines.workers import WorkerExit

#: the names of the programs
API, WORKERS = "api", ("A", "B")
#: migrations, seconds
_MIGRATES_S = 60.0
_LONGEST_OUTPUT = 350
_VARIABLE = re.compile(r"\{([A-Z_][A-Z0-9_]*)\}")
#: the login of a pipeline may create schemas and tables in its database
_GRANTS = "GRANT CREATE ON DATABASE {database} TO {role}; GRANT CREATE, USAGE ON SCHEMA public TO {role}"


class Programs:
    """A pipeline with its database, its store and its programs. Use it as a context manager: all end with the block."""

    def __init__(self, ctx: CheckContext, pipeline: LoadedPipeline) -> None:
        """Install the packages of the pipeline, and prepare its part of the store.

        :raises NotExercisedError: when the packages cannot be installed here, or the store is unavailable.
        """
        self.ctx = ctx
        self.pipeline = pipeline
        self.settings = pipeline.file.settings
        #: the database with the schema of the pipeline
        self.database = ""
        #: why migrating through the chain failed; None if it was not tried
        self.not_migrated: str | None = None
        #: the API's address while it runs
        self.port = 0
        #: the lines that each program printed, of all its starts, without secrets
        self.printed: dict[str, list[str]] = {}
        #: the programs that went on after SIGTERM
        self.ignored_sigterm: set[str] = set()
        self._installed = self._install_packages()
        self._programs: dict[str, Worker] = {}
        self._supervisor: Supervisor | None = None
        #: the programs that were started since all ended
        self._started: set[str] = set()
        self._earlier_exits: list[WorkerExit] = []
        #: the last lines of each program's last start that was ended
        self._earlier_output: dict[str, str] = {}
        self._earlier_given_up: set[str] = set()
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            self.pauses = PauseMeter()
            stack.callback(self.pauses.close)
            self.store = stack.enter_context(CheckStore(ctx, pipeline.store))
            stack.callback(self.end_programs)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install_packages(self) -> Installed:
        installed = install_packages(self.ctx, self.pipeline)
        self.ctx.fact("pipeline", f"{self.pipeline.title} ({self.pipeline.identity})")
        return installed

    # --- the database ------------------------------------------------------------------------------

    def use_own_database(self) -> None:
        """Migrate the database of the check through the chain, as a deployment does it.

        :raises NotExercisedError: when the harness ended the command, or the schema cannot be made directly either.
        """
        self.database = self.ctx.database
        self._grant(self.database)
        found = self.migrate()
        if found.exit_code is None:
            raise NotExercisedError(f"{self.pipeline.at('commands.migrate')}: through the chain it {found.reason}")
        self.not_migrated = ""
        if found.exit_code != 0:
            self.not_migrated = tail_of(found)
            self._migrate_directly(self.database)

    def use_prepared_database(self) -> None:
        """Use a database that was migrated on a direct connection, once for all checks.

        A second call gives another database; programs that run before it are ended.
        """
        self.end_programs()
        self.database = self.ctx.database_like(f"ingest-{self.pipeline.identity}", self._prepare)

    def _prepare(self, database: str) -> None:
        self._grant(database)
        self._migrate_directly(database)
        with self.ctx.lab.connect_admin() as admin:
            admin.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])

    def _grant(self, database: str) -> None:
        role = self.ctx.lab.roles.app.name
        with self.ctx.lab.connect_admin(database) as admin:
            admin.run(_GRANTS.format(database=database, role=role))

    def _migrate_directly(self, database: str) -> None:
        found = self.migrate(chain=False, database=database)
        if found.exit_code != 0:
            said = f"it fails on a direct connection, so no schema is there: {tail_of(found)}"
            raise error_of(self.pipeline, Misfit("commands.migrate", said))

    def migrate(self, *, chain: bool = True, database: str = "") -> CommandResult:
        """Run the pipeline's own migrations to their end.

        :raises NotExercisedError: when the program is missing.
        """
        self.ctx.require_undisturbed()
        try:
            found = run_command(
                self.pipeline.command("migrate", self._installed.python),
                folder=self._folder,
                given=self.environment(chain=chain, database=database),
                deadline_s=_MIGRATES_S,
                say=lambda _line: None,
                stopped=lambda: self.ctx.is_ended,
            )
        except HarnessError as error:
            raise error_of(self.pipeline, Misfit("commands.migrate", error.what)) from None
        # before anything is cut: a part of a secret would not be recognised
        return replace(found, output=self.ctx.lab.redact(found.output))

    # --- programs ----------------------------------------------------------------------------------

    def environment(self, *, chain: bool = True, database: str = "") -> dict[str, str]:
        """Return the environment of a program.

        :param chain: whether its database is behind the chain; else on the direct connection.
        """
        name, lab, settings = database or self.database, self.ctx.lab, self.settings
        direct = lab.direct(name)
        given = {
            **variables(lab.chain(name) if chain else direct, direct),
            "PORT": str(self.port),
            **self.store.variables(),
            "ATTEMPTS": str(settings.attempts),
            "SHORTEST_DELAY_S": f"{settings.shortest_delay_s:g}",
            "LONGEST_DELAY_S": f"{settings.longest_delay_s:g}",
            "LEASE_S": f"{settings.lease_s:g}",
            "POLL_S": f"{settings.poll_s:g}",
            "URL_VALID_S": f"{settings.url_valid_s:g}",
            **self._installed.environment,
            "PYTHONPATH": str(self.pipeline.folder),
        }
        own = {
            name: _VARIABLE.sub(lambda found: given.get(found[1], found[0]), value)
            for name, value in (self.pipeline.file.environment | self.ctx.pipeline.environment).items()
        }
        return given | own

    def start_api(self) -> None:
        """Start the API without waiting for it."""
        self._start(API)

    def start_worker(self, name: str = WORKERS[0]) -> None:
        """Start a worker, `A` or `B`. A program that exits by itself is started again."""
        self._start(name)

    def _start(self, name: str) -> None:
        if self._supervisor is None:
            self.port = free_port()
            self._programs = {one: self._program(one) for one in (API, *WORKERS)}
            self._supervisor = Supervisor(*self._programs.values())
        self._started.add(name)
        try:
            self._programs[name].start()
        except HarnessError as error:
            raise error_of(self.pipeline, Misfit(_key_of(name), f"it cannot be started: {error.what}")) from None

    def _program(self, name: str) -> Worker:
        which = _key_of(name).removeprefix("commands.")
        words = (*self.ctx.pipeline.wrap, *self.pipeline.command(which, self._installed.python))
        given = {**self.environment(), "WORKER": name}
        lines = self.printed.setdefault(name, [])
        redact, hurry = self.ctx.lab.redact, self.ctx.interrupted
        return Worker(name, words, self._folder, given, lines.append, redact=redact, hurry=hurry)

    def program(self, name: str) -> Worker:
        """Return the API or a worker."""
        return self._programs[name]

    def stop(self, name: str) -> None:
        """End a program with SIGTERM; SIGKILL follows when it goes on."""
        self._programs[name].stop()
        if self._programs[name].ignored_sigterm_s:
            self.ignored_sigterm.add(name)

    def end_programs(self) -> None:
        """End all programs, in any state; the next start gets the database that is used then."""
        if self._supervisor is None:
            return
        self._supervisor.close(GRACE_S)
        self._earlier_exits += self._supervisor.exits
        self._earlier_output |= {name: one.output for name, one in self._programs.items()}
        self._earlier_given_up |= set(self._supervisor.given_up)
        self.ignored_sigterm |= {name for name, one in self._programs.items() if one.ignored_sigterm_s}
        if left := [process for one in self._programs.values() for process in one.left_behind]:
            self.ctx.fact("processes that programs left behind", ", ".join(left))
        self._supervisor, self._programs, self._started = None, {}, set()

    @property
    def exits(self) -> list[ProgramExit]:
        """The exits of programs that the harness did not cause, in the order of time."""
        return [
            ProgramExit(program=one.worker, code=one.exit_code, seconds=one.seconds, last=one.last_line)
            for one in self._all_exits()
        ]

    def _all_exits(self) -> list[WorkerExit]:
        return [*self._earlier_exits, *(self._supervisor.exits if self._supervisor else ())]

    def require_loadable(self) -> None:
        """Require that each program that was started can be loaded.

        :raises DescriptionError: when one lacks a module, a file or a package.
        """
        if found := unloadable(self._all_exits(), self.output_of):
            name, said = found
            self.ctx.fact(f"output of {name}", self.output_of(name)[-_LONGEST_OUTPUT:] or "none")
            raise error_of(self.pipeline, Misfit(_key_of(name), f"the program cannot be loaded: {said}"))

    def output_of(self, name: str) -> str:
        """Return the last lines that a program printed in its last start."""
        return self._programs[name].output if name in self._programs else self._earlier_output.get(name, "")

    @property
    def given_up(self) -> tuple[str, ...]:
        """The programs that exited so often that they were not started again."""
        now = self._supervisor.given_up if self._supervisor else ()
        return tuple(sorted({*self._earlier_given_up, *now}))

    @property
    def has_lost_its_workers(self) -> bool:
        """Whether each worker that was started has exited so often that it is not started again."""
        workers = self._started - {API}
        return bool(workers) and workers <= set(self.given_up)

    def listens(self) -> bool:
        """Return whether the API accepts a connection."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def require_a_responsive_machine(self) -> None:
        """Require that times mean something.

        :raises NotExercisedError: when the machine kept the harness itself waiting.
        """
        if self.pauses.longest_s > TOO_SLOW_S:
            raise NotExercisedError(
                f"the machine kept the harness itself waiting for {self.pauses.longest_s:.1f} s, so times show nothing"
            )


def _key_of(name: str) -> str:
    """Return the key of the command of a program."""
    return "commands.api" if name == API else "commands.worker"


def tail_of(found: CommandResult) -> str:
    """Return the end of what a command printed."""
    said = found.output.strip()[-_LONGEST_OUTPUT:]
    return f"{said or 'it printed nothing'} ({found.reason or f'exit code {found.exit_code}'})"
