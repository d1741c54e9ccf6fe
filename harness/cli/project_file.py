"""`harness.toml`: its keys, and the mistakes that a type cannot express."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from harness import config
from harness.engine.protocol import EngineName
from harness.engine.recipes import ImagePolicy
from harness.engine.storage import StoragePolicy
from harness.errors import ConfigError
from harness.gates.declaration import GatesDeclaration, require_sound
from harness.host.declarations import (
    CommandDeclaration,
    EnvironmentDeclaration,
    MigrationDeclaration,
    PathDeclaration,
)
from harness.host.readiness_file import GuidanceItem, ReadinessArea, Workflow
from harness.host.validation import require_host_sound
from harness.ingest.loading import REFERENCE, LoadedPipeline, find, of_pipeline_file, of_project
from harness.ingest.operator_store import StoreDeclaration
from harness.ingest.pipeline_file import Pipeline
from harness.job_engines.known import KnownJobEngines, declared_job_engines
from harness.job_engines.loading import JobEngine
from harness.job_engines.readiness_maps import areas_of, is_own_map, require_sound_areas, with_map
from harness.model import Attestation, KnownIssue, Quarantine
from harness.preflight.declaration import PreflightDeclaration
from harness.recognition.findings import FACTS
from harness.report.comparison import FIELDS
from harness.suites.catalogue import whole_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT_FILE = "harness.toml"
_FEWEST_WORDS = 3
_ENVIRONMENT = r"^[a-z][a-z0-9-]{0,30}$"
#: a signature that names nobody
_NOBODY = frozenset({"todo", "tbd", "n/a", "none", "nobody", "someone", "xx", "xxx"})


class ProjectFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`harness.toml` in the current folder; every key is optional."""

    #: where servers run: `--engine` and HARNESS_ENGINE win
    engine: EngineName = "auto"
    #: where servers keep their data: `--storage` and HARNESS_STORAGE win
    storage: StoragePolicy = StoragePolicy.AUTO
    #: concurrent checks per topology; 0: derived from the number of cores
    jobs: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    #: folder of evidence and reports
    reports: Annotated[str, msgspec.Meta(min_length=1)] = "reports"
    #: folder of topology files; those of the harness when empty
    topologies: str = ""
    images: ImagePolicy = ImagePolicy()
    known_issues: tuple[KnownIssue, ...] = ()
    #: checks whose verdict is not reliable: they do not decide the exit code
    quarantine: tuple[Quarantine, ...] = ()
    #: the audit trail under test: name of a shipped target, or a path that ends in .toml
    audit_target: str = "reference"
    #: SQL files that install it, for a target that names none
    audit_sql: tuple[str, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    environments: dict[Annotated[str, msgspec.Meta(pattern=_ENVIRONMENT)], EnvironmentDeclaration] = {}
    paths: tuple[PathDeclaration, ...] = ()
    commands: tuple[CommandDeclaration, ...] = ()
    #: migrations of the project's schema: their rows belong to every run of a topology that does not omit the suite
    migrations: tuple[MigrationDeclaration, ...] = ()
    #: job engines of your own: paths of their TOML files, from the folder of this file. Their rows belong to every run
    #: of a topology that does not omit the suite `jobs`
    job_engines: tuple[str, ...] = ()
    #: an object store of your own, which the suite `ingest` then uses in place of the one of the lab
    store: StoreDeclaration | None = None
    #: the ingest pipeline that the suite `ingest` runs; the reference pipeline of the harness without it
    ingest: Pipeline | None = None
    preflight: PreflightDeclaration | None = None
    #: what `harness gates` has to know about this repository
    gates: GatesDeclaration = GatesDeclaration()
    #: areas to begin with: the name of a shipped map, or the path of a TOML file with `[[readiness]]` entries
    readiness_map: str = ""
    readiness: tuple[ReadinessArea, ...] = ()
    workflows: tuple[Workflow, ...] = ()


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """`harness.toml`, and what the files have that it names."""

    file: ProjectFile
    job_engines: tuple[JobEngine, ...] = ()
    #: the one that it describes, else the reference pipeline
    pipeline: LoadedPipeline
    #: the areas of its readiness map, and its own
    readiness: tuple[ReadinessArea, ...] = ()


def load_project(today: str) -> Project:
    """Read and validate `harness.toml` and the files that it names; without it, every key has its default.

    :param today: YYYY-MM-DD; an accepted Issue expires after its date, and nobody signs for a later day.
    :raises ConfigError: for a mistake, or an expired entry.
    """
    path = Path(PROJECT_FILE)
    if not path.exists() and not path.is_symlink():  # a dangling link is an error, not a missing file
        return Project(file=ProjectFile(), pipeline=find(REFERENCE))
    file = config.load(path, ProjectFile, elsewhere=of_pipeline_file)
    require_host_sound(file.environments, file.paths, file.commands, path, file.migrations)
    require_sound(file.gates, path)
    _require_comparable(file.environments, path)
    require_sound_areas(file.readiness, path)
    job_engines = declared_job_engines(file.job_engines, PROJECT_FILE)
    known = KnownJobEngines(declared=job_engines)
    pipeline = of_project(file.ingest, path) if file.ingest else find(REFERENCE)
    pipeline = msgspec.structs.replace(pipeline, store=file.store)
    checks = {check.id for check in whole_catalogue(file.paths, file.commands, known, file.migrations, pipeline).checks}
    areas = areas_of(file.readiness_map)
    _require_known_names(file, (*file.readiness, *file.workflows), checks, path)
    if is_own_map(file.readiness_map):
        _require_known_names(file, areas, checks, Path(file.readiness_map))
    require_current(file.known_issues, checks, path, today)
    for entry in file.quarantine:  # the check of an expired one decides again, which the report says
        _require_all_known("quarantine: unknown check", (entry.check,), checks, path)
        _require_date("quarantine", entry.expires, path)
        if entry.since:
            _require_date("quarantine", entry.since, path)
    for workflow in file.workflows:
        for item in workflow.guidance:
            _require_signed(f"workflows: {workflow.name}: {item.item}", item, path, today)
    _require_statements(file.attestations, path, today)
    return Project(file=file, job_engines=job_engines, pipeline=pipeline, readiness=with_map(areas, file.readiness))


def _require_known_names(
    file: ProjectFile, declarations: Iterable[ReadinessArea | Workflow], checks: set[str], path: Path
) -> None:
    """Reject an undefined name in the readiness map or in a workflow: nothing would ever be shown for it."""
    checks_and_suites = checks | {check.partition(".")[0] for check in checks}
    paths = {declared.name for declared in file.paths}
    for declaration in declarations:
        where = _named(declaration)
        _require_all_known(f"{where}: unknown check or suite", declaration.checks, checks_and_suites, path)
        _require_all_known(f"{where}: unknown path", declaration.paths, paths, path)
        environments = filter(None, (declaration.environment,))
        _require_all_known(f"{where}: unknown environment", environments, file.environments, path)


def _named(declaration: ReadinessArea | Workflow) -> str:
    if isinstance(declaration, ReadinessArea):
        return f"readiness: {declaration.area}"
    return f"workflows: {declaration.name}"


def _require_all_known(mistake: str, names: Iterable[str], known: Iterable[str], path: Path | str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{mistake} {name!r}", where=str(path), hint=config.nearest(name, known))


def require_current(
    known_issues: tuple[KnownIssue, ...], checks: set[str], path: Path, today: str, key: str = "known_issues"
) -> None:
    """Reject accepted Issues of unknown checks, and those whose date has passed.

    :param path: the file that has them, under `key`.
    :param today: YYYY-MM-DD.
    :raises ConfigError: for the first such entry.
    """
    for entry in known_issues:
        where = config.at_key(str(path), f"{key}.check", entry.check)
        _require_all_known(f"{key}: unknown check", (entry.check,), checks, where)
        _require_date(key, entry.expires, where)
        if entry.expires < today:
            raise ConfigError(
                f"{key}: the entry for {entry.check} expired on {entry.expires}",
                where=where,
                hint="fix the Issue, or enter a later date and give the reason at the linked address",
            )


def _require_signed(where: str, item: GuidanceItem, path: Path, today: str) -> None:
    """Reject a signature without a person, a date or a document."""
    if item.done_by.strip().lower() in _NOBODY:
        raise ConfigError(f"{where}: found done_by = {item.done_by!r}, expected the name of a person", where=str(path))
    _require_past(where, item.on, path, today)
    if not item.link.startswith(("http://", "https://")) and not Path(item.link.partition("#")[0]).exists():
        raise ConfigError(
            f"{where}: no such file {item.link}", where=str(path), hint="link a document that can be read again"
        )


def _require_comparable(environments: dict[str, EnvironmentDeclaration], path: Path) -> None:
    known = {*FIELDS, *FACTS}
    for name, declared in environments.items():
        facts = declared.production.facts if declared.production else ()
        _require_all_known(f"environments.{name}.production.facts: unknown fact", facts, known, path)


def _require_statements(attestations: tuple[Attestation, ...], path: Path, today: str) -> None:
    items = [attestation.item for attestation in attestations]
    for item in {item for item in items if items.count(item) > 1}:
        raise ConfigError(f"attestations: {item} is signed twice, expected one statement", where=str(path))
    for attestation in attestations:
        if len(attestation.statement.split()) < _FEWEST_WORDS or "\n" in attestation.statement:
            raise ConfigError(
                f"attestations: {attestation.item}: found the statement {attestation.statement!r}, expected one "
                "sentence that says what was done",
                where=str(path),
            )
        _require_past(f"attestations: {attestation.item}", attestation.on, path, today)


def _require_past(where: str, day: str, path: Path, today: str) -> None:
    _require_date(where, day, path)
    if day > today:
        raise ConfigError(f"{where}: signed on {day}, which is in the future", where=str(path))


def _require_date(where: str, day: str, path: Path | str) -> None:
    try:
        date.fromisoformat(day)
    except ValueError:
        raise ConfigError(f"{where}: invalid date {day!r}, expected YYYY-MM-DD", where=str(path)) from None
