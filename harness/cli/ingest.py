"""`ingest try`: one upload of a pipeline, shown step by step, for the author of its description."""

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
from harness.ingest.loading import find
from harness.job_engines.installation import install, is_installed
from harness.printable import one_line
from harness.store import new_run_id
from harness.suites.ingest.trial import Trial, try_pipeline

if TYPE_CHECKING:
    from harness.ingest.pipeline_file import Settings

_TOPOLOGY = "direct"
#: of the name of a step
_WIDTH = 10


@command(
    "try",
    examples=(
        "harness ingest try reference",
        "harness ingest try path/to/mine.toml",
        "harness ingest try path/to/mine.toml transaction",
    ),
    exit_codes=(
        ("0", "the upload was indexed, and nothing is wrong"),
        ("1", "the upload was not indexed, or a mistake was found"),
        ("2", "invalid usage or configuration, such as a pipeline file with an unknown key"),
        ("3", "nothing was tried: packages, servers, the object store or a topology are not available"),
    ),
)
@click.argument(
    "named",
    required=False,
    default="",
    metavar="[NAME|FILE.toml]",
    shell_complete=completion.pipeline_names,
    help="a name from `harness list pipelines`, or the path of a file of your own (default: that of harness.toml)",
)
@click.argument(
    "topology",
    required=False,
    default=_TOPOLOGY,
    metavar="[TOPOLOGY]",
    shell_complete=completion.topology_names,
    help=f"a name from `list topologies` (default: {_TOPOLOGY})",
)
@options.standing
def try_ingest(invocation: Invocation, named: str, topology: str) -> int:
    """Upload one file to a pipeline, and show each step.

    Installs the packages, starts the topology and an object store, migrates an empty database, starts API and worker,
    asks for an address, and uploads a file there. Each state of its row and each request of the pipeline to the store
    is a line, with the seconds since the upload. What is wrong is named, with the file and the key if the description
    is. Nothing is evidence: `harness verify TOPOLOGY --suite ingest --pipeline NAME|FILE.toml` runs the checks.
    """
    settings, terminal, redact = invocation.settings, invocation.terminal, invocation.redactor
    tried = find(named, settings.project_pipeline.store) if named else settings.pipeline
    (chosen,) = named_topologies(settings, [topology])
    require_used(settings, [chosen])
    if not is_installed(tried):
        terminal.say(f"installing the packages of {tried.title}")
    installed = install(tried, terminal)
    versions = ", ".join(f"{name} {version}" for name, version in installed.versions.items())
    _print("pipeline", f"{tried.title}{f' ({versions})' if versions else ''}")
    _print("settings", _settings(tried.file.settings))
    stop = Event()
    with (
        standing(invocation, chosen, Owner.me(new_run_id()), stop) as lab,
        trying(invocation, lab, "ingest.try", stop) as ctx,
    ):
        trial = try_pipeline(ctx, tried, lambda step, seen: _print(step, one_line(redact(seen))))
        for fact in ("store", "left behind"):
            if said := ctx.facts.get(fact):
                _print(fact, one_line(redact(said)))
    is_sound = not trial.wrong and trial.indexed_s is not None
    print_wrong([f"wrong: {sentence}" for sentence in trial.wrong], {} if is_sound else trial.output, redact)
    if trial.wrong and chosen.pooler:
        terminal.say(
            f"is it the pipeline or the pooler? harness ingest try {quote(named or tried.name)} runs the same on "
            f"{_TOPOLOGY}"
        )
    sys.stdout.write(f"{verdict(trial)}\n")
    return ExitCode.OK if is_sound else ExitCode.ISSUE


def _settings(settings: Settings) -> str:
    lease = f"lease {settings.lease_s:g} s" if settings.lease_s else "no lease"
    delays = f"delays {settings.shortest_delay_s:g} to {settings.longest_delay_s:g} s"
    return f"{lease}, poll {settings.poll_s:g} s, {settings.attempts} attempts, {delays}"


def _print(step: str, seen: str) -> None:
    sys.stdout.write(f"{step:<{_WIDTH}}  {seen}\n")
    sys.stdout.flush()


def verdict(trial: Trial) -> str:
    """Return the end of a trial in one sentence without a full stop."""
    number = len(trial.wrong)
    found = "1 thing is wrong" if number == 1 else f"{number} things are wrong"
    if trial.indexed_s is None:
        return f"the upload was not indexed: {found}" if number else "the upload was not indexed"
    indexed = f"the upload was indexed after {trial.indexed_s:.2f} s"
    return f"{indexed}, but {found}" if number else f"{indexed}, and nothing is wrong"


ingest = Group(
    "ingest",
    section="Your own systems",
    help="Try an ingest pipeline.",
    examples=("harness ingest try reference", "harness ingest try path/to/mine.toml transaction"),
    commands=[try_ingest],
)
