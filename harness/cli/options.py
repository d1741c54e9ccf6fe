"""Options that several commands share, as decorators. Each decorator is one section of `--help`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli import completion
from harness.cli.parser import Duration, OneOf, Option, WholeNumber
from harness.engine.protocol import ENGINE_NAMES
from harness.engine.recipes import PULLS
from harness.engine.storage import LAB_MIB, NEEDED_MIB, ROOMY_MIB, StoragePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_MOST_JOBS = 64
_MOST_ROUNDS = 1000
_LONGEST_SOAK_S = 24 * 3600.0
_MOST_ATTEMPTS = 10_000


def option(*declarations: str, section: str, **attributes: Any) -> Callable[[F], F]:
    """Declare an option in a section of the help text."""
    return click.option(*declarations, cls=Option, section=section, **attributes)


def _all_of(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Apply decorators so that `--help` lists their options in this order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


topologies_argument = click.argument(
    "topologies",
    nargs=-1,
    metavar="[TOPOLOGY]...",
    shell_complete=completion.topology_names,
    help="names from `harness list topologies`; all but those on demand by default",
)

json_output = option("--json", "as_json", is_flag=True, section="Output", help="print JSON")

selection = _all_of(
    topologies_argument,
    option(
        "--suite",
        "suites",
        multiple=True,
        metavar="SUITE",
        section="Selection",
        shell_complete=completion.suite_names,
        help="run only this suite; may be repeated",
    ),
    option(
        "--check",
        "checks",
        multiple=True,
        metavar="CHECK",
        section="Selection",
        shell_complete=completion.check_names,
        help="run only this check; may be repeated",
    ),
    option(
        "--job-engine",
        "job_engines",
        multiple=True,
        metavar="NAME|FILE.toml",
        section="Selection",
        shell_complete=completion.job_engine_names,
        help="run only checks of this job engine, which `harness list job-engines` names or a file describes; may be "
        "repeated",
    ),
    option(
        "--variant",
        "job_variants",
        multiple=True,
        metavar="NAME",
        section="Selection",
        shell_complete=completion.variant_names,
        help="run only checks of this variant of the job engines that --job-engine names; may be repeated",
    ),
    option(
        "--pipeline",
        metavar="NAME|FILE.toml",
        section="Selection",
        shell_complete=completion.pipeline_names,
        help="the ingest pipeline of the suite ingest, which `harness list pipelines` names or a file describes; by "
        "default that of harness.toml, else the reference pipeline",
    ),
    option("--dry-run", is_flag=True, section="Selection", help="print the plan, run nothing"),
)

repeat = option(
    "--repeat",
    type=WholeNumber(1, _MOST_ATTEMPTS),
    default=1,
    metavar="N",
    section="Selection",
    help="try every row N times, and keep each verdict: a row is OK if all attempts are, and flaky if some are an "
    "Issue; 59 attempts without an Issue show that fewer than 5 % fail, with 95 % confidence",
)

engine = option(
    "--engine",
    type=OneOf(ENGINE_NAMES),
    section="Engine",
    help="where servers run: in Docker, or from installed programs; auto, the default, prefers Docker",
)

_servers = _all_of(
    engine,
    option(
        "--storage",
        type=OneOf(tuple(map(str, StoragePolicy))),
        section="Engine",
        help="where servers keep their data; memory: required, disk: without fsync, auto (default): in memory, "
        f"{LAB_MIB} to {ROOMY_MIB} MiB per topology, when {NEEDED_MIB} MiB are available, otherwise on disk",
    ),
)


def _jobs(*, hidden: bool = False) -> Callable[[F], F]:
    return option(
        "--jobs",
        type=WholeNumber(1, _MOST_JOBS),
        metavar="N",
        section="Engine",
        hidden=hidden,
        help="concurrent checks per topology; derived from the number of cores by default",
    )


_load = _all_of(
    option(
        "--rounds",
        type=WholeNumber(1, _MOST_ROUNDS),
        metavar="N",
        section="Load",
        help="how often the suite resilience injects each fault; its checks of jobs have none (default: 1)",
    ),
    option(
        "--for",
        "soak_s",
        type=Duration(_LONGEST_SOAK_S),
        metavar="TIME",
        section="Load",
        help="how long each load of the suite soak lasts, such as 30s, 5m or 2h (default: 30s)",
    ),
)

images = _all_of(
    option(
        "--set",
        "versions",
        multiple=True,
        metavar="PRODUCT=VERSION",
        section="Images",
        help="use another version, such as postgres=15; may be repeated",
    ),
    option(
        "--image",
        "images",
        multiple=True,
        metavar="PRODUCT=REFERENCE",
        section="Images",
        help="use another image for a product; may be repeated",
    ),
    option("--image-prefix", metavar="PREFIX", section="Images", help="prefix of image names, for mirrors"),
    option("--pull", type=OneOf(PULLS), section="Images", help="when to pull images (default: missing)"),
)


_audit_trail = _all_of(
    option(
        "--audit-target",
        metavar="NAME|FILE.toml",
        section="Audit trail",
        shell_complete=completion.target_names,
        help="the audit trail under test (default: reference; see `harness list targets`)",
    ),
    option(
        "--audit-sql",
        multiple=True,
        metavar="FILE",
        section="Audit trail",
        shell_complete=completion.file_names,
        help="SQL that installs the audit trail; may be repeated",
    ),
)


def _strict(*, hidden: bool = False) -> Callable[[F], F]:
    return option("--strict", is_flag=True, section="Evidence", hidden=hidden, help="exit with 4 when a row is Not run")


def _reports(*, hidden: bool = False) -> Callable[[F], F]:
    return option(
        "--reports",
        metavar="DIR",
        section="Evidence",
        hidden=hidden,
        shell_complete=completion.folder_names,
        help="folder of evidence and reports (default: reports)",
    )


verbose = option(
    "--verbose",
    is_flag=True,
    section="Output",
    help="print every row, and every step of a pull or a build; by default what is not OK, and the progress",
)

topologies_folder = option(
    "--topologies-folder",
    metavar="DIR",
    section="Files",
    shell_complete=completion.folder_names,
    help="folder of topology files (default: those of the harness)",
)

# A hidden option has no effect in that command. It stays accepted, because option names are interfaces.

#: options of `mutants`, which judges audit trails of its own
judging_variants = _all_of(_servers, _jobs(), images, _reports(), topologies_folder, verbose)

baseline = option(
    "--baseline",
    metavar="RUN|FILE",
    section="Comparison",
    shell_complete=completion.run_names,
    help="compare with the last release of the audit trail: a file that `report --save-baseline` wrote, or a run; exit "
    "with 1 only for Issues that it does not have (default: NAME.baseline.json next to the target file, if it exists)",
)

#: options of the commands that start servers, run checks and keep evidence
running = _all_of(_servers, _jobs(), _load, images, _audit_trail, _strict(), _reports(), topologies_folder, verbose)

#: the same for `exec`, which runs one row, and never succeeds when that row is Not run
running_one_command = _all_of(
    _servers, _jobs(hidden=True), images, _audit_trail, _strict(hidden=True), _reports(), topologies_folder, verbose
)

#: options of `up`, which starts servers and runs no check
standing = _all_of(_servers, images, topologies_folder)
standing_with_trail = _all_of(_servers, images, _audit_trail, topologies_folder)

#: options of every command that reads topologies and evidence, and starts nothing
reading = _all_of(_reports(), topologies_folder)

#: options of a command that reads topologies only
listing = _all_of(_reports(hidden=True), topologies_folder)
