"""The catalogue of all suites. To add a suite, add its module here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks.collection import Catalogue, Fixtures, build_catalogue
from harness.host.reference import reference_paths
from harness.ingest.loading import REFERENCE, LoadedPipeline, find
from harness.job_engines.known import KnownJobEngines
from harness.job_engines.loading import shipped
from harness.suites import (
    actor,
    capture,
    continuity,
    drivers,
    environment,
    export,
    investigation,
    observability,
    pooling,
    redaction,
    resilience,
    retention,
    soak,
    trail,
    trail_breaks,
    trail_exports,
)
from harness.suites.commands import command_checks
from harness.suites.ingest.rows import ingest_checks
from harness.suites.jobs.rows import job_checks
from harness.suites.migrations.rows import migration_checks, shipped_checks
from harness.suites.paths.aspects import path_checks
from harness.suites.pooling import failures as pooling_failures
from harness.suites.pooling import restarts as pooling_restarts

if TYPE_CHECKING:
    from harness.host.declarations import CommandDeclaration, MigrationDeclaration, PathDeclaration

FIXTURES = Fixtures(
    sql=Path(__file__).parent / "tables.sql",
    attached=(
        "public.posts",
        "public.comments",
        "public.bookmarks",
        "public.authors",
        "public.ledger",
        "public.measures",
        '"Shop"."Order ""Items"""',
    ),
    attached_with_changed_from=("public.profiles",),
)


def whole_catalogue(
    declared: tuple[PathDeclaration, ...] = (),
    commands: tuple[CommandDeclaration, ...] = (),
    job_engines: KnownJobEngines = KnownJobEngines(),  # noqa: B008 -- it is frozen
    migrations: tuple[MigrationDeclaration, ...] = (),
    pipeline: LoadedPipeline | None = None,
) -> Catalogue:
    """Return the catalogue, extended by the paths, commands, job engines and migrations of a project.

    :param pipeline: the ingest pipeline under test; the reference pipeline by default.

    :raises ConfigError: for one whose check id exists already, such as a path of the reference host.
    """
    return _of_every_project().with_checks(
        (
            *ingest_checks(pipeline or find(REFERENCE)),
            *path_checks(declared),
            *command_checks(commands),
            *job_checks(job_engines.declared, planned=True),
            *job_checks(job_engines.given.values()),
            *migration_checks(migrations),
        )
    )


@cache
def catalogue() -> Catalogue:
    """Return the checks of every project, including the paths of the reference host and the reference pipeline."""
    return _of_every_project().with_checks(ingest_checks(find(REFERENCE)))


@cache
def _of_every_project() -> Catalogue:
    return _suites().with_checks(
        (*path_checks(reference_paths(), reference=True), *job_checks(shipped()), *shipped_checks())
    )


@cache
def _suites() -> Catalogue:
    return build_catalogue(
        (
            trail,
            *capture.MODULES,
            *actor.MODULES,
            *redaction.MODULES,
            *retention.MODULES,
            export,
            trail_exports,
            investigation,
            observability,
            continuity,
            trail_breaks,
            *pooling.MODULES,
            environment,
            drivers,
            *resilience.MODULES,
            *soak.MODULES,
            pooling_failures,
            # last, because it restarts servers
            pooling_restarts,
        ),
        FIXTURES,
    )
