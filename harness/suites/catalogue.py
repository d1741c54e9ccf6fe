"""The list of suites. Adding a suite is adding a module here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks.registry import Catalogue, Fixtures, build_catalogue
from harness.host.reference import reference_paths
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
    retention,
    trail_breaks,
)
from harness.suites.commands import command_checks
from harness.suites.paths.aspects import path_checks
from harness.suites.pooling import failures as pooling_failures

if TYPE_CHECKING:
    from harness.host.declarations import CommandDeclaration, PathDeclaration

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
    declared: tuple[PathDeclaration, ...] = (), commands: tuple[CommandDeclaration, ...] = ()
) -> Catalogue:
    """Return the catalogue with the paths and commands that a project declares.

    :raises ConfigError: for a path that is called as one of the reference host's.
    """
    return catalogue().with_checks((*path_checks(declared), *command_checks(commands)))


@cache
def catalogue() -> Catalogue:
    """Return what is verified everywhere, the reference host's paths included."""
    return _suites().with_checks(path_checks(reference_paths(), reference=True))


@cache
def _suites() -> Catalogue:
    return build_catalogue(
        (
            *capture.MODULES,
            *actor.MODULES,
            redaction,
            retention,
            export,
            investigation,
            observability,
            continuity,
            trail_breaks,
            *pooling.MODULES,
            environment,
            drivers,
            # restarts servers at its end, so nothing comes after it
            pooling_failures,
        ),
        FIXTURES,
    )
