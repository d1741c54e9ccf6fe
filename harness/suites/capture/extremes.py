"""Capture: values that a trail may have no form for are kept as they are, or fail their write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded
from harness.checks.registry import MADE_BY_THE_SERVER, P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import quote_literal
from harness.model import Section
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE
#: a value whose text is too large for jsonb, in KiB, and one that is not, in kB
_HUGE_KIB, _LARGE_KB = 129 * 1024, 100 * 1000
#: lz4 compresses a large value at a fraction of the cost; servers may lack it, and have it from PostgreSQL 14 on
_FAST_COMPRESSION = (
    "SELECT set_config(name, 'lz4', false) FROM pg_settings "
    "WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)"
)
#: texts that the type json takes, and jsonb refuses
_HOSTILE = (
    ("an escaped NUL", '{"a": "\\u0000"}'),
    ("half of a surrogate pair", '["\\ud800"]'),
    ("a number that is too large", "[1e400000]"),
)
#: either outcome is right, and the first one is better
_KEPT, _REFUSED = "in the trail as it is", "the write failed, and left nothing"


def _blobs(ctx: CheckContext) -> Client:
    ctx.owner.run(
        "CREATE TABLE public.blobs (id int PRIMARY KEY, body text, raw bytea, doc json); "
        "GRANT ALL ON public.blobs TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.blobs")
    return ctx.client()


def _outcome(ctx: CheckContext, client: Client, number: int, column: str, value: str, kept: str) -> str:
    """Write a value in a transaction with another row, and return the result.

    :param kept: SQL that returns whether the image `held` has the value of the row `b`.
    """

    def write() -> None:
        with ctx.audited(client, ADA):
            ctx.insert_post(client, f"before {number}")
            client.run(f"INSERT INTO public.blobs (id, {column}) VALUES ({number}, {value})")

    outcome = ctx.attempt(write)
    left = ctx.admin.value(
        f"SELECT (SELECT count(*) FROM public.blobs WHERE id = {number})"
        f" + (SELECT count(*) FROM public.posts WHERE slug = 'before {number}')"
    )
    if outcome != "done":
        ctx.fact(f"the error of row {number}", outcome)
        return f"the write failed, and left {left} rows" if left else _REFUSED
    with ctx.target.within_a_query():
        found = ctx.admin.rows(
            f"SELECT {kept} FROM (SELECT data_after AS held, table_pk::text::json ->> 'id' AS id FROM "
            f"({ctx.target.changes_query(ctx.admin)}) c WHERE table_name = 'blobs' AND lower(op::text) = 'insert') c "
            f"JOIN public.blobs b ON b.id::text = c.id WHERE b.id = {number}"
        )
    if not found:
        return "the row was written, and is not in the trail"
    return _KEPT if found[0][0] else "the row was written, and the trail holds another value"


@check(
    "capture.hostile-values",
    claim="a value that jsonb cannot represent is in the trail as it is, or fails its write and the whole transaction",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS, Recorded.IMAGE),
)
def hostile_values(ctx: CheckContext) -> None:
    client = _blobs(ctx)
    # the operators of json fail at these values, so the value is looked for in the text of the image
    kept = "strpos(held::text, b.doc::text) + strpos(held::text, to_json(b.doc::text)::text) > 0"
    for number, (what, value) in enumerate(_HOSTILE):
        outcome = _outcome(ctx, client, number, "doc", quote_literal(value), kept)
        ctx.expect(what, outcome, equals=_KEPT if outcome == _KEPT else _REFUSED)


@check(
    "capture.large-values",
    claim="a value of 100 MB is captured completely, and one of 129 MiB too, or it fails its write",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS, MADE_BY_THE_SERVER),
    records=(Recorded.INSERTS, Recorded.IMAGE),
)
def large_values(ctx: CheckContext) -> None:
    client = _blobs(ctx)
    client.run(_FAST_COMPRESSION)
    # repeating a thousand bytes is twice as fast as repeating one
    huge = f"convert_to(repeat(repeat('x', 1024), {_HUGE_KIB}), 'UTF8')"
    outcome = _outcome(ctx, client, 1, "raw", huge, "length(held::text) >= length(b.raw)")
    ctx.expect("129 MiB of bytea, 258 as text", outcome, equals=_KEPT if outcome == _KEPT else _REFUSED)
    # measured on the server: the transfer would cost more than the capture did
    large = f"repeat(repeat('x', 1000), {_LARGE_KB})"
    outcome = _outcome(ctx, client, 2, "body", large, f"length(held ->> 'body') = {_LARGE_KB * 1000}")
    ctx.expect("100 MB of text", outcome, equals=_KEPT)


def _blobs_are_not_captured(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME = 'blobs' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@breaks(hostile_values, at=_HOSTILE[0][0])
def hostile_values_are_not_captured(ctx: CheckContext) -> None:
    _blobs_are_not_captured(ctx)


@breaks(large_values, at="100 MB of text")
def large_values_are_not_captured(ctx: CheckContext) -> None:
    _blobs_are_not_captured(ctx)
