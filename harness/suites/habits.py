"""Who acts in the actor suite, and careless habits that its controls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

ADA, BOB = Actor("user", "ada"), Actor("user", "bob")
MALLORY = Actor("user", "mallory")

#: where to look first
CAPTURE_TRIGGER = "capture trigger"
ACTOR_SETTING = "actor setting"


def default_actor(ctx: CheckContext) -> None:
    """Let every new server connection begin with an actor that nobody declared."""
    ctx.sabotage(
        f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET {ctx.application.setting} = '{ctx.target.actor.spell(MALLORY)}'"
    )


def declare_outside(ctx: CheckContext) -> None:
    """Set the actor locally, but in a transaction of its own before that of the write."""
    habits = ctx.application

    def audited(client: Client, actor: Actor | None) -> Any:
        if actor:
            habits.declare_locally(client, actor)
        return habits.transaction(client)

    habits.audited = audited  # type: ignore[method-assign]


def reader(ctx: CheckContext) -> Client:
    """Let the application role read the trail, and connect through the chain."""
    ctx.owner.value("SELECT public.threadline_grant('harness_app', reading => true)")
    return ctx.client()


def unlink_actions(ctx: CheckContext) -> None:
    """Record actions as a host does that forgets to link them."""
    ctx.rewrite_function(
        "threadline_record_action",
        ("action_id = coalesce(t.action_id, EXCLUDED.action_id)", "action_id = t.action_id"),
    )


def blind_coverage(ctx: CheckContext) -> None:
    """Let coverage call everything captured."""
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE "
        "AS 'SELECT NULL::text'"
    )
