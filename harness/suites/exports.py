"""Exports of any trail by its own statement: complete, in order, and continued where the last one ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import to_builtins

from harness.audit.exporting import export_trail
from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, SEVERAL_SERVER_CONNECTIONS, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA, BOB

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
    first = export_trail(ctx.target, ctx.admin)
    written = ctx.changes()
    if not written:
        raise NotExercisedError("the trail has no change to export")
    ctx.expect("changes of the first export", _shown(first.changes), equals=_shown(written))
    again = export_trail(ctx.target, ctx.admin)
    ctx.expect(
        "the first export, repeated", [change.id for change in again.changes], equals=[change.id for change in written]
    )
    ctx.write(client, BOB, "later")
    client.run("BEGIN; INSERT INTO public.posts (slug) VALUES ('rolled back'); ROLLBACK")
    second = export_trail(ctx.target, ctx.admin, first.cursor)
    ctx.expect("changes of the next export", _shown(second.changes), equals=_shown(ctx.changes()[len(written) :]))
    third = export_trail(ctx.target, ctx.admin, second.cursor)
    ctx.expect("changes of an export after that", _shown(third.changes), equals=[])


def _shown(changes: Iterable[Change]) -> list[str]:
    return [json.dumps(to_builtins(change), sort_keys=True) for change in changes]


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

    def exported(since: str | None) -> tuple[list[str], str | None]:
        done = export_trail(ctx.target, ctx.admin, since)
        return sorted(change.text("slug") for change in done.changes), done.cursor

    with ctx.audited(slow, ADA):
        ctx.insert_post(slow, "slow")
        ctx.write(quick, BOB, "quick")
        slugs, cursor = exported(None)
        ctx.expect("the first export", slugs, equals=["quick"])
    ctx.write(quick, BOB, "next")
    slugs, cursor = exported(cursor)
    ctx.expect("the next export", slugs, equals=["next", "slow"])
    ctx.expect("the export after that", exported(cursor)[0], equals=[])


@breaks(late_commit, at="the next export")
def late_commit_with_a_wrong_transaction_id(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.txid := 3")
