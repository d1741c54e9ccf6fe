"""A trial of a job engine: ten jobs and one worker, shown as they happen. It decides nothing, and is not evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.record import NotExercisedError
from harness.job_engines.target_file import Case
from harness.suites.jobs.effects import keys_of
from harness.suites.jobs.mistakes import Mistake, Seen, mistakes_in
from harness.suites.jobs.programs import WORKERS, why_failed
from harness.suites.jobs.running import JobRun
from harness.suites.jobs.shadowed import namesakes
from harness.suites.jobs.states import StateQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.checks.context import CheckContext
    from harness.checks.judges.job_state import Effect
    from harness.job_engines.loading import JobEngine

KEYS = tuple(range(1, 11))
_WORKER = WORKERS[0]
#: the engine learns that a job has ended within, seconds
_SETTLES_S = 5.0
#: a worker that exits so often before any job began does not recover
_HOPELESS = 3


class TriedJob(Struct, frozen=True, kw_only=True):
    """One job of a trial. Times are in seconds; None for a phase that was not reported."""

    key: int
    #: after the first job was enqueued
    enqueued_s: float | None
    #: after it was enqueued
    begun_s: float | None
    done_s: float | None
    worker: str
    #: of its last begin
    attempt: int | None
    #: as the target's SQL says it; "deleted" without a row
    state: str


class Trial(Struct, frozen=True, kw_only=True):
    """The end of a trial."""

    mistakes: tuple[Mistake, ...]
    done: int
    #: the last lines of each program that printed some, by its command
    output: dict[str, str]


def try_jobs(
    ctx: CheckContext, engine: JobEngine, variant: str, show: Callable[[TriedJob], None], say: Callable[[str], None]
) -> Trial:
    """Create the schema, enqueue ten jobs, run one worker, and return what is wrong.

    It ends after an installation that failed, unless a pooler refused it and the direct connection did not.

    :param show: called with each job, once it is done and the engine knows it; with the others at the end.
    :param say: called with each step.
    :raises NotExercisedError: when the run is interrupted, or packages are missing.
    """
    with JobRun(ctx, engine, variant, Case.WORKS) as run:
        return _Follow(run, show).through(say)


class _Follow:
    """Follows the jobs of one trial."""

    def __init__(self, run: JobRun, show: Callable[[TriedJob], None]) -> None:
        self._run = run
        self._show = show
        self._shown: set[int] = set()
        self._state_error = ""

    def through(self, say: Callable[[str], None]) -> Trial:
        run = self._run
        say("creating the schema")
        try:
            run.use_own_database()
        except NotExercisedError as error:
            run.ctx.require_undisturbed()
            return self._ended(install_failed=str(error))
        if run.not_installed and not run.ctx.lab.topology.pooler:
            return self._ended(install_failed=run.not_installed)
        say(f"enqueueing jobs {KEYS[0]} to {KEYS[-1]}")
        found = run.enqueue(KEYS[0], KEYS[-1])
        enqueue_failed = "" if found.exit_code == 0 else why_failed(found)
        run.ctx.require_undisturbed()
        wanted = keys_of(run.effects(), "enqueued") & set(KEYS) if enqueue_failed else set(KEYS)
        start_failed = ""
        if wanted:
            say("running one worker")
            try:
                run.start_worker(_WORKER)
            except NotExercisedError as error:
                start_failed = str(error)
            else:
                run.wait_until_done(*sorted(wanted), look=self._look)
                self._settle()
                run.worker(_WORKER).stop()
        return self._ended(install_failed=run.not_installed, enqueue_failed=enqueue_failed, start_failed=start_failed)

    def _look(self, effects: tuple[Effect, ...]) -> bool:
        """Show the jobs that are done and that the engine knows to be done, and return whether to go on."""
        fresh = keys_of(effects, "done") - self._shown
        if fresh & set(KEYS):
            states = self._states()
            self._show_all((key for key in fresh if states.get(key, "done") == "done"), effects, states)
        return len(self._run.exits) < _HOPELESS or bool(keys_of(effects, "begin"))

    def _settle(self) -> None:
        """Give the engine time to learn that jobs have ended."""
        run = self._run
        if not self._state_error:
            run.wait(
                lambda effects: all(self._states().get(key, "done") == "done" for key in keys_of(effects, "done")),
                "the engine to know of the end of its jobs",
                _SETTLES_S,
            )

    def _states(self) -> dict[int, str]:
        if self._state_error:
            return {}
        try:
            return self._run.states()
        except StateQueryError as error:
            self._state_error = str(error)
            return {}

    def _ended(self, *, install_failed: str, enqueue_failed: str = "", start_failed: str = "") -> Trial:
        run = self._run
        effects = run.effects()
        states = self._states() if effects else {}
        if effects:
            self._show_all((key for key in KEYS if key not in self._shown), effects, states)
        worker = run.worker(_WORKER) if run.has_workers else None
        exits = tuple(
            f"{'not started again' if one.exit_code is None else f'exit code {one.exit_code}'} after {one.ran_s:.1f} s: "
            f"{one.last_line or 'it printed nothing'}"
            for one in run.exits
        )
        facts = run.ctx.facts
        output = {
            "install": facts.get("installation through the chain", ""),
            "enqueue": facts.get("output of enqueue", ""),
            "work": worker.output if worker else "",
        }
        mistakes = mistakes_in(
            Seen(
                keys=KEYS,
                worker=_WORKER,
                effects=effects,
                states=states,
                state_error=self._state_error,
                install_failed=install_failed,
                enqueue_failed=enqueue_failed,
                lost_payloads=run.lost_payloads(),
                exits=(*exits, *filter(None, (start_failed,))),
                output=output["work"],
                output_of_commands=f"{output['install']}\n{output['enqueue']}",
                namesakes=namesakes(run.engine),
                ignored_sigterm_s=worker.ignored_sigterm_s if worker else 0.0,
            )
        )
        return Trial(
            mistakes=mistakes,
            done=len(keys_of(effects, "done") & set(KEYS)),
            output={which: text for which, text in output.items() if text.strip()},
        )

    def _show_all(self, keys: Iterable[int], effects: tuple[Effect, ...], states: dict[int, str]) -> None:
        for key in keys:
            if key in KEYS:
                self._show(tried_job(key, effects, states, known=not self._state_error))
                self._shown.add(key)


def tried_job(key: int, effects: tuple[Effect, ...], states: dict[int, str], *, known: bool = True) -> TriedJob:
    """Return when a job reported its phases, and its state.

    :param known: whether the target's SQL could be used.
    """
    first = min((effect.seconds for effect in effects if effect.phase == "enqueued"), default=None)
    own = [effect for effect in effects if effect.key == key]
    begins = [effect for effect in own if effect.phase == "begin"]
    at = {effect.phase: effect.seconds for effect in reversed(own)}  # the first of each phase
    enqueued = at.get("enqueued")

    def after(seconds: float | None, since: float | None) -> float | None:
        # a worker may begin a job before its enqueueing is reported
        return None if seconds is None or since is None else max(0.0, round(seconds - since, 3))

    seen_by_engine = states.get(key, "deleted" if "done" in at else "unknown") if known else "unknown"
    return TriedJob(
        key=key,
        enqueued_s=after(enqueued, first),
        begun_s=after(at.get("begin"), enqueued),
        done_s=after(at.get("done"), enqueued),
        worker=begins[-1].worker if begins else "",
        attempt=begins[-1].attempt if begins else None,
        state=seen_by_engine,
    )
