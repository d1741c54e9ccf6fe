"""Mistakes of a target that a trial shows, each with what to do: for the author of the target, not for evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges.job_state import Effect
from harness.suites.jobs.shadowed import shadowed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_MOST_KEYS = 5
_NO_INTEGER = "invalid input syntax for type integer"
#: undefined table, schema, function and type: what `install` should have created
_MISSING = ("42P01", "3F000", "42883", "42704")


class Mistake(Struct, frozen=True):
    """One mistake."""

    #: one sentence without a full stop
    what: str
    #: what to do
    hint: str


class Seen(Struct, frozen=True, kw_only=True):
    """Everything that a trial saw."""

    #: of the jobs that were to be enqueued
    keys: tuple[int, ...]
    #: the name of the worker
    worker: str
    effects: tuple[Effect, ...] = ()
    #: what the target's SQL says at the end
    states: dict[int, str] = {}
    #: why the SQL could not be used; "" if it could
    state_error: str = ""
    #: why a command failed; "" if it did not
    install_failed: str = ""
    enqueue_failed: str = ""
    #: the jobs that began without what they were enqueued with
    lost_payloads: tuple[int, ...] = ()
    #: one sentence for each exit of the worker
    exits: tuple[str, ...] = ()
    #: what the worker printed
    output: str = ""
    #: what the commands printed
    output_of_commands: str = ""
    #: the files of the target that have the name of a module, by that name
    namesakes: dict[str, str] = {}
    #: how long it went on after SIGTERM, seconds; 0 if it ended
    ignored_sigterm_s: float = 0.0

    def of_phase(self, phase: str) -> list[int]:
        """Return the keys of the effects of a phase, in their order."""
        return [effect.key for effect in self.effects if effect.phase == phase]


def mistakes_in(seen: Seen) -> tuple[Mistake, ...]:
    """Return the mistakes, in the order of a job's life; none when all jobs are done and the engine says the same.

    What follows from another mistake is left out: without a schema, or without its modules, no program can do anything.
    """
    if not seen.of_phase("begin"):
        if hidden := tuple(_hidden(seen)):
            return hidden
        if seen.install_failed:
            return tuple(_commands(seen))
    return tuple(mistake for find in (_commands, _enqueued, _begun, _ended, _states) for mistake in find(seen))


def _hidden(seen: Seen) -> Iterator[Mistake]:
    for name in shadowed(f"{seen.output_of_commands}\n{seen.output}", seen.namesakes):
        yield Mistake(
            f"{seen.namesakes[name]} hides the module `{name}`: Python imports the file in its place",
            "rename the file, or call Python with -P, which leaves the folder of the program out of the search path",
        )


def _commands(seen: Seen) -> Iterator[Mistake]:
    if seen.install_failed:
        yield Mistake(
            f"the command `install` failed: {seen.install_failed}",
            "it creates the schema, and changes nothing when it is called again; PG* and DATABASE_URL are the chain",
        )
    if seen.enqueue_failed:
        yield Mistake(
            f"the command `enqueue` failed: {seen.enqueue_failed}",
            "commit in `install` what it creates: it ended well, and something is missing; then compare the names and the "
            "search_path of both"
            if not seen.install_failed and seen.enqueue_failed.startswith(_MISSING)
            else "{first} and {last} are the keys of the first and the last job, both included; it ends with exit code 0",
        )
    if seen.exits:
        times = "once" if len(seen.exits) == 1 else f"{len(seen.exits)} times"
        yield Mistake(
            f"the worker exited {times}, which nothing asked for: {seen.exits[-1]}",
            "`work` runs in the foreground until SIGTERM, and waits when it finds no job",
        )
    if seen.ignored_sigterm_s:
        yield Mistake(
            f"the worker did not end within {seen.ignored_sigterm_s:g} s of SIGTERM, so SIGKILL ended it",
            "end on SIGTERM; a shell passes it on if its last command is `exec PROGRAM`",
        )


def _enqueued(seen: Seen) -> Iterator[Mistake]:
    reported = set(seen.of_phase("enqueued"))
    missing = [key for key in seen.keys if key not in reported]
    if missing and not seen.enqueue_failed:
        yield Mistake(
            f"`enqueue` did not report {_jobs(missing)} as enqueued",
            _call("enqueued(key)", "job_phase(key, 'enqueued')") + ", once the job is committed",
        )


def _begun(seen: Seen) -> Iterator[Mistake]:
    begun = set(seen.of_phase("begin"))
    if unknown := sorted({effect.key for effect in seen.effects} - set(seen.keys)):
        yield Mistake(
            f"the program reports {_jobs(unknown)}, which nobody enqueued",
            f"pass on the key that the job was enqueued with: {seen.keys[0]} to {seen.keys[-1]}",
        )
    if _NO_INTEGER in seen.output:
        yield Mistake(
            "the worker passed a key that is not an integer",
            "enqueue the key with each job, and pass it to job_begin as a number",
        )
    never = [key for key in _expected(seen) if key not in begun]
    if never:
        yield Mistake(
            f"{_jobs(never)} never began",
            "in each job, " + _call("perform(key, …)", "job_begin(key, …)") + "; `work` looks where `enqueue` writes",
        )
    if seen.lost_payloads:
        yield Mistake(
            f"{_jobs(seen.lost_payloads)} began without the payload",
            "enqueue the JSON object in PAYLOAD with each job, and pass it to job_begin",
        )
    others = sorted({effect.worker for effect in seen.effects if effect.phase == "begin"} - {seen.worker})
    if others:
        yield Mistake(
            f"jobs began on the worker {others[0]!r}, expected {seen.worker!r}",
            "pass WORKER of the environment to job_begin",
        )


def _ended(seen: Seen) -> Iterator[Mistake]:
    done, failed = seen.of_phase("done"), set(seen.of_phase("failed"))
    ends = {*done, *failed}
    if open_ := [key for key in dict.fromkeys(seen.of_phase("begin")) if key not in ends]:
        yield Mistake(
            f"{_jobs(open_)} began, and did not report an end",
            "effects.perform reports the end; in another language, call job_phase(key, 'done') after the work, or "
            "job_phase(key, 'failed') where job_begin says that it fails",
        )
    if failed:
        yield Mistake(
            f"{_jobs(sorted(failed))} reported a failed attempt, which nothing asked for",
            "a job fails only where job_begin returns true in `fails`",
        )
    if twice := sorted({key for key in done if done.count(key) > 1}):
        yield Mistake(
            f"{_jobs(twice)} were done more than once, without a fault"
            if len(twice) > 1
            else f"{_jobs(twice)} was done more than once, without a fault",
            "the program acknowledges a job after its work; `enqueue` creates each job once",
        )


def _states(seen: Seen) -> Iterator[Mistake]:
    if seen.state_error:
        yield Mistake(
            seen.state_error,
            "sql.state runs on the direct connection, in the database of the engine, and returns the key and one of "
            "waiting, running, done, failed and cancelled for each job; a deleted job has no row",
        )
        return
    if unknown := sorted(set(seen.states) - set(seen.keys)):
        yield Mistake(
            f"sql.state returns {_jobs(unknown)}, which nobody enqueued",
            "return the key that the job was enqueued with, and leave other rows of the engine out",
        )
    done = set(seen.of_phase("done"))
    wrong = {key: state for key, state in seen.states.items() if key in done and state != "done"}
    if wrong:
        yield Mistake(
            f"sql.state returns {next(iter(wrong.values()))!r} for {_jobs(sorted(wrong))}, which reported done",
            "the engine has to learn that the job has ended; check the words of the query, too",
        )


def _call(of_kit: str, in_sql: str) -> str:
    """Return what a program calls: with the kit, or in SQL."""
    return (
        f"call effects.{of_kit} with `import effects` in Python, or with `require('effects.cjs')` and `await` in Node; "
        f"in another language {in_sql} in the database of EFFECTS_URL"
    )


def _expected(seen: Seen) -> Iterable[int]:
    """Return the jobs that have to begin: those that `enqueue` reported, if it failed in the middle."""
    return sorted(set(seen.of_phase("enqueued")) & set(seen.keys)) if seen.enqueue_failed else seen.keys


def _jobs(keys: Collection[int]) -> str:
    shown = ", ".join(map(str, list(keys)[:_MOST_KEYS]))
    more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
    return f"job{'' if len(keys) == 1 else 's'} {shown}{more}"
