"""Sabotages that the controls of several suites share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.database import quote_literal
from harness.suites.actors import MALLORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext
    from harness.database import Client


def default_actor(ctx: CheckContext) -> None:
    """Start every new server connection with an actor that nobody declared."""
    values = ctx.application.values(MALLORY)
    if not values:
        raise NotExercisedError("no setting holds the actor, so no default of a setting can")
    for name, text in values.items():
        ctx.sabotage(f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET {name} = {quote_literal(text)}")


def claim_required(ctx: CheckContext) -> None:
    """Claim that the trail refuses writes without an actor, which it does not."""
    ctx.target = replace(ctx.target, actor=replace(ctx.target.actor, required=True))


def declare_outside(ctx: CheckContext) -> None:
    """Set the actor locally, but in autocommit before the transaction of the write."""
    application = ctx.application

    @contextlib.contextmanager
    def audited(client: Client, actor: Actor | None, *, first: str = "") -> Iterator[Client]:
        if actor:
            application.declare_locally(client, actor)
        with application.transaction(client):
            if first:
                client.run(first)
            yield client

    application.audited = audited  # type: ignore[method-assign]


def unlink_actions(ctx: CheckContext) -> None:
    """Record actions without linking them to their transaction."""
    ctx.rewrite_function(
        "threadline_record_action",
        ("action_id = coalesce(t.action_id, EXCLUDED.action_id)", "action_id = t.action_id"),
    )


def blind_coverage(ctx: CheckContext) -> None:
    """Make coverage report every table as captured."""
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE "
        "AS 'SELECT NULL::text'"
    )


def capture_by_statement(ctx: CheckContext) -> None:
    """Let the tables that are attached from now on be captured by statement, also where rows have to be captured one by one."""
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_is_row_wise(relation regclass) RETURNS boolean LANGUAGE sql STABLE "
        "AS 'SELECT false'"
    )
