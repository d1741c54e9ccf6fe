"""The plan of a run: every row that it owes an answer to, with the command that reproduces the row."""

from __future__ import annotations

import hashlib
import itertools
import sys
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from harness import places
from harness.checks.environment_workspace import NOT_SAFE
from harness.checks.load import LoadSettings
from harness.checks.registry import Safety
from harness.job_engines.installation import missing_here
from harness.job_engines.loading import shipped as shipped_job_engines
from harness.lab.host import HOST
from harness.lab.links import LINK
from harness.lab.topologies import wanted_by
from harness.model import TRAIL, EvidenceClass, PlannedCheck, RunRecord, Section, Subject
from harness.provenance import provenance
from harness.redaction import MASK, Redactor
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.checks.registry import Check
    from harness.cli.settings import Settings
    from harness.engine.protocol import Engine
    from harness.host.declarations import PathDeclaration
    from harness.model import Topology


def plan_topologies(
    topologies: Iterable[Topology],
    checks: tuple[Check, ...],
    engine: Engine | None,
    settings: Settings,
    *,
    named: bool = False,
    under: str = "",
    repeat: int = 1,
) -> tuple[PlannedCheck, ...]:
    """Return every row with the command that reproduces it; the command names everything that decides the result.

    :param engine: None before one is chosen.
    :param named: the user named suites or checks, so they also run in topologies whose `verify` leaves them out.
    :param under: name of the control that every row runs under.
    :param repeat: the number of attempts of every row.
    """
    shipped = not folder_of_topologies(settings)
    # a project that installs the harness as a package has no such Nox session
    has_sessions = shipped and Path.cwd().resolve() == places.SHIPPED.resolve()

    topologies = tuple(topologies)
    options = {topology.name: _options(settings, engine, topology) for topology in topologies}

    def command(topology: Topology, check: Check) -> str:
        base = topology.name.partition("+")[0]
        extra = f" --under {under}" if under else f" --repeat {repeat}" if repeat > 1 else ""
        extra += _load_options(check, settings.load)
        extra += _job_engine_option(check, settings) + _pipeline_option(check, settings) + options[topology.name]
        if has_sessions:
            return f"nox -s topology-{base} -- --check {check.id}{extra}"
        folder = "" if shipped else f" --topologies-folder {quote(str(settings.topologies))}"
        return f"python -m harness verify {base} --check {check.id}{folder}{extra}"

    digests = {f"command.{declared.name}": _digest(declared) for declared in settings.commands}
    digests |= {check: _digest(declared) for declared in settings.migrations for check in declared.checks}
    digests |= {check.id: settings.job_engines.fingerprint_of(check.job.engine) for check in checks if check.job}
    digests |= {check.id: settings.pipeline.identity for check in checks if check.ingest}
    rows = [
        (topology.name, check, command(topology, check))
        for topology in topologies
        for check in checks
        if _runs_in(check, topology, settings) and (named or (topology.verifies(check.id) and not check.on_demand))
    ]
    # nobody asked for these job engines by name, so a machine without their Python or programs owes no answer; Node is
    # not looked for, because its wheel can be installed with their packages
    asked = {check.job.engine for _, check, _ in rows if check.job and not named}
    missing = {engine.name: missing_here(engine) for engine in shipped_job_engines() if engine.name in asked}
    return tuple(
        replace(
            row,
            declared_as=digests.get(row.check, ""),
            attempts=repeat,
            out_of_scope=row.out_of_scope or (missing.get(row.job.engine, "") if row.job else ""),
        )
        for row in (planned(*cells) for cells in rows)
    )


def folder_of_topologies(settings: Settings) -> str:
    """Return the folder of topology files as it is named; "" for the shipped one."""
    shipped = settings.topologies.resolve() == places.TOPOLOGIES.resolve()
    return "" if shipped else str(settings.topologies)


def _runs_in(check: Check, topology: Topology, settings: Settings) -> bool:
    """Say whether a check runs in topologies at all, and in this one, as far as harness.toml declares it."""
    # paths of the user's own host run in the user's environments
    if check.path and check.path.name in {path.name for path in settings.paths}:
        return False
    limited = {f"command.{command.name}": command.topologies for command in settings.commands if command.topologies}
    return check.id not in limited or topology.name.partition("+")[0] in limited[check.id]


def plan_environment(name: str, checks: tuple[Check, ...], settings: Settings) -> tuple[PlannedCheck, ...]:
    """Return the rows of an environment: all checks, and those paths that are declared for it.

    The order is the order of execution. Checks that search for leftovers of others come last.
    """
    extra = _options(settings, None, None)
    declared = {path.name: path for path in settings.paths}
    rows = []
    for check in sorted(checks, key=lambda check: check.last):
        if check.path:
            path = declared.get(check.path.name)
            if path is None or (path.environments and name not in path.environments):
                continue  # a path of the reference host, or of another environment
        elif check.job or check.section in {Section.COMMANDS, Section.MIGRATIONS, Section.INGEST}:
            continue  # job engines, commands, migrations and pipelines run behind topologies
        command = f"python -m harness verify --environment {name} --check {check.id}{extra}"
        rows.append(
            replace(
                planned(name, check, command),
                evidence_class=EvidenceClass.HOST,
                out_of_scope=_out_of_scope(check, declared),
            )
        )
    return tuple(rows)


