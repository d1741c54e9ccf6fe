"""The actors that the suites write as, and a client that may read the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import force_setattr

from harness.audit.actor import Actor
from harness.audit.target_file import Recorded

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

ADA, BOB = Actor("user", "ada"), Actor("user", "bob")
#: the actor of a control: no check declares her, so a change that names her was attributed wrongly
MALLORY = Actor("user", "mallory")
#: what a trail has to record for a check that looks at the actors of single writes
ATTRIBUTED = (Recorded.ACTOR,)
#: what a trail has to record for a check that also compares which rows were written
ATTRIBUTED_ROWS = (Recorded.ACTOR, Recorded.INSERTS, Recorded.IMAGE)


def claimed(kind: str, identity: str) -> Actor:
    """Return an actor as a careless application declares it: it may be invalid."""
    actor = Actor("user", "valid")
    force_setattr(actor, "type", kind)
    force_setattr(actor, "id", identity)
    return actor


def reader(ctx: CheckContext) -> Client:
    """Grant the application role the right to read the trail, and connect through the chain."""
    ctx.owner.value("SELECT public.threadline_grant('harness_app', reading => true)")
    return ctx.client()
