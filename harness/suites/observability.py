"""Observability: what the trail tells its operators, and what it must not."""

from __future__ import annotations

import contextlib
import io
import logging
from threading import get_ident
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.coverage import coverage, violations
from harness.audit.export import export
from harness.audit.retention import Policy, purge
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Event, Telemetry
from harness.audit.work import Action, audited
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError
from harness.model import Section
from harness.suites.actors import ADA, reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext

_HERE = Section.OBSERVABILITY
_CANARY = "canary-4711"


def _listening() -> tuple[Telemetry, list[Event]]:
    to, heard = Telemetry(), list[Event]()
    to.attach(heard.append)
    return to, heard


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the purge's log lines of this thread; other checks purge at the same time."""
    lines: list[str] = []
    here = get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                lines.append(record.getMessage())

    logger, handler = logging.getLogger("harness.audit.purge"), Collect()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


@check(
    "observability.health",
    claim="the health check counts what is captured, and names each expected table that is not",
    section=_HERE,
    severity=P0,
    item="1.4",
    area="coverage",
    requires_features=(TrailFeature.LIBRARY,),
)
def health(ctx: CheckContext) -> None:
    to, heard = _listening()
    found = coverage(ctx.owner, to=to)
    told = {each.name: each.problem for each in found}
    counts = {
        "covered": sum(each is None for each in told.values()),
        "uncovered": sum(each is not None for each in told.values()),
    }
    ctx.expect(
        "event", [(each.name, each.measurements) for each in heard], equals=[("threadline.health.checked", counts)]
    )
    ctx.expect("the trail's own tables", [name for name in told if ".audit_" in name], equals=[])
    expected = ["posts", "drafts", "Shop.nowhere", "authors", "anywhere", "posts"]
    wrong = [(each.kind, each.name) for each in violations(found, expected)]
    ctx.expect(
        "violations",
        wrong,
        equals=[("missing", "Shop.nowhere"), ("missing", "public.anywhere"), ("uncovered", "public.drafts")],
    )
    ctx.expect(
        "tables that nobody expects", "public.drafts" in told and not violations(found, ["posts"]), equals=True
    )
    try:
        outcome = str(violations(found, []))
    except ValueError:
        outcome = "refused"
    ctx.expect("expecting nothing", outcome, equals="refused")


@breaks(health, at="violations")
def health_of_a_table_that_lost_its_capture(ctx: CheckContext) -> None:
    ctx.disable_capture("public.authors")


