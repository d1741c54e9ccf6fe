"""`list` and `matrix`: what can be verified, for people and for CI."""

from __future__ import annotations

import itertools
import json
import sys
from shlex import quote
from typing import TYPE_CHECKING, Any

import click
import msgspec

from harness.audit.target_loading import shipped_targets
from harness.cli import options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_product_used
from harness.cli.parser import OneOf
from harness.errors import EngineUnavailableError, UsageError
from harness.ingest import loading as pipelines
from harness.job_engines import loading as job_engines
from harness.job_engines.installation import is_installed
from harness.lab.topologies import load_topologies, with_versions
from harness.mutants.observed import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.settings import Settings
    from harness.ingest.loading import LoadedPipeline
    from harness.job_engines.installable import Installable
    from harness.job_engines.loading import JobEngine
    from harness.model import Topology


# --- list -------------------------------------------------------------------------------------------------


def _topologies(settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "name": topology.name,
            "summary": topology.summary,
            "on_demand": topology.on_demand,
            "postgres": topology.postgres.version,
            "pooler": msgspec.to_builtins(topology.pooler),
        }
        for topology in load_topologies(settings.topologies).values()
    ]


def _suites(settings: Settings) -> list[dict[str, Any]]:
    catalogue = settings.catalogue
    suites = [check.id.partition(".")[0] for check in catalogue.checks]
    return [{"name": suite, "summary": f"{suites.count(suite)} checks"} for suite in catalogue.suites()]


def _checks(settings: Settings) -> list[dict[str, Any]]:
    catalogue = settings.catalogue
    return [
        {
            "name": check.id,
            "summary": check.claim,
            "severity": check.severity.value,
            "section": check.section.value,
            "on_demand": check.on_demand,
            "needs": [need.name for need in check.needs],
            "claims": [feature.value for feature in check.requires_features],
            "quarantine": [msgspec.to_builtins(entry) for entry in settings.quarantine if entry.check == check.id],
            "controls": [{"name": control.name, "at": control.at} for control in catalogue.controls_of(check.id)],
        }
        for check in catalogue.checks
    ]


def _targets(_settings: Settings) -> list[dict[str, Any]]:
    return [{"name": name, "summary": summary} for name, summary in shipped_targets().items()]


def _mutations(settings: Settings) -> list[dict[str, Any]]:
    """Return what `prove` changes in the rows that checks read, with why it is left out for the audit target."""
    return [
        {
            "name": mutation.name,
            "summary": f"a trail that {mutation.what}",
            "column": mutation.column,
            "left_out": mutation.left_out(settings.target),
        }
        for mutation in MUTATIONS
    ]


def _job_engines(settings: Settings) -> list[dict[str, Any]]:
    return [_job_engine(engine) for engine in (*job_engines.shipped(), *settings.job_engines.declared)]


def _job_engine(engine: JobEngine) -> dict[str, Any]:
    installed, reason = _installation(engine)
    return {
        "name": engine.name,
        "summary": f"{engine.file.title} {engine.file.version}: {engine.file.summary}",
        "title": engine.file.title,
        "version": engine.file.version,
        "shipped": engine.shipped,
        "claims": [feature.value for feature in engine.file.claims],
        "variants": {name: variant.summary for name, variant in engine.file.variants.items()},
        "installed": installed,
        "not_run": reason,
    }


def _pipelines(settings: Settings) -> list[dict[str, Any]]:
    """Return the shipped pipelines, and the one of harness.toml."""
    own = (settings.project_pipeline,) if settings.project_pipeline.own_file else ()
    return [_pipeline(one) for one in (*pipelines.shipped(), *own)]


def _pipeline(pipeline: LoadedPipeline) -> dict[str, Any]:
    installed, reason = _installation(pipeline)
    return {
        "name": pipeline.name,
        "summary": ": ".join(filter(None, (pipeline.title, pipeline.file.summary))),
        "title": pipeline.title,
        "shipped": not pipeline.own_file,
        "installed": installed,
        "not_run": reason,
    }


def _installation(subject: Installable) -> tuple[bool, str]:
    """Return whether the packages of a program under test are installed, and why it does not run here, or ""."""
    try:
        return is_installed(subject), ""
    except EngineUnavailableError as error:
        what = ": ".join(filter(None, (error.where, error.what)))
        return False, what + (f"; try: {error.hint}" if error.hint else "")


def _details(row: dict[str, Any]) -> list[str]:
    """Return the lines below a row of a list; few lists have some."""
    if row.get("left_out"):
        return [f"left out: {row['left_out']}"]
    if "installed" not in row:
        return []
    state = "installed" if row["installed"] else "not installed yet: its first run installs it"
    return [
        *([f"claims: {', '.join(row['claims']) or 'none'}"] if "claims" in row else []),
        *(f"variant {name}: {summary}" for name, summary in row.get("variants", {}).items()),
        f"not run here: {row['not_run']}" if row["not_run"] else state,
    ]


_LISTS = {
    "topologies": _topologies,
    "suites": _suites,
    "checks": _checks,
    "targets": _targets,
    "mutations": _mutations,
    "job-engines": _job_engines,
    "pipelines": _pipelines,
}


