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
from harness.config import nearest
from harness.errors import ConfigError, UsageError
from harness.lab.topologies import load_topologies, select, with_versions
from harness.model import EvidenceClass, PlannedCheck, RunRecord, Topology
from harness.provenance import provenance
from harness.redaction import MASK, Redactor
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.checks.registry import Check
    from harness.cli.settings import Settings
    from harness.engine.protocol import Engine


def named_topologies(settings: Settings, names: Sequence[str]) -> list[Topology]:
    """Return the named topologies, in the versions of `--set`; all but those on demand when none is named.

    :raises UsageError: for an unknown name.
    :raises ConfigError: for a topology file or harness.toml that names something undefined.
    """
    known = load_topologies(settings.topologies)
    verified = {check.id for check in settings.catalogue.checks} | set(settings.catalogue.suites())
    for topology in known.values():
        for name in topology.verify:
            if name not in verified:
                raise ConfigError(
                    f"verify: unknown suite or check {name!r}",
                    where=str(settings.topologies / f"{topology.name}.toml"),
                    hint=nearest(name, verified),
                )
        if topology.name in settings.environments:
            raise ConfigError(
                f"environments: {topology.name} is the name of a topology, expected another name",
                where="harness.toml",
            )
    for command in settings.commands:
        for name in command.topologies:
            if name not in known:
                raise ConfigError(
                    f"commands: {command.name}: unknown topology {name!r}",
                    where="harness.toml",
                    hint=nearest(name, known),
                )
    for name in names:
        if name in settings.environments:
            raise UsageError(
                f"{name} is an environment, expected a topology", hint=f"harness verify --environment {name}"
            )
    chosen = select(known, [name.partition("+")[0] for name in names])
    return [with_versions(topology, settings.versions) for topology in chosen]


def plan_topologies(
    topologies: Iterable[Topology],
    checks: tuple[Check, ...],
    engine: Engine | None,
    settings: Settings,
    *,
    named: bool = False,
    under: str = "",
) -> tuple[PlannedCheck, ...]:
    """Return every row with the command that reproduces it; the command names everything that decides the result.

    :param engine: None before one is chosen.
    :param named: the user named suites or checks, so they also run in topologies whose `verify` leaves them out.
    :param under: name of the control that every row runs under.
    """
    extra = (f" --under {under}" if under else "") + _options(settings, engine)
    shipped = settings.topologies.resolve() == places.TOPOLOGIES.resolve()
    # a project that installs the harness as a package has no such Nox session
    has_sessions = shipped and Path.cwd().resolve() == places.SHIPPED.resolve()

    def command(topology: Topology, check: Check) -> str:
        base = topology.name.partition("+")[0]
        if has_sessions:
            return f"nox -s topology-{base} -- --check {check.id}{extra}"
        folder = "" if shipped else f" --topologies-folder {quote(str(settings.topologies))}"
        return f"python -m harness verify {base} --check {check.id}{folder}{extra}"

    digests = {f"command.{declared.name}": _digest(declared) for declared in settings.commands}
    return tuple(
        replace(planned(topology.name, check, command(topology, check)), declared_as=digests.get(check.id, ""))
        for topology in topologies
        for check in checks
        if _runs_in(check, topology, settings) and (named or topology.verifies(check.id))
    )


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
    extra = _options(settings, None)
    declared = {path.name: path for path in settings.paths}
    rows = []
    for check in sorted(checks, key=lambda check: check.last):
        if check.path:
            path = declared.get(check.path.name)
            if path is None or (path.environments and name not in path.environments):
                continue  # a path of the reference host, or of another environment
        elif check.id.startswith("command."):
            continue  # commands run behind topologies
        command = f"python -m harness verify --environment {name} --check {check.id}{extra}"
        rows.append(replace(planned(name, check, command), evidence_class=EvidenceClass.HOST))
    return tuple(rows)


def declared_as(name: str, settings: Settings) -> str:
    """Return a digest of the declaration of an environment; it covers the names of secrets, not their values."""
    paths = [path for path in settings.paths if not path.environments or name in path.environments]
    return _digest([settings.environments[name], paths])


def _digest(declared: object) -> str:
    return hashlib.sha256(msgspec.json.encode(declared, order="deterministic")).hexdigest()[:16]


def _options(settings: Settings, engine: Engine | None) -> str:
    # Docker is what a command without --engine prefers
    return (f" --engine {engine.name}" if engine and engine.name != "docker" else "") + chosen_options(settings)


def chosen_options(settings: Settings) -> str:
    """Return the options that decide which servers start and which trail is judged, quoted for a shell."""
    extra = "".join(f" --set {product}={version}" for product, version in settings.versions.items())
    extra += "".join(f" --image {quote(f'{name}={image}')}" for name, image in settings.images.override.items())
    extra += f" --image-prefix {quote(settings.images.prefix)}" if settings.images.prefix else ""
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
        reproduce=reproduce,
    )


def exec_command(topology: str, command: tuple[str, ...], options: str = "") -> str:
    """Return the command line that runs a command behind a topology again."""
    return f"python -m harness exec {topology}{options} -- {join(command)}"


def new_record(
    run_id: str, settings: Settings, plan: tuple[PlannedCheck, ...], engine: Engine | None = None, *, under: str = ""
) -> RunRecord:
    """Return the record of a run that begins.

    :param engine: None when the harness starts no server; the evidence is then of class host.
    :param under: name of the control that every row runs under.
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
        under=under,
    )


def _without_secrets(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Redact a command line for the evidence; an option decides whether the argument after it is a secret."""
    redact = Redactor()
    return tuple(
        MASK if before.startswith("-") and MASK in redact(f"{before} {argument}") else redact(argument)
        for before, argument in itertools.pairwise(("", *arguments))
    )
