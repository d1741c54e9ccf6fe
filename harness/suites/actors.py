"""The actors that the suites write as, and a client that may read the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.actor import Actor

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

ADA, BOB = Actor("user", "ada"), Actor("user", "bob")
#: the actor of a control: no check declares her, so a change that names her was attributed wrongly
MALLORY = Actor("user", "mallory")


def reader(ctx: CheckContext) -> Client:
    """Grant the application role the right to read the trail, and connect through the chain."""
    ctx.owner.value("SELECT public.threadline_grant('harness_app', reading => true)")
    return ctx.client()
