"""Settings: harness.toml, then environment variables, then the command line; the last one wins."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness import config, places
from harness.audit.target import AuditTarget
from harness.audit.target_loading import load_target
from harness.checks.documented import require_sound
from harness.checks.load import LoadSettings
from harness.cli.parser import one_of
from harness.cli.project_file import load_project, require_current
from harness.cli.settings_options import SettingsOptions
from harness.engine.protocol import ENGINE_NAMES, EngineName
from harness.engine.recipes import PULLS, ImagePolicy, products
from harness.engine.storage import StoragePolicy
from harness.errors import ConfigError, UsageError
from harness.host.declarations import (
    CommandDeclaration,
    EnvironmentDeclaration,
    MigrationDeclaration,
    PathDeclaration,
)
from harness.host.readiness_file import ReadinessArea, Workflow
from harness.ingest.loading import LoadedPipeline, find
from harness.job_engines.known import KnownJobEngines
from harness.model import Attestation, KnownIssue, Quarantine
from harness.preflight.declaration import PreflightDeclaration
from harness.suites.catalogue import catalogue, whole_catalogue
from harness.suites.pooling.probes import feature_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.collection import Catalogue


class Settings(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything that decides what a command does, apart from its own options."""

    engine: EngineName
    #: where database servers keep their data
    storage: StoragePolicy
    #: concurrent checks per topology; 0: derived from the number of cores
    jobs: int
    #: of checks under load or faults
    load: LoadSettings
    reports: Path
    #: the folder of topology files
    topologies: Path
    #: the folder without --topologies-folder
    own_topologies: Path
    images: ImagePolicy
    #: the products, or products with versions, that `--image` names
    chosen_images: tuple[str, ...]
    known_issues: tuple[KnownIssue, ...]
    #: checks that do not decide the exit code
    quarantine: tuple[Quarantine, ...]
    #: those that decide again, because the day of their entry has passed
    expired_quarantine: tuple[Quarantine, ...]
    #: product to version, from `--set`
    versions: dict[str, str]
    target: AuditTarget
    #: the target as it was named: a shipped name or a path
    target_named: str
    target_sql: tuple[str, ...]
    attestations: tuple[Attestation, ...]
    environments: dict[str, EnvironmentDeclaration]
    paths: tuple[PathDeclaration, ...]
    commands: tuple[CommandDeclaration, ...]
    migrations: tuple[MigrationDeclaration, ...]
    #: those of harness.toml, and those that `--job-engine` names
    job_engines: KnownJobEngines
    #: the ingest pipeline under test
    pipeline: LoadedPipeline
    #: the one of harness.toml, else the reference pipeline
    project_pipeline: LoadedPipeline
    #: the same as `--pipeline` names it; "" if nothing does
    pipeline_named: str
    preflight: PreflightDeclaration | None
    readiness: tuple[ReadinessArea, ...]
    workflows: tuple[Workflow, ...]

    @cached_property
    def catalogue(self) -> Catalogue:
        """All checks: those of the harness, and those that harness.toml declares."""
        return whole_catalogue(self.paths, self.commands, self.job_engines, self.migrations, self.pipeline)

    @property
    def of_project(self) -> Settings:
        """The settings without the options that choose other servers: what `report` without options is about.

        A run writes its report with these, so that `report` afterwards shows the same.
        """
        declared = KnownJobEngines(declared=self.job_engines.declared)
        return msgspec.structs.replace(
            self,
            topologies=self.own_topologies,
            versions={},
            job_engines=declared,
            pipeline=self.project_pipeline,
            pipeline_named="",
        )

    @property
    def rendered(self) -> Path:
        """The folder of the tables; each audit target has its own, so that tables of two trails never mix."""
        return self.reports if self.target.is_reference else self.reports / self.target.name


