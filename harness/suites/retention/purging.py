"""Purges of a check: its policy, its old and new changes, and what a purge left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.retention import Policy, Purged, purge
from harness.audit.telemetry import Telemetry
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

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
    ctx.admin.execute(ctx.target.statements.age, {"age": f"{days} days"})


def slugs_left(ctx: CheckContext) -> list[str]:
    """Return the slugs of posts whose changes are still in the trail."""
    return sorted(change.text("slug") for change in ctx.changes("posts"))


#: a sabotage: the purge deletes changes of any age
ANY_AGE = ("threadline_purge_changes", ("c.captured_at < cutoff", "true"))
