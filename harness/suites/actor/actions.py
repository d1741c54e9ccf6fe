"""Actor: an application's semantic actions, recorded and linked to its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor
from harness.audit.target_file import TrailFeature
from harness.checks.registry import (
    P1,
    TRANSACTION_BLOCKS,
    breaks,
    check,
)
from harness.model import Section
from harness.suites.actors import ADA, BOB
from harness.suites.sabotage import unlink_actions

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.ACTOR


def _actions(ctx: CheckContext) -> list[dict[str, Any]]:
    return [row for (row,) in ctx.admin.rows("SELECT to_jsonb(a) FROM public.audit_actions a ORDER BY inserted_at")]


@check(
    "actor.action-recorded",
    claim="an action is recorded with its actor and all its fields, and is linked to its transaction",
    section=_HERE,
    severity=P1,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def action_recorded(ctx: CheckContext) -> None:
    client = ctx.client()
    fields = {
        "verb": "publish",
        "category": "post",
        "reason": "asked",
        "comment": "it's fine",
        "correlation_id": "c-1",
        "request_id": "r-1",
        "job_id": "j-1",
    }
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "published")
        client.value(
            "SELECT public.threadline_record_action('post_published', "
            + ", ".join(f"{name} => %s" for name in fields)
            + ")",
            list(fields.values()),
        )
    ctx.write(client, ADA, "unlinked")
    actions = _actions(ctx)
    if ctx.expect("actions", [action["name"] for action in actions], equals=["post_published"]):
        action = actions[0]
        ctx.expect("status", action["status"], equals="ok")
        ctx.expect("actor", action["actor_ref"], equals=ADA.reference)
        ctx.expect("fields", {name: action[name] for name in fields}, equals=fields)
        linked = {change.text("slug"): change.action_id for change in ctx.changes("posts")}
        ctx.expect("actions linked", linked, equals={"published": action["id"], "unlinked": None})
    ctx.expect(
        "an action without an actor",
        ctx.sqlstate(lambda: client.value("SELECT public.threadline_record_action('x')")),
        equals="22023",
    )
    ctx.expect(
        "an action with an unknown status",
        ctx.sqlstate(lambda: client.value("SELECT public.threadline_record_action('x', %s, 'maybe')", [ADA.setting])),
        equals="23514",
    )


@breaks(action_recorded, at="actions linked")
def action_not_linked(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(action_recorded, at="actor")
def action_of_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", f"NEW.actor_ref := '{BOB.setting}'")


@check(
    "actor.action-anonymous",
    claim="an anonymous action is stored without an id, and an action before the first write is linked too",
    section=_HERE,
    severity=P1,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def action_anonymous(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, Actor("anonymous")):
        client.value('SELECT public.threadline_record_action(\'signed_up\', \'{"type": "anonymous", "id": "x"}\')')
        ctx.insert_post(client, "anonymous")
    actions = _actions(ctx)
    ctx.expect("actor of the action", [action["actor_ref"] for action in actions], equals=[{"type": "anonymous"}])
    ctx.expect("actor of the change", ctx.actor_of("anonymous"), equals={"type": "anonymous"})
    ctx.expect(
        "linked", [change.action_id for change in ctx.changes("posts")], equals=[action["id"] for action in actions]
    )


@breaks(action_anonymous, at="actor of the action")
def action_anonymous_with_an_id(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", """NEW.actor_ref := '{"type": "anonymous", "id": "x"}'""")
