"""Redaction: redacted values are in no column of the trail, whichever way they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import REDACTION_RULES
from harness.suites.redaction.people import (
    INSERT,
    MASK,
    as_texts,
    create_redacted_people,
    images,
    keep_everything,
    rows_holding,
    write,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.REDACTION
_CANARY = "canary-4711"
#: long enough not to occur by chance in an id or a time
_NUMBER = 1918273645
_INSERTED = (Recorded.INSERTS, Recorded.IMAGE)
_WRITTEN = (*_INSERTED, Recorded.UPDATES)


@check(
    "redaction.insert",
    claim="an insert is captured without excluded columns, and with the placeholder in masked columns",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
    records=_INSERTED,
)
def insert(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT)
    found = images(ctx)
    if ctx.expect("changes", len(found), equals=1):
        image = found[0] or {}
        ctx.expect("excluded column", "token" in image, equals=False)
        ctx.expect("masked column", image.get("email"), equals=MASK)
        others = as_texts({"id": image.get("id"), "name": image.get("name")})
        ctx.expect("other columns", others, equals={"id": "1", "name": "Ada"})


@breaks(insert, at="excluded column")
def insert_keeps_everything(ctx: CheckContext) -> None:
    keep_everything(ctx)


@breaks(insert, at="masked column")
def insert_without_the_mask(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_redacted", ("rules -> 'placeholder')", "image -> m)"))


@check(
    "redaction.update",
    claim="an update names masked columns and hides their values before and after; excluded columns are not named",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION, TrailFeature.CHANGED_FROM, TrailFeature.CHANGED_FIELDS),
    records=(Recorded.UPDATES, Recorded.IMAGE),
)
def update(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(
        ctx,
        INSERT,
        "UPDATE public.people SET name = 'Bea', email = 'bea@example.org', token = 'other', salary = 200",
    )
    updates = [change for change in ctx.changes("people") if change.op == "update"]
    if ctx.expect("updates", len(updates), equals=1):
        ctx.expect("changed fields", updates[0].changed_fields, equals=("email", "name", "salary"))
        ctx.expect("prior values", updates[0].changed_from, equals={"email": MASK, "name": "Ada", "salary": MASK})
        after = {"id": "1", "name": "Bea", "email": MASK, "notes": MASK, "salary": MASK}
        ctx.expect("data after", as_texts(updates[0].data_after), equals=after)


@breaks(update, at="prior values")
def update_keeps_prior_values_raw(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("CASE WHEN v_rules -> 'mask' ? f.key THEN v_rules -> 'placeholder' ELSE f.value END", "f.value")
    )


@breaks(update, at="changed fields")
def update_names_excluded_columns(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("((v_rules -> 'exclude') || (v_rules -> 'except'))", "(v_rules -> 'except')"))


@check(
    "redaction.delete",
    claim="a delete of a redacted row carries its key and no other value",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
    records=(Recorded.DELETES,),
)
def delete(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT, "DELETE FROM public.people")
    deleted = [change for change in ctx.changes("people") if change.op == "delete"]
    ctx.expect("keys of deleted rows", [as_texts(change.table_pk) for change in deleted], equals=[{"id": "1"}])
    ctx.expect("payloads", [(change.data_after, change.changed_from) for change in deleted], equals=[(None, None)])


@breaks(delete, at="payloads")
def delete_keeps_the_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("v_transaction, v_schema, v_table, v_key, lower(TG_OP), v_after,",
                           "v_transaction, v_schema, v_table, v_key, lower(TG_OP), coalesce(v_after, v_before),"))  # fmt: skip


@check(
    "redaction.json-whole",
    claim="a masked JSON column is replaced completely: no nested value is kept",
    section=_HERE,
    severity=P0,
    item="3.3",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
    records=_WRITTEN,
)
def json_whole(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT, 'UPDATE public.people SET notes = notes || \'{"more": [{"code": "F33"}]}\'')
    ctx.expect("masked JSON values", [(image or {}).get("notes") for image in images(ctx)], equals=[MASK, MASK])
    for word in ("diagnosis", "F32", "F33"):
        ctx.expect(f"rows of the trail that hold {word}", rows_holding(ctx, word), equals=0)


@breaks(json_whole, at="masked JSON values")
def json_only_its_leaves(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_redacted",
        (
            "rules -> 'placeholder')",
            "CASE WHEN jsonb_typeof(image -> m) = 'object' THEN jsonb_build_object('diagnosis', rules -> 'placeholder') "
            "ELSE rules -> 'placeholder' END)",
        ),
    )


@check(
    "redaction.canaries",
    claim="a secret in redacted columns is in no column of the trail, whichever way it was written",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def canaries(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    value = f"'{_CANARY}'"
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run(
            f"INSERT INTO public.people VALUES (1, 'Ada', {value}, {value}, '{{\"a\": [\"{_CANARY}\"]}}', {_NUMBER})"
        )
        client.copy_in(
            "COPY public.people FROM STDIN",
            [(n, "n", _CANARY, _CANARY, f'["{_CANARY}"]', _NUMBER) for n in range(2, 6)],
        )
        client.run(
            f"INSERT INTO public.people VALUES (1, 'again', {value}) ON CONFLICT (id) DO UPDATE "
            f"SET email = {value} || '2', token = {value} || '2'"
        )
        client.run(
            f"MERGE INTO public.people p USING (VALUES (2), (9)) AS s (id) ON p.id = s.id "
            f"WHEN MATCHED THEN UPDATE SET email = {value} || '3' "
            f"WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'm', {value}, {value})"
        )
        client.run("UPDATE public.people SET id = 77 WHERE id = 3")
        client.run("DELETE FROM public.people WHERE id = 4")
        client.run("TRUNCATE public.people")
    written = ctx.expected_ops(*["insert"] * 6, *["update"] * 3, "delete")
    ctx.expect("rows captured", len(ctx.changes("people")) >= len(written), equals=True)
    ctx.expect("rows of the trail that hold the canary", rows_holding(ctx, _CANARY), equals=0)
    ctx.expect("rows of the trail that hold the number", rows_holding(ctx, str(_NUMBER)), equals=0)


@breaks(canaries, at="rows of the trail that hold the canary")
def canaries_in_prior_values(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("CASE WHEN v_rules -> 'mask' ? f.key THEN v_rules -> 'placeholder' ELSE f.value END", "f.value")
    )


@breaks(canaries, at="rows of the trail that hold the canary")
def canaries_in_transaction_metadata(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.meta := (SELECT to_jsonb(p) FROM public.people p LIMIT 1)")


@check(
    "redaction.partitions",
    claim="the rules of a partitioned table apply to rows written to its partitions",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION, TrailFeature.PARTITIONS),
    records=_WRITTEN,
)
def partitions(ctx: CheckContext) -> None:
    ctx.target.attach_redacted(ctx.owner, "public.measures", exclude=[], mask=["reading"])
    write(
        ctx,
        "INSERT INTO public.measures VALUES ('2025-05-05', 1, 20.5)",
        "INSERT INTO public.measures_2026 VALUES ('2026-06-06', 1, 20.5)",
        "UPDATE public.measures SET day = '2026-05-05' WHERE day = '2025-05-05'",
    )
    # under the name of the root, or of a partition
    captured = [change for change in ctx.changes() if change.table_name.startswith("measures")]
    readings = [change.value("reading") for change in captured if change.data_after]
    ctx.expect("readings", readings, equals=[MASK] * 3)


@breaks(partitions, at="readings")
def partitions_keep_everything(ctx: CheckContext) -> None:
    keep_everything(ctx)


@check(
    "redaction.null-hidden",
    claim="a masked column also hides whether its value was NULL",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
    records=_INSERTED,
)
def null_hidden(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(
        ctx,
        "INSERT INTO public.people (id) VALUES (1)",
        "INSERT INTO public.people VALUES (2, 'b', 'b@example.org', 't', '{}', 5)",
    )
    masked = [{name: (image or {}).get(name) for name in ("email", "notes", "salary")} for image in images(ctx)]
    ctx.expect("masked columns", masked, equals=[{"email": MASK, "notes": MASK, "salary": MASK}] * 2)


@breaks(null_hidden, at="masked columns")
def null_is_visible(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_redacted",
        ("rules -> 'placeholder')", "CASE WHEN image -> m = 'null' THEN image -> m ELSE rules -> 'placeholder' END)"),
    )
