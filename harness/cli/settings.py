"""What the user asked for: harness.toml, then environment variables, then the command line."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from harness import config, places
from harness.audit.target import AuditTarget
from harness.audit.target_loading import load_target
from harness.checks.documented import require_sound
from harness.engine.images import ImagePolicy, products
from harness.engine.storage import StoragePolicy
from harness.errors import ConfigError, UsageError
from harness.host.declarations import CommandDeclaration, EnvironmentDeclaration, PathDeclaration
from harness.host.readiness_file import GuidanceItem, ReadinessArea, Workflow
from harness.host.validation import require_host_sound
from harness.model import Attestation, KnownIssue
from harness.preflight.gates import PreflightDeclaration
from harness.recognition.findings import FACTS
from harness.report.comparison import FIELDS
from harness.suites.catalogue import catalogue, whole_catalogue
from harness.suites.pooling.probes import feature_of

if TYPE_CHECKING:
    from argparse import Namespace

    from harness.checks.registry import Catalogue

PROJECT_FILE = "harness.toml"
_FEWEST_WORDS = 3
_ENVIRONMENT = r"^[a-z][a-z0-9-]{0,30}$"


class ProjectFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`harness.toml` in the folder the command is run from; every key is optional."""

    engine: Literal["auto", "docker", "native"] = "auto"
    storage: StoragePolicy = StoragePolicy.AUTO
    jobs: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    reports: str = "reports"
    topologies: str = ""
    images: ImagePolicy = ImagePolicy()
    known_issues: tuple[KnownIssue, ...] = ()
    #: the audit trail under test: a shipped target's name, or a path that ends in .toml
    audit_target: str = "reference"
    #: SQL files that install it, where the target names none
    audit_sql: tuple[str, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    environments: dict[Annotated[str, msgspec.Meta(pattern=_ENVIRONMENT)], EnvironmentDeclaration] = {}
    paths: tuple[PathDeclaration, ...] = ()
    commands: tuple[CommandDeclaration, ...] = ()
    preflight: PreflightDeclaration | None = None
    readiness: tuple[ReadinessArea, ...] = ()
    workflows: tuple[Workflow, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    engine: Literal["auto", "docker", "native"]
    #: where the data of database servers is kept
    storage: StoragePolicy
    #: checks at a time in each topology; 0 leaves it to the number of cores
    jobs: int
    reports: Path
    topologies: Path
    images: ImagePolicy
    known_issues: tuple[KnownIssue, ...]
    #: `--set` values: product to version
    versions: dict[str, str]
    target: AuditTarget
    #: as it was asked for
    target_named: str
    target_sql: tuple[str, ...]
    attestations: tuple[Attestation, ...]
    environments: dict[str, EnvironmentDeclaration]
    paths: tuple[PathDeclaration, ...]
    commands: tuple[CommandDeclaration, ...]
    preflight: PreflightDeclaration | None
    readiness: tuple[ReadinessArea, ...]
    workflows: tuple[Workflow, ...]

    @property
    def catalogue(self) -> Catalogue:
        """All checks: the project's own, and those that harness.toml declares."""
        return whole_catalogue(self.paths, self.commands)

    @property
    def rendered(self) -> Path:
        """Where the tables go."""
        return self.reports if self.target.is_reference else self.reports / self.target.name


def read_settings(arguments: Namespace, today: str | None = None) -> Settings:
    """Merge the three sources.

    :param today: YYYY-MM-DD, for telling whether an accepted Issue has expired.
    :raises ConfigError: for a mistake in harness.toml, or an expired entry in it.
    """
    path = Path(PROJECT_FILE)
    file = config.load(path, ProjectFile) if path.exists() else ProjectFile()
    today = today or f"{datetime.now(UTC):%Y-%m-%d}"
    require_host_sound(file.environments, file.paths, file.commands, path)
    _require_comparable(file.environments, path)
    checks = {each.id for each in whole_catalogue(file.paths, file.commands).checks}
    _require_known(file, checks, path)
    require_sound(feature_of(each) for each in catalogue().checks if each.feature)
    for entry in file.known_issues:
        if entry.check not in checks:
            raise ConfigError(
                f"known_issues: there is no check {entry.check!r}",
                where=str(path),
                hint=config.nearest(entry.check, checks),
            )
        try:
            date.fromisoformat(entry.expires)
        except ValueError:
            raise ConfigError(f"known_issues: {entry.expires} is no day", where=str(path)) from None
        if entry.expires < today:
            raise ConfigError(
                f"known_issues: the entry for {entry.check} expired on {entry.expires}",
                where=str(path),
                hint="mend the Issue, or give it a new day and say why where it links to",
            )
    for option in ("reports", "topologies_folder"):
        if _given(arguments, option) == "":
            raise UsageError(f"--{option.replace('_', '-')}: found an empty name, needed a folder")
    images = msgspec.structs.replace(
        file.images,
        prefix=_given(arguments, "image_prefix") or os.environ.get("HARNESS_IMAGE_PREFIX", file.images.prefix),
        pull=_given(arguments, "pull") or _choice("HARNESS_PULL", ("missing", "never", "always"), file.images.pull),
        override=file.images.override | _pairs("--image", _given(arguments, "image") or []),
    )
    for name in images.override:
        if name.partition(":")[0] not in products():
            raise UsageError(f"image of {name!r}: there is no such product", hint=config.nearest(name, products()))
    named = _given(arguments, "audit_target") or file.audit_target
    if _given(arguments, "audit_target") == "":
        raise UsageError("--audit-target: found an empty name, needed a target's name or a path that ends in .toml")
    # the SQL files of harness.toml belong to the target it names
    in_file = file.audit_sql if named == file.audit_target else ()
    target_sql = tuple(_given(arguments, "audit_sql") or in_file)
    _require_real_days(file.attestations, path, today)
    return Settings(
        target=load_target(named, target_sql),
        target_named=named,
        target_sql=target_sql,
        attestations=file.attestations,
        environments=file.environments,
        paths=file.paths,
        commands=file.commands,
        preflight=file.preflight,
        readiness=file.readiness,
        workflows=file.workflows,
        engine=_given(arguments, "engine") or _choice("HARNESS_ENGINE", ("auto", "docker", "native"), file.engine),
        storage=StoragePolicy(
            _given(arguments, "storage") or _choice("HARNESS_STORAGE", tuple(StoragePolicy), file.storage)
        ),
        jobs=_given(arguments, "jobs") or file.jobs,
        reports=Path(_given(arguments, "reports") or os.environ.get("HARNESS_REPORTS") or file.reports),
        topologies=Path(_given(arguments, "topologies_folder") or file.topologies or places.TOPOLOGIES),
        images=images,
        known_issues=file.known_issues,
        versions=_pairs("--set", _given(arguments, "set") or []),
    )


def _require_known(file: ProjectFile, checks: set[str], path: Path) -> None:
    """Refuse a name in the readiness map or in a workflow that nothing has: it would never be shown."""
    names = checks | {each.partition(".")[0] for each in checks}
    paths = {each.name for each in file.paths}
    declared: list[tuple[str, ReadinessArea | Workflow]] = [
        *((f"readiness: {each.area}", each) for each in file.readiness),
        *((f"workflows: {each.name}", each) for each in file.workflows),
    ]
    for workflow in file.workflows:
        for item in workflow.guidance:
            _require_signed(f"workflows: {workflow.name}: {item.item}", item, path)
    for where, each in declared:
        for kind, given, known in (
            ("check or suite", each.checks, names),
            ("path", each.paths, paths),
            ("environment", filter(None, (each.environment,)), file.environments),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(
                        f"{where}: there is no {kind} {name!r}", where=str(path), hint=config.nearest(name, known)
                    )


def _require_signed(where: str, item: GuidanceItem, path: Path) -> None:
    """Refuse a signature that signs nothing.

    :raises ConfigError: naming the item.
    """
    if item.done_by.strip().lower() in {"todo", "tbd", "n/a", "none", "nobody", "someone", "xx", "xxx"}:
        raise ConfigError(f"{where}: found done_by = {item.done_by!r}, needed who did it", where=str(path))
    try:
        date.fromisoformat(item.on)
    except ValueError:
        raise ConfigError(f"{where}: {item.on} is no day", where=str(path)) from None
    if item.on > f"{datetime.now(UTC):%Y-%m-%d}":
        raise ConfigError(f"{where}: it is signed on {item.on}, which is not yet", where=str(path))
    if not item.link.startswith(("http://", "https://")) and not Path(item.link.partition("#")[0]).exists():
        raise ConfigError(f"{where}: there is no {item.link} here", where=str(path), hint="link what can be read again")


def _require_comparable(environments: dict[str, EnvironmentDeclaration], path: Path) -> None:
    known = {*FIELDS, *FACTS}
    for name, declared in environments.items():
        for fact in declared.production.facts if declared.production else ():
            if fact not in known:
                raise ConfigError(
                    f"environments.{name}.production.facts: there is no fact {fact!r}",
                    where=str(path),
                    hint=config.nearest(fact, known),
                )


def _require_real_days(attestations: tuple[Attestation, ...], path: Path, today: str) -> None:
    items = [each.item for each in attestations]
    for item in {each for each in items if items.count(each) > 1}:
        raise ConfigError(f"attestations: {item} is signed twice; one statement is enough", where=str(path))
    for each in attestations:
        if len(each.statement.split()) < _FEWEST_WORDS or "\n" in each.statement:
            raise ConfigError(
                f"attestations: {each.item}: found the statement {each.statement!r}, needed one sentence that says "
                "what was done",
                where=str(path),
            )
        try:
            date.fromisoformat(each.on)
        except ValueError:
            raise ConfigError(f"attestations: {each.on} is no day", where=str(path)) from None
        if each.on > today:
            raise ConfigError(f"attestations: {each.item} is signed on {each.on}, which is not yet", where=str(path))


def _given(arguments: Namespace, name: str) -> Any:
    return getattr(arguments, name, None)


def _choice(variable: str, allowed: tuple[str, ...], default: str) -> Any:
    value = os.environ.get(variable) or default
    if value not in allowed:
        raise UsageError(f"{variable}: found {value!r}, allowed: {', '.join(allowed)}")
    return value


def _pairs(option: str, values: object) -> dict[str, str]:
    pairs = {}
    for each in values if isinstance(values, list) else []:
        key, found, value = str(each).partition("=")
        if not found or not key or not value:
            raise UsageError(
                f"{option}: found {each!r}, needed NAME=VALUE",
                hint=f"{option} postgres={'17' if option == '--set' else 'mirror.example/postgres:17'}",
            )
        pairs[key] = value
    return pairs
