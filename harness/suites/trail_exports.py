"""Exports of any trail by its own statement: complete, in order, and continued where the last one ended."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from msgspec import to_builtins

from harness.audit.exporting import export_trail
from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, SEVERAL_SERVER_CONNECTIONS, TRANSACTION_BLOCKS, breaks, check
from harness.errors import TimedOutError
from harness.model import Section
from harness.suites.actors import ADA, BOB
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.changes import Change
    from harness.checks.context import CheckContext

_HERE = Section.EXPORT
_AREA = "export"


@check(
    "export.complete",
    claim="an export has each change once, in order and unchanged, and the next one has the changes since",
    section=_HERE,
    severity=P0,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.EXPORT,),
)
def complete(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug, title) SELECT n::text, 'a title' FROM generate_series(1, 5) n")
        client.run("INSERT INTO public.authors VALUES ('k', 'Kit')")
    with ctx.audited(client, BOB):
        client.run(
            "UPDATE public.posts SET title = 'another' WHERE slug < '3'; DELETE FROM public.posts WHERE slug = '5'"
        )
    written = ctx.changes()
    if not written:
        raise NotExercisedError("the trail has no change to export")
    first, cursor = _exported(ctx, None, len(written))
    ctx.expect("changes of the first export", _shown(ctx, first), equals=_shown(ctx, written))
    again = export_trail(ctx.target, ctx.admin)
    ctx.expect("the first export, repeated", _shown(ctx, again.changes), equals=_shown(ctx, written))
    ctx.write(client, BOB, "later")
    client.run("BEGIN; INSERT INTO public.posts (slug) VALUES ('rolled back'); ROLLBACK")
    known = {change.id for change in written}
    expected = [change for change in ctx.changes() if change.id not in known]
    second, cursor = _exported(ctx, cursor, len(expected))
    ctx.expect("changes of the next export", _shown(ctx, second), equals=_shown(ctx, expected))
    third = export_trail(ctx.target, ctx.admin, cursor)
    ctx.expect("changes of an export after that", _shown(ctx, third.changes), equals=[])


#: whether no transaction of the server is open that a later change could precede
_QUIET = "SELECT pg_snapshot_xmin(s) = pg_snapshot_xmax(s) FROM pg_current_snapshot() s"
#: transactions of other checks end long before
_LONGEST_S = 20.0


def _exported(ctx: CheckContext, since: str | None, wanted: int) -> tuple[list[Change], str | None]:
    """Export until there are as many changes as wanted, and return them with the cursor.

    An export may hold changes back while an older transaction is open in any database of the server, and other checks
    have such. When none is open, the export is what it is.
    """
    changes: list[Change] = []
    cursor = since

    def export() -> None:
        nonlocal cursor
        quiet = ctx.admin.value(_QUIET)
        done = export_trail(ctx.target, ctx.admin, cursor)
        changes.extend(done.changes)
        cursor = done.cursor
        if len(changes) < wanted and not quiet:
            raise NotYet(f"{len(changes)} of {wanted} changes")

    with contextlib.suppress(TimedOutError):
        poll(export, what="the changes of an export", deadline_s=_LONGEST_S)
    return changes, cursor


def _shown(ctx: CheckContext, changes: Iterable[Change]) -> list[str]:
    """Return changes to compare, in their order if the trail has one."""
    shown = [json.dumps(to_builtins(change), sort_keys=True) for change in changes]
    return shown if ctx.records(Recorded.ORDER) else sorted(shown)


@breaks(complete, at="changes of the next export")
def complete_without_transaction_ids(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.txid := 3")


@check(
    "export.late-commit",
    claim="the next export includes transactions that were open during the last one, and nothing twice",
    section=_HERE,
    severity=P0,
    item="5.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    requires_features=(TrailFeature.EXPORT,),
    records=(Recorded.INSERTS, Recorded.IMAGE),
)
def late_commit(ctx: CheckContext) -> None:
    slow, quick = ctx.clients(2)

    def slugs_of(changes: Iterable[Change]) -> list[str]:
        return sorted(change.text("slug") for change in changes)

    with ctx.audited(slow, ADA):
        ctx.insert_post(slow, "slow")
        ctx.write(quick, BOB, "quick")
        first = export_trail(ctx.target, ctx.admin)
        # an export may hold back what was written after the beginning of a transaction that is open
        held_back = [] if first.changes else ["quick"]
        ctx.expect("the first export, and what it holds back", slugs_of(first.changes) + held_back, equals=["quick"])
    ctx.write(quick, BOB, "next")
    expected = sorted(["next", "slow", *held_back])
    found, cursor = _exported(ctx, first.cursor, len(expected))
    ctx.expect("the next export", slugs_of(found), equals=expected)
    ctx.expect("the export after that", slugs_of(export_trail(ctx.target, ctx.admin, cursor).changes), equals=[])


@breaks(late_commit, at="the next export")
def late_commit_with_a_wrong_transaction_id(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.txid := 3")
