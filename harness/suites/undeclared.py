"""Writes without an actor. A trail records them with the actor NULL, or refuses them (`required` of `[actor]`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.target_file import Recorded
from harness.database import SqlError, describe, is_rejected
from harness.suites.actors import ATTRIBUTED, ATTRIBUTED_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.database import Client

#: what a trail has to record for a check that also writes without an actor
UNDECLARED = (*ATTRIBUTED, Recorded.UNDECLARED)
UNDECLARED_ROWS = (*ATTRIBUTED_ROWS, Recorded.UNDECLARED)
#: in place of the actor of a write that the trail refused
REFUSED = "the write is refused"


def nobody(ctx: CheckContext) -> str | None:
    """Return what a check expects in place of the actor of a write without one."""
    return REFUSED if ctx.target.actor.required else None


def refusal_of(ctx: CheckContext, write: Callable[[], object]) -> str:
    """Write without an actor, and return how the trail refused it; "" when it did not.

    :param write: writes, and commits.
    :raises SqlError: where the target file does not say that the trail refuses it, and for an error of another kind.
    """
    try:
        write()
    except SqlError as error:
        if not ctx.target.actor.required or not is_rejected(error):
            raise
        return describe(error)
    return ""


def write_undeclared(ctx: CheckContext, client: Client, slug: str) -> str:
    """Insert a post in one unit of work without an actor, and return how the trail refused it; see `refusal_of`."""
    return refusal_of(ctx, partial(ctx.write, client, None, slug))


def undeclared_actor(ctx: CheckContext, slug: str, refused: str) -> Any:
    """Return the actor of a write without one, or `REFUSED` if the trail refused it and nothing is left.

    :param refused: what `refusal_of` returned.
    """
    if not refused:
        return ctx.actor_of(slug)
    rows = ctx.admin.value("SELECT count(*) FROM public.posts WHERE slug = %s", [slug])
    changes = sum(change.text("slug") == slug for change in ctx.changes("posts"))
    return REFUSED if not rows and not changes else f"{refused}, and it left {rows} rows and {changes} changes"
