"""Purges of a check: its policy, its old and new changes, and what a purge left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.retention import Policy, Purged, purge
from harness.audit.telemetry import Telemetry
from harness.checks.record import NotExercisedError
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from datetime import datetime

    from harness.checks.context import CheckContext
    from harness.database import Client

DAYS = 30


def policy_of(ctx: CheckContext, **more: Any) -> Policy:
    return Policy(**({"enabled": True, "keep_days": DAYS} | more | ctx.application.policy))


def purge_trail(ctx: CheckContext, policy: Policy | None = None, **more: Any) -> Purged:
    """Purge as the trail's owner, on the direct connection."""
    return purge(ctx.owner, policy or policy_of(ctx), to=Telemetry(), **more)


def write(ctx: CheckContext, *slugs: str, days_old: int = 0) -> None:
    """Commit one audited insert for each slug, then make the whole trail older."""
    client = ctx.client()
    for slug in slugs:
        ctx.write(client, ADA, slug)
    if days_old:
        age(ctx, days_old)


def age(ctx: CheckContext, days: int) -> None:
    """Make the whole trail older."""
    ctx.target.age(ctx.admin, days)


def cutoff_of_days(ctx: CheckContext) -> datetime:
    """Return the time before which changes are expired."""
    cutoff: datetime = ctx.admin.value(f"SELECT clock_timestamp() - interval '{DAYS} days'")
    return cutoff


def purge_before(ctx: CheckContext, cutoff: datetime, client: Client | None = None) -> None:
    """Purge any trail with its own statement, by default as its owner."""
    ctx.target.purge(client or ctx.owner, cutoff)


def _times(ctx: CheckContext) -> dict[str, datetime]:
    """Return the times of the changes of posts, by slug."""
    return {change.text("slug"): change.captured_at for change in ctx.changes("posts") if change.captured_at}


def time_of(ctx: CheckContext, slug: str) -> datetime:
    """Return the time of the change that inserted a post.

    :raises NotExercisedError: when the trail has none.
    """
    times = _times(ctx)
    if slug not in times:
        raise NotExercisedError(f"the trail has no change with a time for the post {slug}")
    return times[slug]


def slugs_since(ctx: CheckContext, cutoff: datetime) -> list[str]:
    """Return the slugs of posts whose changes are not from before the cutoff."""
    return sorted(slug for slug, time in _times(ctx).items() if time >= cutoff)


def slugs_left(ctx: CheckContext) -> list[str]:
    """Return the slugs of posts whose changes are still in the trail."""
    return sorted(change.text("slug") for change in ctx.changes("posts"))


#: a sabotage: the purge deletes changes of any age
ANY_AGE = ("threadline_purge_changes", ("c.captured_at < cutoff", "true"))
