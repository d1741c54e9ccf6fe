"""The list of suites. Adding a suite is adding a module here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness.checks.registry import Catalogue, Fixtures, build_catalogue
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


@cache
def catalogue() -> Catalogue:
    return build_catalogue(
        (
            *(capture, capture_transactions, capture_rows, capture_evasion, capture_operations, capture_trouble),
            *(actor, actor_sharing, actor_actions, actor_work, careless),
            *(redaction, retention, export, investigation, observability, continuity),
            trail_breaks,
            *(pooling_statements, pooling_state, pooling_sharing, pooling_transactions),
            *(pooling_connections, pooling_recognition),
            drivers,
            # restarts servers at its end, so nothing comes after it
            pooling_trouble,
        ),
        FIXTURES,
    )