@command(
    "list",
    section="This machine",
    examples=("harness list", "harness list topologies", "harness list checks --json"),
)
@click.argument(
    "kind",
    required=False,
    type=OneOf(tuple(_LISTS)),
    metavar="[topologies|suites|checks|targets|mutations|job-engines|pipelines]",
    help="what to list; everything by default",
)
@options.json_output
@options.listing
def list_names(invocation: Invocation, kind: str | None, *, as_json: bool) -> int:
    """List topologies, suites, checks, audit targets, mutations, job engines and ingest pipelines.

    The commands, migrations and paths that harness.toml declares are checks of the suites `command`, `migrations` and
    `path`.
    """
    chosen = [kind] if kind else list(_LISTS)
    found = {name: _LISTS[name](invocation.settings) for name in chosen}
    if as_json:
        _print_json(found[kind] if kind else found)
        return ExitCode.OK
    for name in chosen:
        if not kind:
            sys.stdout.write(f"{name}:\n")
        for row in found[name]:
            severity = f"  {row['severity']}" if "severity" in row else ""
            remark = "  (on demand)" if row.get("on_demand") else ""
            remark += "".join(
                f"  (in quarantine until {entry['expires']}: {entry['link']})" for entry in row.get("quarantine", ())
            )
            sys.stdout.write(f"  {row['name']:<34}{severity}  {row['summary']}{remark}\n")
            sys.stdout.writelines(f"  {'':<34}  {line}\n" for line in _details(row))
    return ExitCode.OK


# --- matrix -----------------------------------------------------------------------------------------------


@command(
    "matrix",
    section="This machine",
    examples=("harness matrix", "harness matrix --set postgres=15,17 --set pgbouncer=1.18,1.24"),
)
@options.option(
    "--set",
    "axis",
    multiple=True,
    metavar="PRODUCT=VERSION[,VERSION]",
    section="Jobs",
    help="a job for each of these versions, such as postgres=15,17; may be repeated",
)
@options.option(
    "--all", "on_demand", is_flag=True, section="Jobs", help="include the topologies that run on demand only"
)
@options.option(
    "--environments", is_flag=True, section="Jobs", help="include the environments that harness.toml declares"
)
@options.topologies_folder
def matrix(invocation: Invocation, axis: Sequence[str], *, on_demand: bool, environments: bool) -> int:
    """Print the CI matrix as JSON: one job per topology, or per combination of versions.

    `command` is the command line of a job, `commands` and `paths` name what harness.toml declares and the job runs.
    """
    settings = invocation.settings
    names = list(load_topologies(settings.topologies)) if on_demand else []
    versions_of = _axes(axis)
    topologies = named_topologies(settings, names)
    for product, listed in versions_of.items():
        require_product_used("--set", f"{product}={','.join(listed)}", product, topologies)
    axes = [[(product, version) for version in listed] for product, listed in versions_of.items()]
    jobs: dict[str, dict[str, str]] = {}
    for declared in topologies:
        for versions in itertools.product(*axes):
            job = _topology_job(declared, dict(versions), settings)
            jobs.setdefault(job["environment"], job)
    if environments:
        jobs |= {name: _environment_job(name, settings) for name in settings.environments}
    _print_json({"include": list(jobs.values())})
    return ExitCode.OK


def _topology_job(declared: Topology, versions: dict[str, str], settings: Settings) -> dict[str, str]:
    topology = with_versions(declared, versions)
    pooler = topology.pooler
    arguments = " ".join(
        f"--set {product}={version}"
        for product, version in versions.items()
        if product == "postgres" or (pooler and pooler.product == product)
    )
    commands = [
        command.name
        for command in settings.commands
        if declared.name in (command.topologies or (declared.name,)) and declared.verifies(f"command.{command.name}")
    ]
    return {
        "topology": declared.name,
        "environment": topology.name,
        "session": f"topology-{declared.name}",
        "arguments": arguments,
        "postgres": topology.postgres.version,
        "pooler": f"{pooler.product} {pooler.version}" if pooler else "none",
        "command": f"python -m harness verify {declared.name} {arguments}".rstrip(),
        "commands": " ".join(commands),
        "paths": "",
    }


def _environment_job(name: str, settings: Settings) -> dict[str, str]:
    """Return the job of an environment; its `session` is empty, because Nox has sessions for topologies only."""
    paths = [path.name for path in settings.paths if not path.environments or name in path.environments]
    return {
        "topology": "",
        "environment": name,
        "session": "",
        "arguments": f"--environment {quote(name)}",
        "postgres": "",
        "pooler": "",
        "command": f"python -m harness verify --environment {quote(name)}",
        "commands": "",
        "paths": " ".join(paths),
    }


def _axes(values: Sequence[str]) -> dict[str, list[str]]:
    """Return the versions of each product; `postgres=15,17` equals the option given twice.

    :raises UsageError: for a value of another form.
    """
    axes: dict[str, list[str]] = {}
    for text in values:
        product, separator, versions = text.partition("=")
        if not separator or not product or not all(versions.split(",")):
            raise UsageError(
                f"--set: found {text!r}, expected PRODUCT=VERSION[,VERSION]", hint="harness matrix --set postgres=15,17"
            )
        axes.setdefault(product, []).extend(versions.split(","))
    return axes


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
