"""A job engine under test in one check: its databases, its programs, and what they did in the end."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import msgspec

from harness.checks.judges.jobs import ENQUEUE, WARM_UP, Effect, ExitedWorker, Foreseen, JobsState
from harness.checks.record import NotExercisedError
from harness.database import fetch
from harness.engine.virtual_environments import EnvironmentBuilder
from harness.errors import HarnessError, TimedOutError
from harness.host.command import run as run_command
from harness.host.command import url, variables
from harness.job_engines.installation import install
from harness.job_engines.installed_once import DEADLINE_S
from harness.job_engines.sqlstates import sqlstates_in
from harness.job_engines.workers import Supervisor, Worker
from harness.suites.jobs.states import read_states
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.checks.context import CheckContext
    from harness.checks.judges.jobs import AuditedChange, End
    from harness.database import Client
    from harness.host.command import CommandResult
    from harness.job_engines.installation import Installed
    from harness.job_engines.loading import JobEngine
    from harness.job_engines.target_file import Case, Documented
    from harness.job_engines.workers import WorkerExit
    from harness.model.history import Outcome
    from harness.store import Journal

#: the names of the workers of a case
WORKERS = ("A", "B")
_KIT = Path(__file__).parents[2] / "job_engines" / "kit"
#: what every job is given besides its key
ACTOR_TYPE, ACTOR_ID, CORRELATION = "user", "jobs-suite", "correlation-of-the-jobs-suite"
_PAYLOAD = msgspec.json.encode({"actor": ACTOR_ID, "correlation": CORRELATION}).decode()
#: a command of a target, seconds
_COMMAND_S = 40.0
#: between two looks at the effects, and at the clock of this machine, seconds
_LOOK_S, _BEAT_S = 0.05, 0.05
#: the machine kept the harness itself waiting for this long: nothing about times is shown then, seconds
TOO_SLOW_S = 2.0
_LONGEST_OUTPUT = 350
#: how long anything is awaited under a control, seconds
_UNDER_CONTROL_S = 12.0
#: a worker begins its first job within, seconds: it starts, imports its packages, and connects
STARTS_S = 30.0
#: an idle worker is awaited for the longest poll that any engine here falls back to, seconds
LONGEST_POLL_S = 40.0
#: added to what an engine's settings need, seconds; no case waits for jobs longer than this, seconds
_MARGIN_S, _LONGEST_WAIT_S = 8.0, 90.0
#: a longer lease is not awaited, seconds
LONGEST_LEASE_S = 15.0


class PauseMeter:
    """Measures for how long the machine keeps a thread of the harness waiting that wants to run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._beat, daemon=True, name="pause meter")
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._stop.wait(_BEAT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began - _BEAT_S)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class JobRun:
    """One job engine in one check. Use it as a context manager: its workers end with the block."""

    def __init__(self, ctx: CheckContext, engine: JobEngine, variant: str, case: Case) -> None:
        """Install the engine's packages.

        :raises NotExercisedError: when they cannot be installed here.
        """
        self.ctx = ctx
        self.engine = engine
        self.variant = variant
        self.case = case
        self.settings = engine.settings_of(variant)
        #: how each job has to end, by key
        self.ends: dict[int, End] = {}
        self.after_stale: dict[int, str] = {}
        self.interrupted: tuple[int, ...] = ()
        self.left: dict[str, int] = {}
        self.changes: tuple[AuditedChange, ...] = ()
        self.not_installed = ""
        self.waited_s = 0.0
        self.database = ""
        self._installed = self._install_packages()
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            self._pauses = PauseMeter()
            stack.callback(self._pauses.close)
            self._effects: Client = ctx.empty_database("fx")
            self._effects.run((_KIT / "effects.sql").read_text(encoding="utf-8"))
            if ctx.effects_sql:
                self._effects.run(ctx.effects_sql)
            self._stack = stack.pop_all()
        self._began = self._effects.value("SELECT clock_timestamp()")
        self._journal: Journal | None = None
        #: jobs whose command failed, or did not end: nobody waits for them
        self._unanswered: set[int] = set()
        #: why the first command without an answer ended; "" if each one has an answer
        self.without_answer = ""
        self._workers: dict[str, Worker] = {}
        self._supervisor: Supervisor | None = None
        #: the last number of each operation
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install_packages(self) -> Installed:
        if self.engine.file.not_run:
            raise NotExercisedError(self.engine.file.not_run)
        builder = EnvironmentBuilder(DEADLINE_S)
        try:
            with self._closed_when_ended(builder):
                installed = install(self.engine, self.ctx.notify, builder)
        except HarnessError as error:
            raise NotExercisedError(f"{self.engine.file.title} cannot be installed here: {error.what}") from None
        self.ctx.fact("versions", ", ".join(f"{name} {version}" for name, version in installed.versions.items()))
        self.ctx.fact("settings", self.engine.file.variants[self.variant].summary)
        return installed

    @contextlib.contextmanager
    def _closed_when_ended(self, builder: EnvironmentBuilder) -> Iterator[None]:
        """Close the builder as soon as the check or the run ends: pip and npm may take minutes."""
        done = Event()

        def watch() -> None:
            while not done.wait(_BEAT_S):
                if self.ctx.is_ended:
                    builder.close()
                    return

        watcher = Thread(target=watch, daemon=True, name="end of an installation")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    # --- databases ---------------------------------------------------------------------------------

    def use_own_database(self) -> None:
        """Create the schema in the database of the check, through the chain, as an application does it.

        Where that fails, it is created directly, so that the case goes on.
        """
        self.database = self.ctx.database
        self._grant(self.database)
        found = self.command("install")
        if found.exit_code != 0:
            self.not_installed = why_failed(found)
            self.ctx.fact("installation through the chain", _tail(found))
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
            "EFFECTS_URL": url(lab.direct(self._effects.info.dbname)),
            "WORKER": worker,
            "VARIANT": self.variant,
            "LEASE_S": f"{settings.lease_s or 0:g}",
            "POLL_S": f"{settings.poll_s:g}",
            "CONCURRENCY": str(settings.concurrency),
            "ATTEMPTS": str(settings.attempts),
            "CRON_S": f"{settings.cron_s:g}",
            "PAYLOAD": _PAYLOAD,
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
        return run_command(
            self._words(which, values or {}),
            folder=self._folder,
            given=self.given("commands", chain=chain, database=database),
            deadline_s=_COMMAND_S,
            say=lambda _line: None,
            stopped=lambda: self.ctx.is_ended,
        )

    def _words(self, which: str, values: Mapping[str, object]) -> tuple[str, ...]:
        filled = {name: str(value) for name, value in values.items()}
        return self.engine.command(which, python=self._installed.python, node=self._installed.node, **filled)

    def start_worker(self, name: str) -> None:
        """Start a worker, `A` or `B`. It is started again when it exits by itself."""
        if self._supervisor is None:
            words = self._words("work", {})
            self._workers = {
                one: Worker(one, words, self._folder, self.given(one), lambda _line: None, redact=self.ctx.lab.redact)
                for one in WORKERS
            }
            self._supervisor = self._stack.enter_context(Supervisor(*self._workers.values()))
        try:
            self._workers[name].start()
        except HarnessError as error:
            raise NotExercisedError(f"the worker cannot be started: {error.what}") from None

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

    # --- jobs --------------------------------------------------------------------------------------

    def record(self, journal: Journal) -> None:
        """Write operations to this history from now on."""
        self._journal = journal

    def plan(
        self, key: int, *, seconds: float = 0.0, failures: int = 0, heartbeat: bool = False, sql: str = ""
    ) -> None:
        """Say what a job does."""
        self._effects.run(
            "INSERT INTO plan (key, seconds, failures, heartbeat, sql) VALUES (%s, %s, %s, %s, %s)",
            [key, seconds, failures, heartbeat, sql],
        )

    def expect(self, end: End, *keys: int) -> None:
        """Say how jobs have to end."""
        self.ends |= dict.fromkeys(keys, end)

    def enqueue(self, first: int, last: int, operation: str = ENQUEUE) -> CommandResult:
        """Enqueue jobs that have to be done."""
        keys = range(first, last + 1)
        self.expect("done", *(key for key in keys if key not in self.ends))
        return self.operate(operation, "enqueue", *keys, first=first, last=last)

    def operate(self, operation: str, which: str, *keys: int, **values: object) -> CommandResult:
        """Run a command about some jobs, and record it as an operation for each of them."""
        journal = self._journal
        numbers = [self._number(operation) for _ in keys]
        if journal:
            for key, number in zip(keys, numbers, strict=True):
                journal.invoke(_client(operation), number, operation, key=str(key))
        found = self.command(which, values)
        reported = {effect.key for effect in self.effects() if effect.phase == "enqueued"}
        if found.exit_code != 0:
            self.ctx.fact(f"output of {operation}", _tail(found))
        if journal:
            for key, number in zip(keys, numbers, strict=True):
                done = found.exit_code == 0 or (which == "enqueue" and key in reported)
                outcome: Outcome = "ok" if done else "unknown" if found.exit_code is None else "fail"
                journal.answer(_client(operation), number, outcome, "" if done else why_failed(found))
                if not done:
                    self._unanswered.add(key)
                    if found.exit_code is None and not self.without_answer:
                        self.without_answer = f"the command `{which}` of job {key} {found.reason}"
        return found

    def warm_up(self) -> bool:
        """Start the first worker, and return whether it has done a job that the case does not count."""
        self.start_worker(WORKERS[0])
        found = self.operate(WARM_UP, "enqueue", 0, first=0, last=0)
        if found.exit_code == 0 and self.wait_for_phase(0, "done", STARTS_S + LONGEST_POLL_S):
            return True
        self.expect("done", 0)
        return False

    def _number(self, operation: str) -> int:
        self._numbers[operation] = self._numbers.get(operation, 0) + 1
        return self._numbers[operation]

    # --- observations ------------------------------------------------------------------------------

    def effects(self) -> tuple[Effect, ...]:
        """Return all effects so far, in their order."""
        rows = fetch(
            self._effects,
            "SELECT extract(epoch FROM at - %s)::float8, key, phase, worker, attempt, job FROM effects ORDER BY id",
            [self._began],
        )
        return tuple(
            Effect(seconds=round(seconds, 3), key=key, phase=phase, worker=worker, attempt=attempt, job=job)
            for seconds, key, phase, worker, attempt, job in rows
        )

    def states(self, admin: Client | None = None) -> dict[int, str]:
        """Return what the engine says about each job.

        :param admin: a connection to its database, for many looks in a short time.
        :raises NotExercisedError: when the target's query fails, or returns other words.
        """
        if admin is None:
            with self.ctx.lab.connect_admin(self.database) as made:
                return self.states(made)
        return read_states(admin, self.ctx.engine_states or self.engine.file.sql.state)

    def lost_payloads(self) -> tuple[int, ...]:
        """Return the jobs that began without what they were enqueued with, by key."""
        rows = fetch(
            self._effects,
            "SELECT DISTINCT key FROM effects WHERE phase = 'begin' AND NOT coalesce(payload @> %s::jsonb, false) "
            "ORDER BY key",
            [_PAYLOAD],
        )
        return tuple(key for (key,) in rows)

    def wait(
        self,
        condition: Callable[[tuple[Effect, ...]], bool],
        what: str,
        deadline_s: float,
        interval_s: float = _LOOK_S,
    ) -> bool:
        """Wait until a condition on the effects holds, and return whether it does in time.

        :param interval_s: the first pause between two looks, seconds; it grows to ten times that.
        """
        if self.ends and self.ends.keys() <= self._unanswered:
            return condition(self.effects())  # no job was enqueued, so none begins

        def seen() -> None:
            self.ctx.require_undisturbed()
            stopped = self.none_works
            if not condition(self.effects()):
                if stopped:
                    raise TimedOutError(f"no worker runs any more, waiting for {what}")
                raise NotYet(what)

        try:
            poll(seen, what=what, deadline_s=min(deadline_s, self._longest_wait_s), interval_s=interval_s)
        except TimedOutError:
            return False
        return True

    def wait_until_done(
        self, *keys: int, quiet_s: float = 0.0, look: Callable[[tuple[Effect, ...]], bool] | None = None
    ) -> bool:
        """Wait until jobs are done, as long as there is progress, and return whether they are.

        :param keys: those that are awaited; by default all that have to be done.
        :param quiet_s: how long nothing may happen, seconds; by default what the engine's own settings need.
        :param look: called with the effects at each look; returns whether to go on.
        """
        wanted = set(keys) or {key for key, end in self.ends.items() if end == "done"}
        wanted -= self._unanswered
        began = changed = time.monotonic()
        seen = -1
        while True:
            effects, now = self.effects(), time.monotonic()
            if len(effects) != seen:
                seen, changed = len(effects), now
            goes_on = look is None or look(effects)
            goes_on = goes_on and not self.none_works
            if done := wanted <= {effect.key for effect in effects if effect.phase == "done"}:
                break
            begun = any(effect.phase == "begin" for effect in effects)
            quiet = quiet_s or (self.patience_s if begun else STARTS_S)
            if not goes_on or now - changed > min(quiet, self._longest_wait_s) or now - began > _LONGEST_WAIT_S:
                break
            self.ctx.require_undisturbed()
            time.sleep(_LOOK_S)
        self.waited_s = time.monotonic() - changed
        return done

    @property
    def _longest_wait_s(self) -> float:
        # a control may have made it impossible
        return _UNDER_CONTROL_S if self.ctx.control else _LONGEST_WAIT_S

    def wait_for_phase(self, key: int, phase: str, deadline_s: float, times: int = 1) -> bool:
        """Wait until a job was in a phase so many times."""
        return self.wait(
            lambda effects: sum(effect.key == key and effect.phase == phase for effect in effects) >= times,
            f"{phase} of job {key}",
            deadline_s,
        )

    def wait_for_phase_of(self, key: int, phase: str, worker: str, deadline_s: float) -> bool:
        """Wait until one worker reported a phase of a job."""
        return self.wait(
            lambda effects: any((one.key, one.phase, one.worker) == (key, phase, worker) for one in effects),
            f"{phase} of job {key} by {worker}",
            deadline_s,
        )

    def was_in_phase(self, key: int, phase: str, worker: str) -> bool:
        """Return whether a worker has reported a phase of a job."""
        return any((one.key, one.phase, one.worker) == (key, phase, worker) for one in self.effects())

    def wait_for_state(self, key: int, state: str, deadline_s: float) -> bool:
        """Wait until the engine says so about a job, or has deleted it."""
        return self.wait(
            lambda _effects: self.states().get(key, state) == state, f"job {key} to be {state}", deadline_s
        )

    def wait_for_ends(self, deadline_s: float) -> bool:
        """Wait until the engine says how each job ended: it may do so after the effect."""
        ends = {key: end for key, end in self.ends.items() if end != "never" and key not in self._unanswered}

        def agree(_effects: tuple[Effect, ...]) -> bool:
            states = self.states()
            return all(states.get(key, end) == end for key, end in ends.items())

        return self.wait(agree, "the engine to report how jobs ended", deadline_s)

    def fault(self, number: int, name: str, inject: Callable[[JobRun], str]) -> None:
        """Inject a fault, and record it in the history."""
        if self._journal is None:
            raise NotExercisedError("no history can be kept here")
        self._journal.fault(number, name, "inject")
        effect = inject(self)
        for step in ("injected", "heal", "healed"):
            self._journal.fault(number, name, step, effect if step == "injected" else "")

    @property
    def patience_s(self) -> float:
        """How long nothing may happen before jobs are taken as stuck, seconds: lease, poll, later attempt, and a margin.

        A lease that nobody would wait for is not awaited.
        """
        settings = self.settings
        lease_s = settings.lease_s if settings.lease_s and settings.lease_s <= LONGEST_LEASE_S else 0.0
        return lease_s + 2 * settings.poll_s + settings.backoff_s + _MARGIN_S

    def final_state(self) -> JobsState:
        """Return everything that the judge needs besides the history."""
        return JobsState(
            case=self.case,
            settings=self.settings,
            ends=self.ends,
            effects=self.effects(),
            states=self.states(),
            after_stale=self.after_stale,
            interrupted=self.interrupted,
            exits=tuple(
                ExitedWorker(
                    worker=one.worker,
                    code=one.exit_code,
                    seconds=one.seconds,
                    sqlstates=one.sqlstates,
                    last=one.last_line,
                )
                for one in self.exits
            ),
            given_up=self._supervisor.given_up if self._supervisor else (),
            not_installed=self.not_installed,
            waited_s=round(self.waited_s, 1),
            pause_s=round(self._pauses.longest_s, 2),
            left=self.left,
            changes=self.changes,
            actor=ACTOR_ID,
            correlation=CORRELATION,
            foreseen=tuple(
                Foreseen(expectation=entry.expectation, outcome=entry.outcome)
                for entry in self.documented()
                if entry.limit
            ),
        )

    def documented(self) -> list[Documented]:
        """Return what is documented about this case here."""
        mode = self.ctx.mode or "direct"
        return [
            entry
            for entry in self.engine.file.documented
            if entry.case is self.case
            and (not entry.variants or self.variant in entry.variants)
            and (not entry.pool_modes or mode in entry.pool_modes)
            and (not entry.topologies or self.ctx.topology.name in entry.topologies)
        ]

    def record_facts(self) -> None:
        """Record what is documented about what was seen: as a limit, or as advice for an Issue."""
        ctx = self.ctx
        ctx.fact("jobs", f"{len(self.ends)} enqueued")
        ctx.fact("longest pause of the machine", f"{self._pauses.longest_s:.2f} s")
        if exits := self.exits:
            ctx.fact("exits of workers", len(exits))
            ctx.fact("last line of the last exit", exits[-1].last_line)
        # an engine may log an error and go on
        if printed := sorted({code for worker in self._workers.values() for code in worker.sqlstates}):
            ctx.fact("SQLSTATEs that workers printed", ", ".join(printed))
        seen = {found.name for found in ctx.expectations if found.observed not in {"0", "yes"}}
        for entry in self.documented():
            if entry.expectation in seen or (seen and not entry.expectation):
                ctx.fact("instead", entry.instead)
                ctx.fact("source", entry.source)
                if entry.limit:
                    ctx.documented_limit(entry.outcome, entry.source)
                break

    def require_a_responsive_machine(self) -> None:
        """Require that times mean something.

        :raises NotExercisedError: when the machine kept the harness itself waiting.
        """
        if self._pauses.longest_s > TOO_SLOW_S:
            raise NotExercisedError(
                f"the machine kept the harness itself waiting for {self._pauses.longest_s:.1f} s, so times show nothing"
            )


def _client(operation: str) -> int:
    """Return the client of the history that stands for an operation: its numbers are its own."""
    return sum(operation.encode())


def _tail(found: CommandResult) -> str:
    """Return the end of what a command printed."""
    said = found.output.strip()[-_LONGEST_OUTPUT:]
    return f"{said or 'it printed nothing'} ({found.reason or f'exit code {found.exit_code}'})"


def why_failed(found: CommandResult) -> str:
    """Return why a command failed, with its SQLSTATE first if it printed one."""
    lines = found.output.strip().splitlines()
    last = lines[-1].strip()[:200] if lines else "it printed nothing"
    codes = sqlstates_in(found.output)
    said = f"{last} ({found.reason or f'exit code {found.exit_code}'})"
    return f"{codes[-1]}: {said}" if codes else said
