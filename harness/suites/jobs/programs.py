"""The programs of a job engine in one check: its packages, its databases, its commands and its workers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import msgspec
from msgspec.structs import replace

from harness.checks.pauses import TOO_SLOW_S, PauseMeter
from harness.checks.record import NotExercisedError
from harness.database import console
from harness.errors import HarnessError
from harness.host.command import run as run_command
from harness.host.command import url, variables
from harness.job_engines.installation import KIT
from harness.job_engines.scratch import scratch_folder
from harness.job_engines.sqlstates import sqlstates_in
from harness.job_engines.worker_output import error_line
from harness.job_engines.workers import Supervisor, Worker
from harness.model import PoolMode
from harness.suites.package_installation import install_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.checks.context import CheckContext
    from harness.database import Client
    from harness.host.command import CommandResult
    from harness.job_engines.installation import Installed
    from harness.job_engines.loading import JobEngine
    from harness.job_engines.workers import WorkerExit

#: the names of the workers of a case
WORKERS = ("A", "B")
#: what every job is given besides its key
ACTOR_TYPE, ACTOR_ID, CORRELATION = "user", "jobs-suite", "correlation-of-the-jobs-suite"
PAYLOAD = msgspec.json.encode({"actor": ACTOR_ID, "correlation": CORRELATION}).decode()
#: a command of a target, seconds
_COMMAND_S = 40.0
_LONGEST_OUTPUT, _LONGEST_LINE = 350, 200
#: of PgBouncer, when max_client_conn is reached, or a client has waited for longer than query_wait_timeout
_REFUSALS = ("no more connections allowed", "query_wait_timeout")
#: too_many_connections, of PostgreSQL and of other poolers
_TOO_MANY = "53300"


class Programs:
    """A job engine with its databases and programs. Use it as a context manager: its workers end with the block."""

    def __init__(self, ctx: CheckContext, engine: JobEngine, variant: str) -> None:
        """Install the packages of the engine, and create the database of effects.

        :raises NotExercisedError: when the packages cannot be installed here.
        """
        self.ctx = ctx
        self.engine = engine
        self.variant = variant
        self.settings = engine.settings_of(variant)
        #: why the schema could not be created through the chain; "" if it was
        self.not_installed = ""
        #: the database with the schema of the engine
        self.database = ""
        #: the same for the worker with a direct connection
        self.twin_database = ""
        self._installed = self._install_packages()
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            self.pauses = PauseMeter()
            stack.callback(self.pauses.close)
            self.effects_database: Client = ctx.empty_database("fx")
            self.effects_database.run((KIT / "effects.sql").read_text(encoding="utf-8"))
            if ctx.effects_sql:
                self.effects_database.run(ctx.effects_sql)
            self._stack = stack.pop_all()
        self._was_refused = False
        self._workers: dict[str, Worker] = {}
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install_packages(self) -> Installed:
        if self.engine.file.not_run:
            raise NotExercisedError(self.engine.file.not_run)
        installed = install_packages(self.ctx, self.engine)
        self.ctx.fact("settings", self.engine.file.variants[self.variant].summary)
        return installed

    # --- databases ---------------------------------------------------------------------------------

    def use_own_database(self) -> None:
        """Create the schema in the database of the check, through the chain, as an application does it.

        Where that fails, it is created directly, so that the case goes on.
        """
        self.database = self.ctx.database
        self._grant(self.database)
        found = self.command("install")
        if found.exit_code is None:
            self.database = ""  # nothing in it can be judged
            raise NotExercisedError(f"the installation through the chain {found.reason}")
        if found.exit_code != 0:
            self.not_installed = why_failed(found)
            self.ctx.fact("installation through the chain", tail_of(found))
            try:
                self._install_directly(self.database)
            except NotExercisedError:
                self.database = ""  # nothing in it can be judged
                raise

    def use_prepared_database(self) -> None:
        """Use a database in which the schema was created on a direct connection, once for all checks."""
        self.database = self.ctx.database_like(f"{self.engine.name}-{self.variant}", self._prepare)
        self.ctx.with_engine_database(self.database)

    def _prepare(self, database: str) -> None:
        self._grant(database)
        self._install_directly(database)
        with self.ctx.lab.connect_admin() as admin:
            admin.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])

    def _grant(self, database: str) -> None:
        role = self.ctx.lab.roles.app.name
        with self.ctx.lab.connect_admin(database) as admin:
            admin.run(f"GRANT CREATE ON DATABASE {database} TO {role}; GRANT CREATE ON SCHEMA public TO {role}")

    def _install_directly(self, database: str) -> None:
        found = self.command("install", chain=False, database=database)
        if found.exit_code != 0:
            raise NotExercisedError(f"the schema cannot be created on a direct connection either: {why_failed(found)}")

    # --- programs ----------------------------------------------------------------------------------

    def given(self, worker: str, *, chain: bool = True, database: str = "") -> dict[str, str]:
        """Return the environment of a program.

        :param chain: whether its database is behind the chain; else on the direct connection.
        """
        name, lab, settings = database or self.database, self.ctx.lab, self.settings
        direct = lab.direct(name)
        return {
            **variables(lab.chain(name) if chain else direct, direct),
            "EFFECTS_URL": url(lab.direct(self.effects_database.info.dbname)),
            "WORKER": worker,
            "VARIANT": self.variant,
            "LEASE_S": f"{settings.lease_s or 0:g}",
            "POLL_S": f"{settings.poll_s:g}",
            "CONCURRENCY": str(settings.concurrency),
            "ATTEMPTS": str(settings.attempts),
            "CRON_S": f"{settings.cron_s:g}",
            "PAYLOAD": PAYLOAD,
            **self._installed.environment,
            **self.engine.file.variants[self.variant].environment,
        }

    def command(
        self, which: str, values: Mapping[str, object] | None = None, *, chain: bool = True, database: str = ""
    ) -> CommandResult:
        """Run a command of the target to its end.

        :param which: its key in `[commands]`.
        :param values: for its placeholders.
        """
        self.ctx.require_undisturbed()
        found = run_command(
            self._words(which, values or {}),
            folder=self._folder,
            given=self.given("commands", chain=chain, database=database),
            deadline_s=_COMMAND_S,
            say=lambda _line: None,
            stopped=lambda: self.ctx.is_ended,
        )
        self._was_refused = self._was_refused or was_refused(found.output, sqlstates_in(found.output))
        # before anything is cut: a part of a secret would not be recognised
        return replace(found, output=self.ctx.lab.redact(found.output))

    def _words(self, which: str, values: Mapping[str, object]) -> tuple[str, ...]:
        filled = {name: str(value) for name, value in values.items()}
        return self.engine.command(which, python=self._installed.python, node=self._installed.node, **filled)

    def start_worker(self, name: str) -> None:
        """Start a worker, `A` or `B`. It is started again when it exits by itself."""
        if self._supervisor is None:
            words = self._words("work", {})
            self._workers = {one: self._worker(one, words, self.given(one)) for one in WORKERS}
            self._supervisor = self._stack.enter_context(Supervisor(*self._workers.values()))
        try:
            self._workers[name].start()
        except HarnessError as error:
            raise NotExercisedError(f"the worker cannot be started: {error.what}") from None

    def start_twin(self) -> None:
        """Start a worker with the same settings on a direct connection, in a database of its own."""
        self.twin_database = self.ctx.database_like(f"{self.engine.name}-{self.variant}", self._prepare)
        given = self.given("twin", chain=False, database=self.twin_database)
        twin = self._worker("twin", self._words("work", {}), given)
        self._stack.enter_context(Supervisor(twin))
        try:
            twin.start()
        except HarnessError as error:
            raise NotExercisedError(f"the worker cannot be started: {error.what}") from None

    def _worker(self, name: str, words: Sequence[str], given: Mapping[str, str]) -> Worker:
        redact, hurry = self.ctx.lab.redact, self.ctx.interrupted
        return Worker(name, words, self._folder, given, lambda _line: None, redact=redact, hurry=hurry)

    def worker(self, name: str) -> Worker:
        """Return a worker that was started."""
        return self._workers[name]

    @property
    def has_workers(self) -> bool:
        """Whether a worker was started, or was tried to be."""
        return bool(self._workers)

    @property
    def exits(self) -> list[WorkerExit]:
        """The exits of workers that the harness did not cause, in the order of time."""
        return self._supervisor.exits if self._supervisor else []

    @property
    def none_works(self) -> bool:
        """Whether workers were started, and all of them exited so often that they stay down."""
        started = {name for name, worker in self._workers.items() if worker.exit_code is not None or worker.is_running}
        return bool(started) and self._supervisor is not None and started <= set(self._supervisor.given_up)

    @property
    def given_up(self) -> tuple[str, ...]:
        """The workers that exited so often that they were not started again."""
        return self._supervisor.given_up if self._supervisor else ()

    @property
    def shortage(self) -> str:
        """Why the programs were given too few connections, in one sentence; "" if they were not.

        Two workers, commands and other checks share its limits: that is the harness's own load.
        """
        if self._was_refused or any(was_refused(worker.output, worker.sqlstates) for worker in self._workers.values()):
            return "clients of the job engine were refused, because a limit of connections was reached"
        endpoint = self.ctx.lab.console() if self.ctx.mode is PoolMode.SESSION else None
        pools = console(endpoint, "SHOW POOLS") if endpoint else []
        waiting = sum(int(pool["cl_waiting"]) for pool in pools if pool["database"] == self.database)
        return f"workers keep all server connections of the pool, and wait for more ({waiting})" if waiting else ""

    @property
    def printed_sqlstates(self) -> list[str]:
        """The SQLSTATEs that workers printed: an engine may log an error, and go on."""
        return sorted({code for worker in self._workers.values() for code in worker.sqlstates})

    def require_a_responsive_machine(self) -> None:
        """Require that times mean something.

        :raises NotExercisedError: when the machine kept the harness itself waiting.
        """
        if self.pauses.longest_s > TOO_SLOW_S:
            raise NotExercisedError(
                f"the machine kept the harness itself waiting for {self.pauses.longest_s:.1f} s, so times show nothing"
            )


def was_refused(output: str, sqlstates: Iterable[str]) -> bool:
    """Return whether a program was refused a connection because there were too many, or it waited for too long."""
    return _TOO_MANY in sqlstates or any(refusal in output for refusal in _REFUSALS)


def tail_of(found: CommandResult) -> str:
    """Return the end of what a command printed, from the begin of a line if it has a line end."""
    printed = found.output.strip()
    said = printed[-_LONGEST_OUTPUT:]
    if len(printed) > _LONGEST_OUTPUT and printed[-_LONGEST_OUTPUT - 1] != "\n":
        said = said.partition("\n")[2].strip() or f"…{said}"
    return f"{said or 'it printed nothing'} ({found.reason or f'exit code {found.exit_code}'})"


def why_failed(found: CommandResult) -> str:
    """Return why a command failed, with its SQLSTATE first if it printed one."""
    last = error_line(found.output.splitlines())[:_LONGEST_LINE] or "it printed nothing"
    codes = sqlstates_in(found.output)
    said = f"{last} ({found.reason or f'exit code {found.exit_code}'})"
    return f"{codes[-1]}: {said}" if codes else said
