"""`jobs try`: ten jobs of one job engine, shown as they happen, for the author of its target file."""

from __future__ import annotations

import sys
from shlex import quote
from threading import Event
from typing import TYPE_CHECKING

import click

from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.parser import Group
from harness.cli.standing import standing
from harness.cli.trying import print_wrong, trying
from harness.engine.owner import Owner
from harness.job_engines.installation import install, is_installed
from harness.printable import one_line
from harness.store import new_run_id
from harness.suites.jobs.trial import KEYS, TriedJob, try_jobs

if TYPE_CHECKING:
    from harness.job_engines.loading import JobEngine
    from harness.suites.jobs.trial import Trial

_TOPOLOGY = "direct"
#: heading and width of each column
_COLUMNS = (
    ("key", 3),
    ("enqueued", 9),
    ("begun after", 11),
    ("done after", 10),
    ("worker", 6),
    ("attempt", 7),
    ("state", 0),
)


@command(
    "try",
    examples=(
        "harness jobs try absurd",
        "harness jobs try path/to/mine.toml",
        "harness jobs try path/to/mine.toml transaction --variant pooler",
    ),
    exit_codes=(
        ("0", "all jobs were done, and nothing is wrong"),
        ("1", "a job was not done, or a mistake of the target was found"),
        ("2", "invalid usage or configuration, such as a target file with an unknown key"),
        ("3", "nothing was tried: packages, servers or a topology are not available"),
    ),
)
@click.argument(
    "job_engine",
    metavar="NAME|FILE.toml",
    shell_complete=completion.job_engine_names,
    help="a name from `harness list job-engines`, or the path of a file of your own",
)
@click.argument(
    "topology",
    required=False,
    default=_TOPOLOGY,
    metavar="[TOPOLOGY]",
    shell_complete=completion.topology_names,
    help=f"a name from `list topologies` (default: {_TOPOLOGY})",
)
@options.option(
    "--variant",
    metavar="NAME",
    section="Selection",
    shell_complete=completion.variant_names,
    help="a variant of the target; by default its first one",
)
@options.standing
def try_job_engine(invocation: Invocation, job_engine: str, topology: str, *, variant: str | None) -> int:
    """Run ten jobs of a job engine on one worker, and show each of them.

    Installs the packages, starts the topology, creates the schema, enqueues ten jobs and starts a worker. Each line is
    a job once it is done: when it was enqueued, how many seconds later it began and was done, its worker and attempt,
    and its state as the target's SQL says it. Each mistake of the target is named, with what to do. Nothing is
    evidence: `harness verify TOPOLOGY --job-engine NAME|FILE.toml` runs the checks.
    """
    settings, terminal = invocation.settings, invocation.terminal
    engine_under_test = settings.job_engines.find(job_engine)
    chosen_variant = variant or next(iter(engine_under_test.file.variants))
    described = engine_under_test.variant(chosen_variant)
    (chosen,) = named_topologies(settings, [topology])
    require_used(settings, [chosen])
    title = engine_under_test.file.title
    if not is_installed(engine_under_test):
        terminal.say(f"installing the packages of {title}")
    installed = install(engine_under_test, terminal)
    versions = ", ".join(f"{name} {version}" for name, version in installed.versions.items())
    sys.stdout.write(f"job engine  {title} {engine_under_test.file.version}{f' ({versions})' if versions else ''}\n")
    sys.stdout.write(f"variant     {chosen_variant}: {described.summary}\n")
    sys.stdout.write(f"settings    {_settings(engine_under_test, chosen_variant)}\n")
    stop = Event()
    with (
        standing(invocation, chosen, Owner.me(new_run_id()), stop) as lab,
        trying(invocation, lab, "jobs.try", stop) as ctx,
    ):
        trial = try_jobs(ctx, engine_under_test, chosen_variant, _Table().show, terminal.say)
    wrong = [line for mistake in trial.mistakes for line in (f"wrong: {mistake.what}", f"  try: {mistake.hint}")]
    programs = {f"`{which}`": text for which, text in trial.output.items()}
    is_sound = not trial.mistakes and trial.done == len(KEYS)
    print_wrong(wrong, {} if is_sound else programs, invocation.redactor)
    if trial.mistakes and chosen.pooler:
        terminal.say(
            f"is it the target or the pooler? harness jobs try {quote(job_engine)} runs the same on {_TOPOLOGY}"
        )
    sys.stdout.write(f"{verdict(trial, behind_a_pooler=chosen.pooler is not None)}\n")
    return ExitCode.OK if is_sound else ExitCode.ISSUE


def _settings(engine: JobEngine, variant: str) -> str:
    settings = engine.settings_of(variant)
    lease = f"lease {settings.lease_s:g} s" if settings.lease_s else "no lease"
    return (
        f"{lease}, poll {settings.poll_s:g} s, idle pick-up {settings.idle_s:g} s, concurrency {settings.concurrency}, "
        f"{settings.attempts} attempts"
    )


class _Table:
    """Prints jobs as they come, and the headings before the first one."""

    def __init__(self) -> None:
        self._has_headings = False

    def show(self, job: TriedJob) -> None:
        if not self._has_headings:
            _print_row([heading for heading, _ in _COLUMNS])
            self._has_headings = True
        _print_job(job)


def _print_job(job: TriedJob) -> None:
    times = ["-" if seconds is None else f"{seconds:.2f} s" for seconds in (job.enqueued_s, job.begun_s, job.done_s)]
    attempt = "-" if job.attempt is None else str(job.attempt)
    _print_row([str(job.key), *times, one_line(job.worker) or "-", attempt, job.state])


def _print_row(cells: list[str]) -> None:
    line = "  ".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.flush()


def verdict(trial: Trial, *, behind_a_pooler: bool) -> str:
    """Return the end of a trial in one sentence without a full stop."""
    done, number = f"{trial.done} of {len(KEYS)} jobs were done", len(trial.mistakes)
    sound = trial.done == len(KEYS)
    if not number:
        return f"{done}, and nothing is wrong" if sound else f"{done}, and no mistake of the target was recognised"
    if behind_a_pooler:  # the target, or what the pooler does to it
        found = "1 thing is wrong" if number == 1 else f"{number} things are wrong"
    else:
        found = f"the target has {number} mistake{'' if number == 1 else 's'}"
    return f"{done}, but {found}" if sound else f"{done}: {found}"


jobs = Group(
    "jobs",
    section="Your own systems",
    help="Try a job engine.",
    examples=("harness jobs try absurd", "harness jobs try path/to/mine.toml transaction"),
    commands=[try_job_engine],
)
