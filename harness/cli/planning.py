"""What will run, and what is known: plans with the command that reproduces each row, and the evidence at hand."""

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
from harness.checks.execution import accept_known
from harness.config import nearest
from harness.errors import ConfigError, UsageError
from harness.lab.topologies import load_topologies, select, with_versions
from harness.model import EvidenceClass, PlannedCheck, RunRecord, Topology
from harness.provenance import fingerprint, provenance
from harness.redaction import MASK, Redactor
from harness.report.evidence import Evidence, merge
from harness.store import kept_runs, read_runs, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.registry import Check
    from harness.cli.settings import Settings
    from harness.engine.protocol import Engine


def named_topologies(settings: Settings, names: list[str]) -> list[Topology]:
    """Return the named topologies; with other versions than declared they are environments of their own."""
    known = load_topologies(settings.topologies)
    verified = {each.id for each in settings.catalogue.checks} | set(settings.catalogue.suites())
    for topology in known.values():
        for name in topology.verify:
            if name not in verified:
                raise ConfigError(
                    f"verify: there is no suite and no check {name!r}",
                    where=str(settings.topologies / f"{topology.name}.toml"),
                    hint=nearest(name, verified),
                )
        if topology.name in settings.environments:
            raise ConfigError(
                f"environments: {topology.name} is the name of a topology; an environment needs one of its own",
                where="harness.toml",
            )
    for command in settings.commands:
        for name in command.topologies:
            if name not in known:
                raise ConfigError(
                    f"commands: {command.name}: there is no topology {name!r}",
                    where="harness.toml",
                    hint=nearest(name, known),
                )
    for name in names:
        if name in settings.environments:
            raise UsageError(f"{name} is an environment, and no topology", hint=f"verify --environment {name}")
    chosen = select(known, [name.partition("+")[0] for name in names])
    return [with_versions(topology, settings.versions) for topology in chosen]


def plan_topologies(
    topologies: Iterable[Topology],
    checks: tuple[Check, ...],
    engine: Engine | None,
    settings: Settings,
    *,
    named: bool = False,
) -> tuple[PlannedCheck, ...]:
    """Return every row with the command that reproduces it: it names whatever decides the result.

    :param named: the user asked for something by name, so it is run also where it is not what a topology is there for.
    """
    extra = _options(settings, engine)
    shipped = settings.topologies.resolve() == places.TOPOLOGIES.resolve()

    # where this project is installed into another, there is no such session
    has_sessions = shipped and Path.cwd().resolve() == places.SHIPPED.resolve()

    def command(topology: Topology, check: Check) -> str:
        base = topology.name.partition("+")[0]
        if has_sessions:
            return f"nox -s topology-{base} -- --check {check.id}{extra}"
        folder = "" if shipped else f" --topologies-folder {quote(str(settings.topologies))}"
        return f"python -m harness verify {base} --check {check.id}{folder}{extra}"

    mine = {f"path.{each.name}" for each in settings.paths}
    limited = {f"command.{each.name}": each.topologies for each in settings.commands if each.topologies}
    digests = {f"command.{each.name}": _digest(each) for each in settings.commands}
    return tuple(
        replace(planned(topology.name, each, command(topology, each)), declared_as=digests.get(each.id, ""))
        for topology in topologies
        for each in checks
        # the paths of the operator's own host are taken in the operator's environments
        if not (each.path and f"path.{each.path.name}" in mine)
        and topology.name.partition("+")[0] in limited.get(each.id, (topology.name.partition("+")[0],))
        # what a topology is there for, unless the user asks for something by name
        and (named or topology.verifies(each.id))
    )


def plan_environment(
    name: str, checks: tuple[Check, ...], settings: Settings, *, everything: bool = True
) -> tuple[PlannedCheck, ...]:
    """Return what is owed about an environment: all checks, and of the paths those that are declared for it.

    Checks are run in this order there, so those that look for what others left come last.
    """
    extra = _options(settings, None)
    declared = {each.name: each for each in settings.paths}
    found = []
    for each in sorted(checks, key=lambda check: check.last):
        if each.path:
            path = declared.get(each.path.name)
            if path is None or (path.environments and name not in path.environments):
                continue  # the reference host's paths are no paths of this host
        elif each.id.startswith("command."):
            continue  # commands are run behind topologies
        elif not everything and each.safe == "no":
            continue
        command = f"python -m harness verify --environment {name} --check {each.id}{extra}"
        found.append(replace(planned(name, each, command), evidence_class=EvidenceClass.HOST))
    return tuple(found)


