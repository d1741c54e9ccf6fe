"""The list of suites. Adding a suite is adding a module here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks.registry import Catalogue, Fixtures, build_catalogue
from harness.host.reference import reference_paths
from harness.suites import (
    actor,
    actor_actions,
    actor_sharing,
    actor_work,
    capture,
    capture_evasion,
    capture_operations,
    capture_rows,
    capture_transactions,
    capture_trouble,
    careless,
    continuity,
    drivers,
    environment,
    export,
    investigation,
    observability,
    pooling_connections,
    pooling_recognition,
    pooling_sharing,
    pooling_state,
    pooling_statements,
    pooling_transactions,
    pooling_trouble,
    redaction,
    retention,
    trail_breaks,
)
from harness.suites.commands import command_checks
from harness.suites.paths import path_checks

if TYPE_CHECKING:
    from harness.host.declared import CommandDeclaration, PathDeclaration

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
            *(capture, capture_transactions, capture_rows, capture_evasion, capture_operations, capture_trouble),
            *(actor, actor_sharing, actor_actions, actor_work, careless),
            *(redaction, retention, export, investigation, observability, continuity),
            trail_breaks,
            *(pooling_statements, pooling_state, pooling_sharing, pooling_transactions),
            *(pooling_connections, pooling_recognition),
            environment,
            drivers,
            # restarts servers at its end, so nothing comes after it
            pooling_trouble,
        ),
        FIXTURES,
    )