def _out_of_scope(check: Check, declared: Mapping[str, PathDeclaration]) -> str:
    """Return why nobody owes a check in an environment that others use; "" for a check that is owed there."""
    if check.environment_safety is Safety.NO:
        return NOT_SAFE
    path = declared[check.path.name] if check.path else None
    if check.path and path and not path.not_applicable:
        # without a failing variant of the path, only a broken server would make it fail
        breaks_servers = {"no-trigger": True, "failure": path.fails is None}
        return NOT_SAFE if breaks_servers.get(check.path.aspect) else ""
    return ""


def declared_as(name: str, settings: Settings) -> str:
    """Return a digest of the declaration of an environment; it covers the names of secrets, not their values."""
    paths = [path for path in settings.paths if not path.environments or name in path.environments]
    return _digest([settings.environments[name], paths])


def _digest(declared: object) -> str:
    return hashlib.sha256(msgspec.json.encode(declared, order="deterministic")).hexdigest()[:16]


def _load_options(check: Check, load: LoadSettings) -> str:
    """Return the options that decide how long and how often a check under load or faults runs."""
    usual, options = LoadSettings(), ""
    if check.rounds and load.rounds != usual.rounds:
        options += f" --rounds {load.rounds}"
    if check.loads and load.soak_s != usual.soak_s:
        options += f" --for {load.soak_s:g}s"
    return options


def _job_engine_option(check: Check, settings: Settings) -> str:
    """Return the option that names the file of the job engine of a check, if only an option does."""
    words = settings.job_engines.option_for(check.job.engine) if check.job else ()
    return "".join(f" {quote(word)}" for word in words)


def _pipeline_option(check: Check, settings: Settings) -> str:
    """Return the option that names the pipeline of a check, if only an option does."""
    return f" --pipeline {quote(settings.pipeline_named)}" if check.ingest and settings.pipeline_named else ""


def _options(settings: Settings, engine: Engine | None, topology: Topology | None) -> str:
    # Docker is what a command without --engine prefers
    chosen = f" --engine {engine.name}" if engine and engine.name != "docker" else ""
    return chosen + chosen_options(settings, topology)


def chosen_options(settings: Settings, topology: Topology | None) -> str:
    """Return the options that decide which servers start and which trail is judged, quoted for a shell.

    :param topology: whose servers start; None for an environment, where none does.
    """
    used = {wanted.product for wanted in (*wanted_by(topology), HOST, LINK)} if topology else set()
    extra = "".join(f" --set {product}={version}" for product, version in settings.versions.items() if product in used)
    extra += "".join(
        f" --image {quote(f'{name}={image}')}"
        for name, image in settings.images.override.items()
        if name.partition(":")[0] in used
    )
    extra += f" --image-prefix {quote(settings.images.prefix)}" if settings.images.prefix and topology else ""
    extra += "" if settings.target.is_reference else f" --audit-target {quote(settings.target_named)}"
    return extra + "".join(f" --audit-sql {quote(path)}" for path in settings.target_sql)


def planned(topology: str, check: Check, reproduce: str) -> PlannedCheck:
    return PlannedCheck(
        target=topology,
        check=check.id,
        claim=check.claim,
        section=check.section,
        severity=check.severity,
        area=check.area,
        feature=check.feature,
        path=check.path,
        job=check.job,
        ingest=check.ingest,
        out_of_scope=check.out_of_scope,
        reproduce=reproduce,
    )


def exec_command(topology: str, command: tuple[str, ...], options: str = "") -> str:
    """Return the command line that runs a command behind a topology again."""
    return f"python -m harness exec {topology}{options} -- {join(command)}"


def new_record(
    run_id: str,
    settings: Settings,
    plan: tuple[PlannedCheck, ...],
    engine: Engine | None = None,
    *,
    under: str = "",
    subjects: Mapping[str, Subject] | None = None,
) -> RunRecord:
    """Return the record of a run that begins.

    :param engine: None when the harness starts no server; the evidence is then of class host.
    :param under: name of the control that every row runs under.
    :param subjects: the identity of each foreign command, by the id of its check.
    """
    target = settings.target
    trail = Subject(
        facts={"name": target.name, "files": target.fingerprint},
        covers="the target's file and the SQL that installs it",
    )
    return RunRecord(
        run_id=run_id,
        started_at=utc_now(),
        argv=_without_secrets(("harness", *sys.argv[1:])),
        provenance=provenance(),
        evidence_class=EvidenceClass.CI if engine else EvidenceClass.HOST,
        engine=engine.name if engine else "attached",
        engine_version=engine.version if engine else "",
        audit_target=target.identity,
        subjects={TRAIL: trail, **(subjects or {})},
        plan=plan,
        under=under,
        topologies_folder=folder_of_topologies(settings) if engine else "",
    )


def _without_secrets(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Redact a command line for the evidence; an option decides whether the argument after it is a secret."""
    redact = Redactor()
    return tuple(
        MASK if before.startswith("-") and MASK in redact(f"{before} {argument}") else redact(argument)
        for before, argument in itertools.pairwise(("", *arguments))
    )