def declared_as(name: str, settings: Settings) -> str:
    """Return a digest of what harness.toml says of an environment; secrets are not in it, only their names."""
    paths = [each for each in settings.paths if not each.environments or name in each.environments]
    return _digest([settings.environments[name], paths])


def _digest(declared: object) -> str:
    return hashlib.sha256(msgspec.json.encode(declared, order="deterministic")).hexdigest()[:16]


def _options(settings: Settings, engine: Engine | None) -> str:
    return (" --engine native" if engine and engine.name == "native" else "") + chosen_options(settings)


def chosen_options(settings: Settings) -> str:
    """Return the options that decide what is stood up and judged, as they are typed."""
    extra = "".join(f" --set {product}={version}" for product, version in settings.versions.items())
    extra += "".join(f" --image {quote(f'{name}={image}')}" for name, image in settings.images.override.items())
    extra += f" --image-prefix {quote(settings.images.prefix)}" if settings.images.prefix else ""
    extra += "" if settings.target.is_reference else f" --audit-target {quote(settings.target_named)}"
    return extra + "".join(f" --audit-sql {quote(each)}" for each in settings.target_sql)


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
        reproduce=reproduce,
    )


def exec_command(topology: str, command: tuple[str, ...], options: str = "") -> str:
    """Return how a command that was run behind a topology is run again."""
    return f"python -m harness exec {topology}{options} -- {join(command)}"


def new_record(
    run_id: str, settings: Settings, plan: tuple[PlannedCheck, ...], engine: Engine | None = None
) -> RunRecord:
    """Return the record of a run that begins.

    :param engine: None where the harness stands nothing up: then the evidence is of class host.
    """
    return RunRecord(
        run_id=run_id,
        started_at=utc_now(),
        argv=_without_secrets(("harness", *sys.argv[1:])),
        provenance=provenance(),
        evidence_class=EvidenceClass.CI if engine else EvidenceClass.HOST,
        engine=engine.name if engine else "attached",
        engine_version=engine.version if engine else "",
        audit_target=settings.target.identity,
        plan=plan,
    )


def expected(settings: Settings) -> tuple[PlannedCheck, ...]:
    """Return the rows that a report owes an answer to."""
    checks = settings.catalogue.checks
    return plan_topologies(named_topologies(settings, []), checks, None, settings) + tuple(
        row for name in settings.environments for row in plan_environment(name, checks, settings)
    )


def _without_secrets(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line as evidence may keep it: the value of an option is told by the option before it."""
    redact = Redactor()
    return tuple(
        MASK if before.startswith("-") and MASK in redact(f"{before} {each}") else redact(each)
        for before, each in itertools.pairwise(("", *arguments))
    )


def evidence_here(settings: Settings) -> Evidence:
    """Merge what the reports folder holds about exactly this code and these topologies."""
    code = fingerprint()
    runs, damaged = kept_runs(settings.reports, code)
    declared = {each.name: each for each in named_topologies(settings, [])}
    merged = merge(
        runs,
        expected(settings),
        declared=declared,
        fingerprint=code,
        target=settings.target.identity,
        left_out=damaged,
        environments={name: declared_as(name, settings) for name in settings.environments},
    )
    ran = set(merged.names())
    on_demand = [each.name for each in load_topologies(settings.topologies).values() if each.on_demand]
    serial_group = tuple(
        f"the topology {name} is there on demand, and no run of this code has verified it"
        for name in on_demand
        if name not in ran
    )
    return with_known(replace(merged, left_out=(*merged.left_out, *serial_group)), settings)


def evidence_from(settings: Settings, folders: list[str]) -> Evidence:
    """Merge what run folders hold, also from other machines."""
    runs = read_runs([Path(folder) for folder in folders])
    return with_known(
        merge(
            runs,
            expected(settings),
            target=settings.target.identity,
            environments={name: declared_as(name, settings) for name in settings.environments},
        ),
        settings,
    )


def with_known(evidence: Evidence, settings: Settings) -> Evidence:
    """Mark the Issues that are accepted today, whatever was accepted when they were found."""
    rows = tuple(
        replace(row, result=accept_known(replace(row.result, known=None), settings.known_issues))
        for row in evidence.rows
    )
    return replace(evidence, rows=rows)