def read_settings(options: SettingsOptions | None = None, today: str | None = None) -> Settings:
    """Merge the three sources.

    :param today: YYYY-MM-DD, for expiry dates; the current day in UTC by default.
    :raises ConfigError: for a mistake in harness.toml, or an expired entry in it.
    :raises UsageError: for an invalid option or environment variable.
    """
    options = options or SettingsOptions()
    today = today or _this_day()
    project = load_project(today)
    file = project.file
    require_sound(feature_of(check) for check in catalogue().checks if check.feature)
    for name, value, expected in (
        ("--reports", options.reports, "a folder"),
        ("--topologies-folder", options.topologies_folder, "a folder"),
        ("--audit-target", options.audit_target, "the name of a target or a path that ends in .toml"),
        ("--pipeline", options.pipeline, "the name of a pipeline or a path that ends in .toml"),
    ):
        if value == "":
            raise UsageError(f"{name}: found an empty name, expected {expected}")
    named = options.audit_target or file.audit_target
    # the SQL files in harness.toml belong to the target that it names
    target_sql = options.audit_sql or (file.audit_sql if named == file.audit_target else ())
    target = audit_target(named, target_sql, today)
    return Settings(
        engine=options.engine or _variable("HARNESS_ENGINE", ENGINE_NAMES, file.engine),
        storage=StoragePolicy(
            options.storage or _variable("HARNESS_STORAGE", tuple(map(str, StoragePolicy)), file.storage)
        ),
        jobs=options.jobs or file.jobs,
        load=LoadSettings(
            rounds=options.rounds or LoadSettings().rounds, soak_s=options.soak_s or LoadSettings().soak_s
        ),
        reports=Path(options.reports or os.environ.get("HARNESS_REPORTS") or file.reports),
        topologies=Path(options.topologies_folder or file.topologies or places.TOPOLOGIES),
        own_topologies=Path(file.topologies or places.TOPOLOGIES),
        images=_images(options, file.images),
        chosen_images=tuple(_image_pairs(options)),
        known_issues=(*file.known_issues, *target.accepted),
        quarantine=tuple(entry for entry in file.quarantine if entry.expires >= today),
        expired_quarantine=tuple(entry for entry in file.quarantine if entry.expires < today),
        versions=_pairs("--set", options.versions, expected="PRODUCT=VERSION", example="postgres=17"),
        target=target,
        target_named=named,
        target_sql=target_sql,
        attestations=file.attestations,
        environments=file.environments,
        paths=file.paths,
        commands=file.commands,
        migrations=file.migrations,
        job_engines=KnownJobEngines(declared=project.job_engines).choose(options.job_engines, options.job_variants),
        pipeline=find(options.pipeline, file.store) if options.pipeline else project.pipeline,
        project_pipeline=project.pipeline,
        pipeline_named=options.pipeline or "",
        preflight=file.preflight,
        readiness=project.readiness,
        workflows=file.workflows,
    )


def audit_target(named: str, sql: Sequence[str], today: str | None = None) -> AuditTarget:
    """Load an audit target, whose limits and accepted Issues have to be about known checks.

    :param sql: files that install it, instead of those that it names.
    :param today: as for :func:`read_settings`: the last day of an accepted Issue must not have passed.
    :raises ConfigError: with file, line and key.
    """
    target, today = load_target(named, sql), today or _this_day()
    known = {check.id for check in catalogue().checks}
    require_current(target.accepted, known, Path(target.where), today, "accepted")
    for limit in target.limits:
        if limit.check not in known:
            where = config.at_key(target.where, "limits.check", limit.check)
            raise ConfigError(
                f"limits: unknown check {limit.check!r}", where=where, hint=config.nearest(limit.check, known)
            )
    return target


def _this_day() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _images(options: SettingsOptions, declared: ImagePolicy) -> ImagePolicy:
    override = declared.override | _image_pairs(options)
    for name in override:
        if name.partition(":")[0] not in products():
            raise UsageError(
                f"image of {name!r}: unknown product", hint=config.nearest(name.partition(":")[0], products())
            )
    return msgspec.structs.replace(
        declared,
        prefix=options.image_prefix or os.environ.get("HARNESS_IMAGE_PREFIX", declared.prefix),
        pull=options.pull or _variable("HARNESS_PULL", PULLS, declared.pull),
        override=override,
    )


def _image_pairs(options: SettingsOptions) -> dict[str, str]:
    return _pairs(
        "--image", options.images, expected="PRODUCT=REFERENCE", example="postgres=mirror.example/postgres:17"
    )


def _variable(name: str, allowed: tuple[str, ...], default: str) -> Any:
    """Return the value of an environment variable; the default when it is unset or empty."""
    value = os.environ.get(name) or default
    if value not in allowed:
        raise UsageError(f"{name}: found {value!r}, expected {one_of(allowed)}", hint=config.close_to(value, allowed))
    return value


def _pairs(option: str, values: tuple[str, ...], *, expected: str, example: str) -> dict[str, str]:
    pairs = {}
    for text in values:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"{option}: found {text!r}, expected {expected}", hint=f"{option} {example}")
        pairs[name] = value
    return pairs