@check(
    "observability.after-commit",
    claim="events tell what was committed: work that was rolled back, or failed at its commit, is not counted",
    section=_HERE,
    severity=P1,
    item="6.1",
    area="telemetry",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def after_commit(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE FUNCTION public.too_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.title = 'fails at commit' THEN "
        "RAISE EXCEPTION 'at commit' USING ERRCODE = 'check_violation'; END IF; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON public.posts DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION public.too_late()"
    )
    ctx.target.attach(ctx.owner, "public.posts")
    client = ctx.client()
    to, seen = Telemetry(), list[tuple[str, int]]()
    to.attach(lambda event: seen.append((event.name, ctx.admin.value("SELECT count(*) FROM public.posts"))))

    def work(title: str) -> None:
        with audited(client, ADA, action=Action(name="posted"), to=to):
            client.run("INSERT INTO public.posts (slug, title) VALUES (%s, %s)", [title, title])
            if title == "fails before":
                client.run("SELECT 1 / 0")

    for title, state in (("fails before", "22012"), ("fails at commit", "23514")):
        ctx.expect(f"work that {title}", ctx.sqlstate(lambda title=title: work(title)), equals=state)  # type: ignore[misc]
    ctx.expect("events of failed work", seen, equals=[])
    work("committed")
    told = [("threadline.transaction.committed", 1), ("threadline.action.recorded", 1)]
    ctx.expect("events, and the rows that others saw by then", seen, equals=told)


@breaks(after_commit, at="events of failed work")
def after_commit_of_what_did_not_fail(ctx: CheckContext) -> None:
    """A role whose triggers are silent: nothing objects at the commit."""
    ctx.sabotage(f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET session_replication_role = replica")


@check(
    "observability.actions",
    claim="every recorded action is told with its status, and one that could not be recorded as an error",
    section=_HERE,
    severity=P1,
    item="6.1",
    area="telemetry",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def actions(ctx: CheckContext) -> None:
    client = ctx.client()
    to, heard = _listening()
    for name, status in (("paid", "ok"), ("declined", "error")):
        with audited(client, ADA, action=Action(name=name, status=status), to=to) as work:
            ctx.insert_post(client, name)
            work.table_count = 1
    told = [each.measurements for each in heard if each.name == "threadline.action.recorded"]
    ctx.expect("actions told", told, equals=[{"status": "ok"}, {"status": "error"}])
    counted = [each.measurements for each in heard if each.name == "threadline.transaction.committed"]
    ctx.expect("transactions told", counted, equals=[{"actions": 1, "table_count": 1}] * 2)
    heard.clear()
    with contextlib.suppress(SqlError), audited(client, ADA, action=Action(name="x", status="maybe"), to=to):
        ctx.insert_post(client, "x")
    heard_then = [(each.name, each.measurements) for each in heard]
    ctx.expect("an action that is refused", heard_then, equals=[("threadline.action.recorded", {"status": "error"})])


@breaks(actions, at="an action that is refused")
def actions_are_not_refused(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")


@check(
    "observability.purge-logs",
    claim="a purge logs and tells each batch with its counts, and how it ended",
    section=_HERE,
    severity=P1,
    item="6.2",
    area="purge",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def purge_logs(ctx: CheckContext) -> None:
    client = ctx.client()
    for n in range(3):
        ctx.write(client, ADA, str(n))
    ctx.admin.run(ctx.target.statements.age.replace("%(age)s", "'90 days'"))
    to, heard = _listening()
    with _logged() as lines:
        purge(ctx.owner, Policy(enabled=True, keep_days=30), batch_size=2, to=to)
    ctx.expect(
        "log lines",
        lines,
        equals=[
            "retention purge batch 1: changes=2 transactions=2 actions=0; so far changes=2 transactions=2 actions=0",
            "retention purge batch 2: changes=1 transactions=1 actions=0; so far changes=3 transactions=3 actions=0",
            "retention purge complete: changes=3 transactions=3 actions=0 batches=2",
        ],
    )
    told = [(each.name, each.measurements.get("changes")) for each in heard]
    batch, whole = "threadline.retention.batch_purged", "threadline.retention.purged"
    ctx.expect("events", told, equals=[(batch, 2), (batch, 1), (whole, 3)])


@breaks(purge_logs, at="log lines")
def purge_logs_of_a_purge_that_missed_one(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("LIMIT batch_size", "LIMIT 1"))


@check(
    "observability.no-values",
    claim="neither events nor logs carry a value, an actor, a correlation or free text",
    section=_HERE,
    severity=P0,
    item="6.1",
    area="telemetry",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def no_values(ctx: CheckContext) -> None:
    client = ctx.client()
    to, heard = _listening()
    status = ctx.application.action_status
    action = Action(
        name=_CANARY, status=status, comment=_CANARY, correlation_id=_CANARY, request_id=_CANARY, job_id=_CANARY
    )
    with audited(client, Actor("user", _CANARY), action=action, to=to):
        ctx.insert_post(client, _CANARY)
    coverage(ctx.owner, to=to)
    export(reader(ctx), io.StringIO(newline=""), "json", to=to)
    ctx.admin.run(ctx.target.statements.age.replace("%(age)s", "'90 days'"))
    with _logged() as lines:
        purge(ctx.owner, Policy(enabled=True, keep_days=30), to=to)
    ctx.expect("kinds of events", len({each.name for each in heard}), equals=6)
    ctx.expect("lines were logged", len(lines), equals=2)
    ctx.expect("events with a value", [each.name for each in heard if _CANARY in repr(each)], equals=[])
    ctx.expect("log lines with a value", [line for line in lines if _CANARY in line], equals=[])


@breaks(no_values, at="events with a value")
def no_values_but_a_status_that_is_one(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")
    ctx.application.action_status = _CANARY
