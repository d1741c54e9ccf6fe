"""One small trial for each claim of an audit target: what the author of its file has to see before any check runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.exporting import export_trail
from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.trial import spelled
from harness.checks.judging import describe_answer
from harness.database import SqlError, cancelled_after
from harness.errors import DatabaseError
from harness.suites import target_trial
from harness.suites.actors import ADA
from harness.suites.redaction.people import MASK, create_redacted_people
from harness.suites.retention.purging import age, purge_before

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

#: gets the context of a trial, and returns what is missing for a claim; "" when nothing is
_Trial = Callable[["CheckContext"], str]


def try_claims(ctx: CheckContext, unjudged: Collection[TrailFeature] = ()) -> dict[TrailFeature, str]:
    """Return what is missing for the claims of the target, in one sentence each, without the claims that hold.

    The trials change the whole database of the context.

    :param unjudged: claims that are not tried, because the trail leaves out what their trials look at.
    """
    missing = {}
    for claim, trial in _TRIALS.items():
        if claim not in ctx.target.claims or claim in unjudged:
            continue
        try:
            sentence = trial(ctx)
        except SqlError as error:
            sentence = f"its trial failed: {describe_answer(error)}"
        except DatabaseError as error:
            sentence = ": ".join(filter(None, (error.where, error.what)))
        if sentence:
            missing[claim] = sentence
    return missing


def _latest(ctx: CheckContext, tables: str, statement: str, actor: Actor = ADA) -> Change | None:
    """Write as the application, and return the last change that this write left; None when it left none.

    :param tables: the names that the changes may be recorded under, with blanks between them.
    """
    before = {change.id for change in ctx.changes()}
    with _writing(ctx, actor) as client:
        client.run(statement)
    new = [change for change in ctx.changes() if change.id not in before and change.table_name in tables.split()]
    return new[-1] if new else None


@contextlib.contextmanager
def _writing(ctx: CheckContext, actor: Actor = ADA) -> Iterator[Client]:
    """Return a connection in an audited transaction, and cancel a write that does not end.

    :raises DatabaseError: for a write that was cancelled.
    """
    client = ctx.direct_client()
    with cancelled_after(client, target_trial.LONGEST_S) as late:
        try:
            with ctx.audited(client, actor):
                yield client
        except SqlError:
            if not late.is_set():
                raise
            raise DatabaseError(f"its write did not end within {target_trial.LONGEST_S:g} s") from None


def _insert(slug: str) -> str:
    return f"INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'a title')"


def _recorded(ctx: CheckContext, insert: str, update: str) -> str:
    """Return an insert, with an update of its row for a trail that records no inserts."""
    return insert if ctx.records(Recorded.INSERTS) else f"{insert}; {update}"


def _post(ctx: CheckContext, slug: str) -> str:
    return _recorded(ctx, _insert(slug), f"UPDATE public.posts SET views = views + 1 WHERE slug = '{slug}'")


def _no_change(what: str) -> str:
    return f"no change was recorded for {what}"


def _changed_fields(ctx: CheckContext) -> str:
    _latest(ctx, "posts", _insert("fields"))
    change = _latest(ctx, "posts", "UPDATE public.posts SET title = 'another' WHERE slug = 'fields'")
    if change is None:
        return _no_change("an update")
    if change.changed_fields != ("title",):
        return f"changed_fields of an update of title is {spelled(change.changed_fields)}"
    return ""


def _changed_from(ctx: CheckContext) -> str:
    _latest(ctx, "profiles", "INSERT INTO public.profiles (id, email) VALUES (1, 'first@example.org')")
    change = _latest(ctx, "profiles", "UPDATE public.profiles SET email = 'second@example.org' WHERE id = 1")
    if change is None:
        return _no_change("an update of a table that is attached with its prior values")
    if (change.changed_from or {}).get("email") != "first@example.org":
        return f"changed_from of an update of email is {spelled(change.changed_from)}"
    return ""


def _actor_types(ctx: CheckContext) -> str:
    grace = Actor("admin", "grace")
    change = _latest(ctx, "posts", _post(ctx, "types"), grace)
    if change is None:
        return _no_change("a write")
    return "" if change.actor == grace.reference else f"{spelled(grace.reference)} is kept as {spelled(change.actor)}"


def _truncate(ctx: CheckContext) -> str:
    change = _latest(ctx, "bookmarks", "TRUNCATE public.bookmarks")
    return "" if change and change.op == "truncate" else _no_change("a TRUNCATE")


def _partitions(ctx: CheckContext) -> str:
    if (state := ctx.attached.get("public.measures")) != "done":
        return f"capture cannot be attached to a partitioned table: {state}"
    change = _latest(ctx, "measures measures_2025", "INSERT INTO public.measures VALUES ('2025-06-01', 1, 1.5)")
    return "" if change else _no_change("an insert into a partitioned table, under the name of the root or of the leaf")


def _actions(ctx: CheckContext) -> str:
    if not ctx.target.statements.actions:
        return "statements.actions is missing, so nobody reads the actions that are recorded"
    with _writing(ctx) as client:
        client.run(_insert("action"))
        ctx.target.record_action(client, "tried", "correlation-of-the-trial")
    found = ctx.target.actions(ctx.admin).values()
    wanted = {"name": "tried", "correlation_id": "correlation-of-the-trial"}
    if not any(all(str(row.get(key)) == value for key, value in wanted.items()) for row in found):
        return f"the recorded action is not among {len(found)} actions with its name and correlation"
    return ""


def _coverage(ctx: CheckContext) -> str:
    found = ctx.target.coverage(ctx.owner)
    if problem := found["public.posts"]:
        return f"public.posts is captured, and coverage says: {problem}"
    return "public.drafts is not captured, and coverage says that it is" if found["public.drafts"] is None else ""


def _redaction(ctx: CheckContext) -> str:
    create_redacted_people(ctx)
    insert = "INSERT INTO public.people VALUES (1, 'Ada', 'ada@example.org', 'a token', '{}', 5)"
    change = _latest(ctx, "people", _recorded(ctx, insert, "UPDATE public.people SET name = 'Ada L.'"))
    if change is None:
        return _no_change("a write to a redacted table")
    if not ctx.records(Recorded.IMAGE):
        return ""
    image = change.data_after or {}
    if "token" in image:
        return "an excluded column is in the row image"
    return "" if image.get("email") == MASK else f"a masked column is kept as {spelled(image.get('email'))}"


def _retention(ctx: CheckContext) -> str:
    _latest(ctx, "posts", _insert("old"))
    age(ctx, 10)
    _latest(ctx, "posts", _insert("young"))
    purge_before(ctx, ctx.admin.value("SELECT now() - interval '5 days'"))
    left = len(ctx.changes("posts"))
    return "" if left == 1 else f"a purge left {left} changes of public.posts instead of the one that is younger"


def _export(ctx: CheckContext) -> str:
    _latest(ctx, "posts", _post(ctx, "exported"))
    first = export_trail(ctx.target, ctx.admin)
    expected = _latest(ctx, "posts", _post(ctx, "exported later"))
    second = export_trail(ctx.target, ctx.admin, first.cursor)
    later = [change.id for change in second.changes if change.table_name == "posts"]
    if first.changes and expected and later == [expected.id]:
        return ""
    return f"an export after one more write has {spelled(later)} instead of {spelled(expected and [expected.id])}"


def _contract_tables(ctx: CheckContext) -> str:
    _latest(ctx, "posts", _post(ctx, "contract"))
    return (
        "" if ctx.admin.value("SELECT count(*) FROM public.audit_transactions") else "the table is empty after a write"
    )


#: the last one removes what the others wrote
_TRIALS: dict[TrailFeature, _Trial] = {
    TrailFeature.CHANGED_FIELDS: _changed_fields,
    TrailFeature.CHANGED_FROM: _changed_from,
    TrailFeature.ACTOR_TYPES: _actor_types,
    TrailFeature.TRUNCATE: _truncate,
    TrailFeature.PARTITIONS: _partitions,
    TrailFeature.ACTIONS: _actions,
    TrailFeature.COVERAGE: _coverage,
    TrailFeature.REDACTION: _redaction,
    TrailFeature.CONTRACT_TABLES: _contract_tables,
    TrailFeature.EXPORT: _export,
    TrailFeature.RETENTION: _retention,
}
