"""Actor: units of work, jobs and actions, used like the library's callers use them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor, ActorError
from harness.audit.job import actor_from_args, context_from_args, job_args
from harness.audit.reading import Filter, timeline
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, NestedWorkError, audited, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import relay
from harness.database import SqlError
from harness.model import Section
from harness.suites.actors import ADA, BOB, reader
from harness.suites.areas import ACTOR_SETTING
from harness.suites.sabotage import unlink_actions

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR


def _work(client: Client, actor: Actor = ADA, action: Action | None = None) -> Any:
    return audited(client, actor, action=action, to=Telemetry())


@check(
    "actor.unit-of-work",
    claim="a unit of work is one transaction with its actor and its action, and nesting is refused",
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


@breaks(unit_of_work, at="action linked")
def unit_of_work_that_links_nothing(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(unit_of_work, at="actors")
def unit_of_work_of_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{ADA.setting}'")


@check(
    "actor.unit-of-work-fails",
    claim="a unit of work whose action cannot be recorded writes nothing, and the error carries a hint",
    section=_HERE,
    severity=P0,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def unit_of_work_fails(ctx: CheckContext) -> None:
    client = ctx.client()

    def attempt(action: Action) -> tuple[str | None, bool]:
        try:
            with _work(client, action=action):
                ctx.insert_post(client, "never")
        except SqlError as error:
            return error.sqlstate, bool(getattr(error, "__notes__", []))
        return "done", False

    ctx.expect("an unknown status", attempt(Action(name="x", status="maybe")), equals=("23514", True))
    ctx.expect("a blank correlation", attempt(Action(name="x", correlation_id=" ")), equals=("22023", True))
    ctx.expect("a long correlation", attempt(Action(name="x", correlation_id="ü" * 129)), equals=("22023", True))
    ctx.expect("rows written", ctx.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    ctx.expect("changes", len(ctx.changes()), equals=0)


@breaks(unit_of_work_fails, at="rows written")
def unit_of_work_with_any_status(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")


@check(
    "actor.jobs",
    claim="a job uses the actor and the correlation it was enqueued with, and its changes are found with the request's",
    section=_HERE,
    severity=P0,
    item="2.2",
    area="jobs",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def jobs(ctx: CheckContext) -> None:
    queue: list[str] = []
    outcomes: list[str] = []

    def request(client: Client) -> None:
        with _work(client, action=Action(name="posted", correlation_id="c-1", request_id="r-1")):
            ctx.insert_post(client, "by the request")
            queue.append(json.dumps(job_args(Actor("service_account", "mailer"), correlation_id="c-1")))
            queue.append(json.dumps({"post_id": 1}))

    def worker(client: Client) -> None:
        for number, raw in enumerate(queue):
            args = json.loads(raw)
            try:
                actor = actor_from_args(args)
            except ActorError as error:
                outcomes.append(error.tag)
                continue
            context = context_from_args(args, job_id=str(number))
            with _work(client, actor, Action(name="post_mailed", **context)):
                ctx.insert_post(client, "by the job")

    relay(ctx, request, worker)
    ctx.expect("a job without an actor", outcomes, equals=["missing_actor_ref"])
    ctx.expect("actor of the request", ctx.actor_of("by the request"), equals=ADA.reference)
    ctx.expect("actor of the job", ctx.actor_of("by the job"), equals={"type": "service_account", "id": "mailer"})
    correlated = timeline(reader(ctx), Filter(correlation_id="c-1"))
    slugs = [str((change.data_after or {}).get("slug")) for change in correlated]
    ctx.expect("changes with the correlation", slugs, equals=["by the job", "by the request"])
    actions = ctx.admin.rows(
        "SELECT name, correlation_id, request_id, job_id FROM public.audit_actions ORDER BY inserted_at"
    )
    ctx.expect("actions", actions, equals=[("posted", "c-1", "r-1", None), ("post_mailed", "c-1", None, "0")])


@breaks(jobs, at="changes with the correlation")
def jobs_that_link_nothing(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(jobs, at="actor of the job")
def jobs_under_a_wrong_name(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{ADA.setting}'")


@check(
    "actor.correlation-stored",
    claim="a correlation is stored without surrounding blanks, so that a search finds it",
    section=_HERE,
    severity=P1,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def correlation_stored(ctx: CheckContext) -> None:
    client = ctx.client()
    with _work(client, action=Action(name="posted", correlation_id="  c-1\t\n", request_id=" r ", job_id=" j ")):
        ctx.insert_post(client, "x")
    stored = ctx.admin.rows("SELECT correlation_id, request_id, job_id FROM public.audit_actions")
    ctx.expect("stored", stored, equals=[("c-1", "r", "j")])
    ctx.expect("found", len(timeline(reader(ctx), Filter(correlation_id="c-1"))), equals=1)


@breaks(correlation_stored, at="found")
def correlation_stored_with_a_blank(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", "NEW.correlation_id := ' ' || NEW.correlation_id")


@check(
    "actor.action-linkage",
    claim="an action is linked to the transaction that recorded it; a write without an action is captured unlinked",
    section=_HERE,
    severity=P0,
    item="2.3",
    area="actions",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTIONS,),
)
def action_linkage(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.target.record_action(client, "announced", "c-0")
        ctx.insert_post(client, "after its action")
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "before its action")
        ctx.target.record_action(client, "posted", "c-1")
    ctx.write(client, ADA, "without")
    linked = {change.text("slug"): change.action_id for change in ctx.changes("posts")}
    has_action = {slug: action is not None for slug, action in linked.items()}
    ctx.expect("linked", has_action, equals={"after its action": True, "before its action": True, "without": False})
    ctx.expect("different actions, none included", len(set(linked.values())), equals=3)


@breaks(action_linkage, at="linked")
def action_linkage_left_to_the_host(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(action_linkage, at="linked")
def action_linkage_of_everything(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.action_id := gen_random_uuid()")


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
