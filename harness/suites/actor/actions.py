"""Actor: an application's semantic actions, recorded and linked to the changes of their transactions."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor, ActorError
from harness.audit.job import actor_from_args, context_from_args, job_args
from harness.audit.reading import Filter, timeline
from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, SEVERAL_SERVER_CONNECTIONS, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import relay
from harness.model import Section
from harness.suites.actors import ADA, ATTRIBUTED_ROWS, BOB, reader
from harness.suites.sabotage import unlink_actions
from harness.suites.undeclared import UNDECLARED_ROWS, nobody, undeclared_actor, write_undeclared

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR
_AREA = "actions"
_NONE = "no action"


def _linked(ctx: CheckContext, column: str = "name") -> dict[str, Any]:
    """Return a column of the action that the change of each post refers to, by the post's slug."""
    actions = ctx.target.actions(ctx.admin)
    found: dict[str, Any] = {}
    for change in ctx.changes("posts"):
        action = actions.get(change.action_id or "")
        unknown = _NONE if change.action_id is None else "an action that is not there"
        found[change.text("slug")] = action[column] if action else unknown
    return found


@check(
    "actor.action-recorded",
    claim="an action is read back as it was recorded, and exactly the changes of its transaction refer to it",
    section=_HERE,
    severity=P0,
    item="2.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTIONS,),
    records=ATTRIBUTED_ROWS,
)
def action_recorded(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.target.record_action(client, "Post.Announced", "c-0", "j-0")
        ctx.insert_post(client, "after its action")
    with ctx.audited(client, BOB):
        ctx.insert_post(client, "before its action")
        ctx.insert_post(client, "before it, too")
        ctx.target.record_action(client, "posted", "c-1", "j-1")
    ctx.write(client, ADA, "without")
    expected = [("Post.Announced", "c-0", "j-0", ADA), ("posted", "c-1", "j-1", BOB)]
    if ctx.claims(TrailFeature.ACTOR_TYPES):
        expected.append(("signed up, twice", "c-2", "j-2", Actor("anonymous")))
        with ctx.audited(client, Actor("anonymous")):
            ctx.target.record_action(client, "signed up, twice", "c-2", "j-2")
            ctx.insert_post(client, "anonymous")
    actions = sorted(ctx.target.actions(ctx.admin).values(), key=lambda action: str(action["correlation_id"]))
    ctx.expect(
        "names and correlations",
        [(action["name"], action["correlation_id"]) for action in actions],
        equals=[(name, correlation) for name, correlation, _, _ in expected],
    )
    if ctx.target.keeps_jobs and any("job_id" in action for action in actions):
        jobs = [action.get("job_id") for action in actions]
        ctx.expect("jobs of the actions", jobs, equals=[job for _, _, job, _ in expected])
    if any("actor" in action for action in actions):
        actors = [action["actor"] for action in actions]
        ctx.expect("actors of the actions", actors, equals=[actor.reference for *_, actor in expected])
    linked = {
        "after its action": "Post.Announced",
        "before its action": "posted",
        "before it, too": "posted",
        "without": _NONE,
        **({"anonymous": "signed up, twice"} if ctx.claims(TrailFeature.ACTOR_TYPES) else {}),
    }
    ctx.expect("actions that the changes refer to", _linked(ctx), equals=linked)
    if ctx.target.is_reference:
        _expect_fields(ctx, client)


def _expect_fields(ctx: CheckContext, client: Client) -> None:
    """Expect that the library's function keeps all fields of an action, and refuses invalid ones."""
    fields = dict.fromkeys(("verb", "category", "reason", "comment", "request_id"), "it's fine")
    with ctx.audited(client, ADA):
        arguments = ", ".join(f"{name} => %s" for name in fields)
        client.value(f"SELECT public.threadline_record_action('all', {arguments})", list(fields.values()))
    [(stored,)] = ctx.admin.rows("SELECT to_jsonb(a) FROM public.audit_actions a WHERE name = 'all'")
    ctx.expect("fields", {name: stored[name] for name in fields}, equals=fields)
    for what, arguments, state in (
        ("an action without an actor", "'x'", "22023"),
        ("an action with an unknown status", f"'x', '{ADA.setting}', 'maybe'", "23514"),
    ):
        record = partial(client.value, f"SELECT public.threadline_record_action({arguments})")
        ctx.expect(what, ctx.sqlstate(record), equals=state)


@breaks(action_recorded, at="actions that the changes refer to")
def action_not_linked(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(action_recorded, at="actions that the changes refer to")
def action_of_everything(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.action_id := gen_random_uuid()")


@breaks(action_recorded, at="actors of the actions")
def action_of_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", f"NEW.actor_ref := '{BOB.setting}'")


@breaks(action_recorded, at="jobs of the actions")
def action_of_another_job(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", "NEW.job_id := 'j-0'")


@check(
    "actor.action-rolled-back",
    claim="an action that is rolled back leaves nothing, and no other change refers to it",
    section=_HERE,
    severity=P0,
    item="2.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTIONS,),
    records=ATTRIBUTED_ROWS,
)
def action_rolled_back(ctx: CheckContext) -> None:
    client, application = ctx.client(), ctx.application
    application.begin_audited(client, ADA)
    ctx.target.record_action(client, "undone", "c-0")
    ctx.insert_post(client, "undone")
    client.run(application.undo)
    ctx.write(client, ADA, "after a rollback")
    with ctx.audited(client, ADA):
        client.run("SAVEPOINT s")
        ctx.target.record_action(client, "undone in a savepoint", "c-1")
        client.run(application.undo_to.format("s"))
        ctx.insert_post(client, "after a savepoint")
    with ctx.audited(client, BOB):
        ctx.target.record_action(client, "kept", "c-2")
        client.run("SAVEPOINT s")
        ctx.insert_post(client, "undone in a savepoint")
        client.run("ROLLBACK TO SAVEPOINT s")
        ctx.insert_post(client, "kept")
    names = [action["name"] for action in ctx.target.actions(ctx.admin).values()]
    ctx.expect("actions", names, equals=["kept"])
    expected = {"after a rollback": _NONE, "after a savepoint": _NONE, "kept": "kept"}
    ctx.expect("actions that the changes refer to", _linked(ctx), equals=expected)


@breaks(action_rolled_back, at="actions")
def action_that_is_committed(ctx: CheckContext) -> None:
    ctx.application.undo = "COMMIT"


@breaks(action_rolled_back, at="actions that the changes refer to")
def action_of_the_kept_savepoint(ctx: CheckContext) -> None:
    ctx.application.undo_to = "RELEASE SAVEPOINT {}"


@check(
    "actor.actions-apart",
    claim="changes of two clients that work at the same time refer to their own actions, and name their own actors",
    section=_HERE,
    severity=P0,
    item="2.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    requires_features=(TrailFeature.ACTIONS,),
    records=ATTRIBUTED_ROWS,
)
def actions_apart(ctx: CheckContext) -> None:
    pair = list(zip(ctx.clients(2), (ADA, BOB), strict=True))
    expected = {}
    for n in range(3):
        with ExitStack() as stack:
            for client, actor in pair:
                stack.enter_context(ctx.audited(client, actor))
                ctx.target.record_action(client, f"{actor.id}-{n}", f"c-{actor.id}-{n}")
            for client, actor in pair:
                ctx.insert_post(client, f"{actor.id}-{n}")
                expected[f"{actor.id}-{n}"] = f"c-{actor.id}-{n}"
    ctx.expect("correlations of the changes", _linked(ctx, "correlation_id"), equals=expected)
    actors = {change.text("slug"): change.actor for change in ctx.changes("posts")}
    own = {f"{actor.id}-{n}": actor.reference for n in range(3) for actor in (ADA, BOB)}
    ctx.expect("actors of the changes", actors, equals=own)


@breaks(actions_apart, at="correlations of the changes")
def actions_are_swapped(ctx: CheckContext) -> None:
    first = "SELECT id FROM public.audit_actions ORDER BY inserted_at LIMIT 1"
    ctx.tamper("audit_transactions", f"NEW.action_id := ({first})")


@breaks(actions_apart, at="actors of the changes")
def actions_of_one_actor(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{BOB.setting}'")


#: correlations that are easily taken for each other, or for something else
_CORRELATIONS = (
    *("c-1", "C-1", "c-01", "1", "01", "1.0", "null", "4f9c1e9a-7b1d-4c55-9e2b-0d6a3f1c2b7e"),
    *("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 'it\'s "100%" {name}', "back\\slash"),
    *("Zo\u00eb", "Zoe\u0308", f"{'x' * 199}1", f"{'x' * 199}2"),
)
#: the same with blanks around it, which a trail may keep or remove
_PADDED = "  c-2\t"


@check(
    "actor.correlation-stored",
    claim="an action is found by the correlation that it was recorded with, as it is, or without blanks around it",
    section=_HERE,
    severity=P1,
    item="2.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTIONS,),
    records=ATTRIBUTED_ROWS,
)
def correlation_stored(ctx: CheckContext) -> None:
    client = ctx.client()
    for number, correlation in enumerate((*_CORRELATIONS, _PADDED)):
        with ctx.audited(client, ADA):
            ctx.insert_post(client, str(number))
            ctx.target.record_action(client, "posted", correlation)
    found = _linked(ctx, "correlation_id")
    padded = found.pop(str(len(_CORRELATIONS)), None)
    expected = {str(number): correlation for number, correlation in enumerate(_CORRELATIONS)}
    lost = {expected[slug]: seen for slug, seen in found.items() if seen != expected[slug]}
    ctx.expect("correlations that come back as another", lost, equals={})
    ctx.expect("changes with a correlation", len(found), equals=len(expected))
    ctx.expect("a correlation with blanks around it", str(padded).strip(), equals=_PADDED.strip())
    if ctx.target.is_reference:
        ctx.expect("blanks removed", padded, equals=_PADDED.strip())
        matching = timeline(reader(ctx), Filter(correlation_id="c-1"))
        ctx.expect("changes that a search finds", len(matching), equals=1)


@breaks(correlation_stored, at="correlations that come back as another")
def correlation_in_lower_case(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", "NEW.correlation_id := lower(NEW.correlation_id)")


@breaks(correlation_stored, at="changes that a search finds")
def correlation_stored_with_a_blank(ctx: CheckContext) -> None:
    ctx.tamper("audit_actions", "NEW.correlation_id := ' ' || NEW.correlation_id")


@check(
    "actor.jobs",
    claim="a job's changes have the actor and the correlation that it was enqueued with, and the next one's do not",
    section=_HERE,
    severity=P0,
    item="2.2",
    area="jobs",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTIONS,),
    records=UNDECLARED_ROWS,
)
def jobs(ctx: CheckContext) -> None:
    mailer = Actor("service_account" if ctx.claims(TrailFeature.ACTOR_TYPES) else "user", "mailer")
    queue: list[str] = []
    outcomes: list[str] = []

    def request(client: Client) -> None:
        with ctx.audited(client, ADA):
            ctx.insert_post(client, "by the request")
            ctx.target.record_action(client, "posted", "c-1")
            queue.append(json.dumps(job_args(mailer, correlation_id="c-1")))
            queue.append(json.dumps({"post_id": 1}))

    def worker(client: Client) -> str:
        for number, raw in enumerate(queue):
            args = json.loads(raw)
            try:
                actor = actor_from_args(args)
            except ActorError as error:
                outcomes.append(error.tag)
                continue
            context = context_from_args(args, job_id=str(number))
            with ctx.audited(client, actor):
                ctx.insert_post(client, "by the job")
                ctx.target.record_action(client, "mailed", context["correlation_id"], context["job_id"])
        return write_undeclared(ctx, client, "by the worker")

    _, refused = relay(ctx, request, worker)
    ctx.expect("a job without an actor", outcomes, equals=["missing_actor_ref"])
    ctx.expect("actor of the request", ctx.actor_of("by the request"), equals=ADA.reference)
    ctx.expect("actor of the job", ctx.actor_of("by the job"), equals=mailer.reference)
    own = undeclared_actor(ctx, "by the worker", refused)
    ctx.expect("actor of the worker's own write", own, equals=nobody(ctx))
    unlinked = {} if refused else {"by the worker": _NONE}
    correlations = {"by the request": "c-1", "by the job": "c-1"} | unlinked
    ctx.expect("correlations of the changes", _linked(ctx, "correlation_id"), equals=correlations)
    if ctx.target.keeps_jobs and any("job_id" in action for action in ctx.target.actions(ctx.admin).values()):
        expected = {"by the request": None, "by the job": "0"} | unlinked
        ctx.expect("jobs of the changes", _linked(ctx, "job_id"), equals=expected)


@breaks(jobs, at="correlations of the changes")
def jobs_that_link_nothing(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks(jobs, at="actor of the job")
def jobs_under_a_wrong_name(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{ADA.setting}'")
