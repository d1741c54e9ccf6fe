"""Who acts in the actor suite, and careless habits that its controls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor

if TYPE_CHECKING:
    from harness.checks.context import Bench
    from harness.database import Client

ADA, BOB = Actor("user", "ada"), Actor("user", "bob")
MALLORY = Actor("user", "mallory")

#: where to look first
CAPTURE_TRIGGER = "capture trigger"
ACTOR_SETTING = "actor setting"


def default_actor(bench: Bench) -> None:
    """Let every new server connection begin with an actor that nobody declared."""
    bench.sabotage(
        f"ALTER ROLE harness_app IN DATABASE {bench.database} SET {bench.application.setting} = '{bench.target.actor.spell(MALLORY)}'"
    )


def declare_outside(bench: Bench) -> None:
    """Set the actor locally, but in a transaction of its own before that of the write."""
    habits = bench.application

    def audited(client: Client, actor: Actor | None) -> Any:
        if actor:
            habits.declare_locally(client, actor)
        return habits.transaction(client)

    habits.audited = audited  # type: ignore[method-assign]


def reader(bench: Bench) -> Client:
    """Let the application role read the trail, and connect through the chain."""
    bench.owner.value("SELECT public.threadline_grant('harness_app', reading => true)")
    return bench.client()


def unlink_actions(bench: Bench) -> None:
    """Record actions as a host does that forgets to link them."""
    bench.rewrite_function(
        "threadline_record_action",
        ("action_id = coalesce(t.action_id, EXCLUDED.action_id)", "action_id = t.action_id"),
    )


def blind_coverage(bench: Bench) -> None:
    """Let coverage call everything captured."""
    bench.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE "
        "AS 'SELECT NULL::text'"
    )
