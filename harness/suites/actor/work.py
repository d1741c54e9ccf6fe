"""Actor: units of work and their actions, used like the library's callers use them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.reading import Filter, timeline
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, NestedWorkError, audited, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError
from harness.model import Section
from harness.suites.actors import ADA, BOB, reader
from harness.suites.areas import ACTOR_SETTING
from harness.suites.sabotage import unlink_actions

if TYPE_CHECKING:
    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR


def _work(client: Client, actor: Actor = ADA, action: Action | None = None) -> Any:
    return audited(client, actor, action=action, to=Telemetry())


@check(
    "actor.unit-of-work",
    claim="a unit of work is one transaction with its actor and its action; one that is nested or refused writes nothing",
    section=_HERE,
    severity=P0,
    item="2.3",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def unit_of_work(ctx: CheckContext) -> None:
    client = ctx.client()
    with _work(client, action=Action(name="posted")) as work:
        ctx.insert_post(client, "one")
        ctx.insert_post(client, "two")
    with _work(client, BOB):
        ctx.insert_post(client, "bob's")
    changes = ctx.changes("posts")
    ctx.expect(
        "transaction id of the unit of work",
        {change.transaction_id for change in changes[:2]},
        equals={work.transaction_id},
    )
    ctx.expect("action linked", [change.action_id for change in changes], equals=[*work.action_ids * 2, None])
    actors = [change.actor for change in changes]
    ctx.expect("actors", actors, equals=[ADA.reference, ADA.reference, BOB.reference])
    with client.transaction():
        try:
            with _work(client):
                outcome = "nested"
        except NestedWorkError:
            outcome = "refused"
    ctx.expect("within a transaction", outcome, equals="refused")
    for name, action, state in (
        ("an unknown status", Action(name="x", status="maybe"), "23514"),
        ("a blank correlation", Action(name="x", correlation_id=" "), "22023"),
        ("a long correlation", Action(name="x", correlation_id="ü" * 129), "22023"),
    ):
        ctx.expect(f"{name}, and whether the error has a hint", _refused(ctx, client, action), equals=(state, True))
    refused = "SELECT count(*) FROM public.posts WHERE slug = 'never'"
    ctx.expect("rows of refused work", ctx.admin.value(refused), equals=0)
    ctx.expect("changes of refused work", len(ctx.changes()), equals=len(changes))


def _refused(ctx: CheckContext, client: Client, action: Action) -> tuple[str | None, bool]:
    try:
        with _work(client, action=action):
            ctx.insert_post(client, "never")
    except SqlError as error:
        return error.sqlstate, bool(getattr(error, "__notes__", []))
    return "done", False


@breaks(unit_of_work, at="action linked")
def unit_of_work_that_links_nothing(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(unit_of_work, at="actors")
def unit_of_work_of_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{ADA.setting}'")


@breaks(unit_of_work, at="rows of refused work")
def unit_of_work_with_any_status(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")


@check(
    "actor.linked-action-kept",
    claim="an action linked to a transaction cannot be deleted, so no correlation is lost silently",
    section=_HERE,
    severity=P1,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def linked_action_kept(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "x")
        record_action(client, Action(name="posted", correlation_id="c-1"))
    outcome = ctx.sqlstate(partial(ctx.owner.run, "DELETE FROM public.audit_actions"))
    ctx.expect("deleting it", outcome, equals="23503")
    ctx.expect("changes with its correlation", len(timeline(reader(ctx), Filter(correlation_id="c-1"))), equals=1)


@breaks(linked_action_kept, at="deleting it")
def linked_action_deletable(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DISABLE TRIGGER audit_actions_keep_linked")
