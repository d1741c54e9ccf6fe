"""Observability: the events and log lines of the trail, and the values that they must not contain."""

from __future__ import annotations

import contextlib
import io
import logging
from threading import get_ident
from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor
from harness.audit.coverage import coverage, violations
from harness.audit.export import export
from harness.audit.retention import purge
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Event, Telemetry
from harness.audit.work import Action, audited
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError
from harness.model import Section
from harness.suites.actors import ADA, reader
from harness.suites.retention.purging import DAYS, age, policy_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.OBSERVABILITY
_CANARY = "canary-4711"
#: whether the server's log has statements that did not fail, with their values: by its own settings or an extension's
_LOGS_STATEMENTS = """
SELECT current_setting('log_statement') IN ('mod', 'all') OR current_setting('log_min_duration_statement') <> '-1'
    OR current_setting('log_min_duration_sample') <> '-1' OR current_setting('log_transaction_sample_rate') <> '0'
    OR coalesce(nullif(current_setting('auto_explain.log_min_duration', true), ''), '-1') <> '-1'
    OR coalesce(nullif(current_setting('pgaudit.log', true), ''), 'none') <> 'none'"""


def _recorded_telemetry() -> tuple[Telemetry, list[Event]]:
    """Return telemetry, and the list that receives its events."""
    telemetry, events = Telemetry(), list[Event]()
    telemetry.attach(events.append)
    return telemetry, events


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the log lines that a purge writes in this thread; other checks purge at the same time."""
    lines: list[str] = []
    this_thread = get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == this_thread:
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
    claim="the health check counts captured tables and names each expected table that is not captured",
    section=_HERE,
    severity=P0,
    item="1.4",
    area="coverage",
    requires_features=(TrailFeature.LIBRARY,),
)
def health(ctx: CheckContext) -> None:
    telemetry, events = _recorded_telemetry()
    found = coverage(ctx.owner, to=telemetry)
    problems = {table.name: table.problem for table in found}
    counts = {
        "covered": sum(problem is None for problem in problems.values()),
        "uncovered": sum(problem is not None for problem in problems.values()),
    }
    ctx.expect(
        "event",
        [(event.name, event.measurements) for event in events],
        equals=[("threadline.health.checked", counts)],
    )
    ctx.expect("the trail's own tables", [name for name in problems if ".audit_" in name], equals=[])
    expected = ["posts", "drafts", "Shop.nowhere", "authors", "anywhere", "posts"]
    ctx.expect(
        "violations",
        [(violation.kind, violation.name) for violation in violations(found, expected)],
        equals=[("missing", "Shop.nowhere"), ("missing", "public.anywhere"), ("uncovered", "public.drafts")],
    )
    ctx.expect(
        "an uncovered table that is not expected",
        "public.drafts" in problems and not violations(found, ["posts"]),
        equals=True,
    )
    try:
        outcome = str(violations(found, []))
    except ValueError:
        outcome = "refused"
    ctx.expect("no expected tables", outcome, equals="refused")


@breaks(health, at="violations")
def health_of_a_table_that_lost_its_capture(ctx: CheckContext) -> None:
    ctx.disable_capture("public.authors")


@check(
    "observability.after-commit",
    claim="events count committed work and its actions with their status, and no work that was rolled back or failed",
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
    telemetry, seen = Telemetry(), list[tuple[str, int]]()
    telemetry.attach(lambda event: seen.append((event.name, ctx.admin.value("SELECT count(*) FROM public.posts"))))

    def work(title: str) -> None:
        with audited(client, ADA, action=Action(name="posted"), to=telemetry):
            client.run("INSERT INTO public.posts (slug, title) VALUES (%s, %s)", [title, title])
            if title == "fails before":
                client.run("SELECT 1 / 0")

    for title, state in (("fails before", "22012"), ("fails at commit", "23514")):
        ctx.expect(f"work that {title}", ctx.sqlstate(lambda title=title: work(title)), equals=state)  # type: ignore[misc]
    ctx.expect("events of failed work", seen, equals=[])
    work("committed")
    expected = [("threadline.transaction.committed", 1), ("threadline.action.recorded", 1)]
    ctx.expect("events, with the number of rows visible to others at that time", seen, equals=expected)
    _expect_events_of_actions(ctx, client)


@breaks(after_commit, at="events of failed work")
def after_commit_of_what_did_not_fail(ctx: CheckContext) -> None:
    """Disable triggers for the application's role, so that the commit does not fail."""
    ctx.sabotage(f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET session_replication_role = replica")


def _expect_events_of_actions(ctx: CheckContext, client: Client) -> None:
    telemetry, events = _recorded_telemetry()
    for name, status in (("paid", "ok"), ("declined", "error")):
        with audited(client, ADA, action=Action(name=name, status=status), to=telemetry) as work:
            ctx.insert_post(client, name)
            work.table_count = 1
    recorded = [event.measurements for event in events if event.name == "threadline.action.recorded"]
    ctx.expect("events of actions", recorded, equals=[{"status": "ok"}, {"status": "error"}])
    committed = [event.measurements for event in events if event.name == "threadline.transaction.committed"]
    ctx.expect("events of transactions", committed, equals=[{"actions": 1, "table_count": 1}] * 2)
    events.clear()
    with contextlib.suppress(SqlError), audited(client, ADA, action=Action(name="x", status="maybe"), to=telemetry):
        ctx.insert_post(client, "x")
    rejected = [(event.name, event.measurements) for event in events]
    ctx.expect("event of a rejected action", rejected, equals=[("threadline.action.recorded", {"status": "error"})])


@breaks(after_commit, at="event of a rejected action")
def actions_are_not_refused(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")


@check(
    "observability.purge-logs",
    claim="a purge gives a log line and an event for each batch, with counts, and for its end",
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
    age(ctx, 3 * DAYS)
    telemetry, events = _recorded_telemetry()
    with _logged() as lines:
        purge(ctx.owner, policy_of(ctx), batch_size=2, to=telemetry)
    ctx.expect(
        "log lines",
        lines,
        equals=[
            "retention purge batch 1: changes=2 transactions=2 actions=0; so far changes=2 transactions=2 actions=0",
            "retention purge batch 2: changes=1 transactions=1 actions=0; so far changes=3 transactions=3 actions=0",
            "retention purge complete: changes=3 transactions=3 actions=0 batches=2",
        ],
    )
    counts = [(event.name, event.measurements.get("changes")) for event in events]
    batch, whole = "threadline.retention.batch_purged", "threadline.retention.purged"
    ctx.expect("events", counts, equals=[(batch, 2), (batch, 1), (whole, 3)])


@breaks(purge_logs, at="log lines")
def purge_logs_of_a_purge_that_missed_one(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("LIMIT batch_size", "LIMIT 1"))


@check(
    "observability.no-values",
    claim="neither events nor logs contain a value, an actor, a correlation or free text",
    section=_HERE,
    severity=P0,
    item="6.1",
    area="telemetry",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def no_values(ctx: CheckContext) -> None:
    client = ctx.client()
    telemetry, events = _recorded_telemetry()
    status = ctx.application.action_status
    action = Action(
        name=_CANARY, status=status, comment=_CANARY, correlation_id=_CANARY, request_id=_CANARY, job_id=_CANARY
    )
    with audited(client, Actor("user", _CANARY), action=action, to=telemetry):
        ctx.insert_post(client, _CANARY)
    coverage(ctx.owner, to=telemetry)
    export(reader(ctx), io.StringIO(newline=""), "json", to=telemetry)
    age(ctx, 3 * DAYS)
    with _logged() as lines:
        purge(ctx.owner, policy_of(ctx), to=telemetry)
    ctx.expect("kinds of events", len({event.name for event in events}), equals=6)
    ctx.expect("log lines written: of changes, of actions, of the end", len(lines), equals=3)
    ctx.expect("events with a value", [event.name for event in events if _CANARY in repr(event)], equals=[])
    ctx.expect("log lines with a value", [line for line in lines if _CANARY in line], equals=[])


@breaks(no_values, at="events with a value")
def no_values_but_a_status_that_is_one(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_actions DROP CONSTRAINT audit_actions_status_check")
    ctx.application.action_status = _CANARY


@check(
    "observability.messages",
    claim="neither the messages to the client of an audited write nor the server's log contain a value or the actor",
    section=_HERE,
    severity=P0,
    item="6.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def messages(ctx: CheckContext) -> None:
    client = ctx.client()
    value, actor = f"canary-{ctx.database[-6:]}", Actor("user", f"actor-{ctx.database[-6:]}")
    secret = (value, str(ctx.target.actor.spell_id(str(actor.id))))
    sent: list[str] = []

    def keep(notice: Any) -> None:
        parts = (notice.message_primary, notice.message_detail, notice.message_hint, notice.context)
        sent.append("; ".join(filter(None, parts)))

    client.add_notice_handler(keep)
    with ctx.audited(client, actor):
        client.run("INSERT INTO public.posts (slug, title) VALUES (%s, %s)", [value, value])
        client.run("UPDATE public.posts SET title = %s WHERE slug = %s", [f"{value}, too", value])
        client.run("DELETE FROM public.posts WHERE slug = %s", [value])
    ctx.fact("messages to the client", len(sent))
    ctx.expect("messages with a value", _naming(secret, sent), equals=[])
    if client.value(_LOGS_STATEMENTS):
        raise NotApplicableError("the server's settings log the application's own statements, with their values")
    ctx.expect("lines of the log with a value", _naming(secret, ctx.lab.postgres.logs().splitlines()), equals=[])


def _naming(secret: Iterable[str], texts: Iterable[str]) -> list[str]:
    return [text for text in texts if any(part in text for part in secret)]


@breaks(messages, at="messages with a value")
def messages_of_a_forgotten_notice(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "RAISE NOTICE 'captured %', NEW.data_after")


@breaks(messages, at="lines of the log with a value")
def messages_to_the_log(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "RAISE LOG 'actor %', NEW.actor_ref")
