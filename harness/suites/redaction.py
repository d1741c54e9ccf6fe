"""Redaction: redacted values are in no column of the trail, whichever way they were written."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.coverage import definitions
from harness.audit.installing import Redaction, attach, kept_before
from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.REDACTION
_AREA = "redaction rules"
MASK = "[REDACTED]"
CANARY = "canary-4711"
#: long enough not to occur by chance in an id or a time
_NUMBER = 1918273645


def _people(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.people (id int PRIMARY KEY, name text, email text, token text, notes jsonb, salary int);"
        "GRANT ALL ON public.people TO harness_app"
    )


def _redacted_people(ctx: CheckContext) -> None:
    _people(ctx)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email", "notes", "salary"])


def _run(ctx: CheckContext, *statements: str) -> None:
    client = ctx.client()
    for statement in statements:
        with ctx.audited(client, ADA):
            client.run(statement)


def _images(ctx: CheckContext) -> list[Any]:
    return [change.data_after for change in ctx.changes("people")]


def _keep_everything(ctx: CheckContext) -> None:
    """Make capture ignore the redaction rules."""
    ctx.rewrite_capture(("public.threadline_redacted(TG_RELID, v_after, v_rules)", "v_after"))


_INSERT = "INSERT INTO public.people VALUES (1, 'Ada', 'ada@example.org', 'secret', '{\"diagnosis\": {\"code\": \"F32\"}}', 100)"


@check(
    "redaction.insert",
    claim="an insert is captured without excluded columns, and with the placeholder in masked columns",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def insert(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(ctx, _INSERT)
    [image] = _images(ctx) or [{}]
    ctx.expect("excluded column", "token" in image, equals=False)
    ctx.expect("masked column", image.get("email"), equals=MASK)
    ctx.expect("other columns", {"id": image.get("id"), "name": image.get("name")}, equals={"id": 1, "name": "Ada"})


@breaks(insert, at="excluded column")
def insert_keeps_everything(ctx: CheckContext) -> None:
    _keep_everything(ctx)


@breaks(insert, at="masked column")
def insert_without_the_mask(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_redacted", ("rules -> 'placeholder')", "image -> m)"))


@check(
    "redaction.update",
    claim="an update names masked columns and hides their values before and after; excluded columns are not named",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION, TrailFeature.CHANGED_FROM, TrailFeature.CHANGED_FIELDS),
)
def update(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(
        ctx,
        _INSERT,
        "UPDATE public.people SET name = 'Bea', email = 'bea@example.org', token = 'other', salary = 200",
    )
    changes = ctx.changes("people")
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", "update"]):
        ctx.expect("changed fields", changes[1].changed_fields, equals=("email", "name", "salary"))
        ctx.expect("prior values", changes[1].changed_from, equals={"email": MASK, "name": "Ada", "salary": MASK})
        after = {"id": 1, "name": "Bea", "email": MASK, "notes": MASK, "salary": MASK}
        ctx.expect("data after", changes[1].data_after, equals=after)


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
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def delete(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(ctx, _INSERT, "DELETE FROM public.people")
    deleted = [change for change in ctx.changes("people") if change.op == "delete"]
    ctx.expect("keys of deleted rows", [change.table_pk for change in deleted], equals=[{"id": 1}])
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
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def json_whole(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(ctx, _INSERT, 'UPDATE public.people SET notes = notes || \'{"more": [{"code": "F33"}]}\'')
    ctx.expect("masked JSON values", [(image or {}).get("notes") for image in _images(ctx)], equals=[MASK, MASK])
    for word in ("diagnosis", "F32", "F33"):
        ctx.expect(f"rows of the trail that hold {word}", _holding(ctx, word), equals=0)


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
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def canaries(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    value = f"'{CANARY}'"
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run(
            f"INSERT INTO public.people VALUES (1, 'Ada', {value}, {value}, '{{\"a\": [\"{CANARY}\"]}}', {_NUMBER})"
        )
        client.copy_in(
            "COPY public.people FROM STDIN", [(n, "n", CANARY, CANARY, f'["{CANARY}"]', _NUMBER) for n in range(2, 6)]
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
    ctx.expect("rows captured", len(ctx.changes("people")) >= 10, equals=True)
    ctx.expect("rows of the trail that hold the canary", _holding(ctx, CANARY), equals=0)
    ctx.expect("rows of the trail that hold the number", _holding(ctx, str(_NUMBER)), equals=0)


def _holding(ctx: CheckContext, word: str) -> int:
    return sum(
        ctx.admin.value(f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", [f"%{word}%"])
        for table in ctx.target.tables
    )


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
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION, TrailFeature.PARTITIONS),
)
def partitions(ctx: CheckContext) -> None:
    ctx.target.attach_redacted(ctx.owner, "public.measures", exclude=[], mask=["reading"])
    _run(
        ctx,
        "INSERT INTO public.measures VALUES ('2025-05-05', 1, 20.5)",
        "INSERT INTO public.measures_2026 VALUES ('2026-06-06', 1, 20.5)",
        "UPDATE public.measures SET day = '2026-05-05' WHERE day = '2025-05-05'",
    )
    readings = [change.value("reading") for change in ctx.changes("public.measures") if change.data_after]
    ctx.expect("readings", readings, equals=[MASK] * 3)


@breaks(partitions, at="readings")
def partitions_keep_everything(ctx: CheckContext) -> None:
    _keep_everything(ctx)


@check(
    "redaction.null-hidden",
    claim="a masked column also hides whether its value was NULL",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def null_hidden(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(
        ctx,
        "INSERT INTO public.people (id) VALUES (1)",
        "INSERT INTO public.people VALUES (2, 'b', 'b@example.org', 't', '{}', 5)",
    )
    masked = [{name: (image or {}).get(name) for name in ("email", "notes", "salary")} for image in _images(ctx)]
    ctx.expect("masked columns", masked, equals=[{"email": MASK, "notes": MASK, "salary": MASK}] * 2)


@breaks(null_hidden, at="masked columns")
def null_is_visible(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_redacted",
        ("rules -> 'placeholder')", "CASE WHEN image -> m = 'null' THEN image -> m ELSE rules -> 'placeholder' END)"),
    )


@check(
    "redaction.refused-rules",
    claim="rules that would not protect their columns are refused, and the table stays unchanged",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=_AREA,
    requires_features=(TrailFeature.LIBRARY,),
)
def refused_rules(ctx: CheckContext) -> None:
    _people(ctx)
    ctx.owner.run("ALTER TABLE public.people ADD lowered text GENERATED ALWAYS AS (lower(email)) STORED")
    attach(ctx.owner, ["public.people"])
    before = definitions(ctx.owner)
    for name, rules in {
        "a column both excluded and masked": Redaction(exclude=("email", "lowered"), mask=("email",)),
        "a misspelt column": Redaction(mask=("emial",)),
        "a column in other case": Redaction(mask=("Email",)),
        "a column with a blank": Redaction(exclude=(" token",)),
        "a misspelt exception": Redaction(except_columns=("visit",)),
        "the key, masked": Redaction(mask=("id",)),
        "the key, excluded": Redaction(exclude=("id",)),
        "a column that a generated column reads": Redaction(mask=("email",)),
        "an empty placeholder": Redaction(mask=("token",), placeholder=""),
        "a long placeholder": Redaction(mask=("token",), placeholder="x" * 201),
        "a placeholder with a control character": Redaction(mask=("token",), placeholder="a\tb"),
    }.items():
        outcome = ctx.sqlstate(partial(attach, ctx.owner, ["public.people"], redaction=rules))
        ctx.expect(name, outcome, equals="22023")
    ctx.expect("definitions afterwards", definitions(ctx.owner) == before, equals=True)


@breaks(refused_rules, at="a misspelt column")
def refused_rules_are_not_validated(ctx: CheckContext) -> None:
    _trust_rules(ctx)


def _trust_rules(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_rules_problem(relation regclass, rules jsonb) RETURNS text "
        "LANGUAGE sql STABLE AS 'SELECT NULL::text'"
    )


@check(
    "redaction.computed-later",
    claim="coverage reports a generated column that is later computed from a redacted one",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=_AREA,
    requires_features=(TrailFeature.LIBRARY,),
)
def computed_later(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    ctx.expect("coverage before", ctx.target.coverage(ctx.owner)["public.people"], equals=None)
    ctx.owner.run("ALTER TABLE public.people ADD lowered text GENERATED ALWAYS AS (lower(email)) STORED")
    ctx.expect(
        "coverage after",
        ctx.target.coverage(ctx.owner)["public.people"],
        equals="its redaction is not whole: column lowered is computed from email, and would keep what that hides",
    )


@breaks(computed_later, at="coverage after")
def computed_later_unnoticed(ctx: CheckContext) -> None:
    _trust_rules(ctx)


@check(
    "redaction.renamed-column",
    claim="after a redacted column is renamed, writes are refused instead of captured raw, and coverage reports the reason",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def renamed_column(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(ctx, _INSERT)
    ctx.owner.run("ALTER TABLE public.people RENAME COLUMN email TO mail")
    for statement in (
        "UPDATE public.people SET name = 'Bea'",
        "DELETE FROM public.people",
        _INSERT.replace("(1,", "(2,"),
    ):
        verb = statement.partition(" ")[0]
        ctx.expect(f"{verb} after the renaming", ctx.sqlstate(partial(_run, ctx, statement)), equals="55000")
    problem = ctx.target.coverage(ctx.owner)["public.people"]
    ctx.expect("coverage", problem, equals="its redaction is not whole: there is no column email")
    ctx.expect("rows of the trail that hold the value", _holding(ctx, "ada@example.org"), equals=0)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["mail", "notes", "salary"])
    ctx.expect(
        "with rules for the new name", ctx.attempt(partial(_run, ctx, "DELETE FROM public.people")), equals="done"
    )


@breaks(renamed_column, at="UPDATE after the renaming")
def renamed_column_unnoticed(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_redacted", ("IF NOT image ?&", "IF false AND NOT image ?&"))


@check(
    "redaction.dry-run",
    claim="a dry run reports the rules' statements and changes nothing, and earlier raw values are counted",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def dry_run(ctx: CheckContext) -> None:
    _people(ctx)
    attach(ctx.owner, ["public.people"], changed_from=True)
    _run(ctx, _INSERT, "UPDATE public.people SET email = 'bea@example.org'")
    rules = Redaction(exclude=("token",), mask=("email",))
    before = definitions(ctx.owner)
    planned = attach(ctx.owner, ["public.people"], redaction=rules, dry_run=True)
    with_rules = sum('"mask": ["email"]' in statement for statement in planned)
    ctx.expect("statements that name the rules", with_rules, equals=2)
    ctx.expect("definitions after the dry run", definitions(ctx.owner) == before, equals=True)
    ctx.expect(
        "changes that hold a value", kept_before(ctx.owner, "public.people", rules), equals={"email": 2, "token": 2}
    )
    ctx.expect("statements then run", attach(ctx.owner, ["public.people"], redaction=rules), equals=planned)


@breaks(dry_run, at="definitions after the dry run")
def dry_run_that_detaches(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach_plan",
        (
            "RETURN QUERY SELECT * FROM public.threadline_detach_plan(relation)",
            "PERFORM public.threadline_detach(relation)",
        ),
        (" STABLE", " VOLATILE"),
    )


@check(
    "redaction.except-columns",
    claim="except_columns removes a column from the changed fields only: its value stays in the row image",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def except_columns(ctx: CheckContext) -> None:
    _people(ctx)
    attach(ctx.owner, ["public.people"], changed_from=True, redaction=Redaction(except_columns=("salary",)))
    _run(ctx, _INSERT, "UPDATE public.people SET name = 'Bea', salary = 200")
    changes = ctx.changes("people")
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", "update"]):
        ctx.expect("changed fields", changes[1].changed_fields, equals=("name",))
        ctx.expect("prior values", changes[1].changed_from, equals={"name": "Ada"})
        ctx.expect("the column in the row", changes[1].value("salary"), equals=200)
    ctx.trail_limit("a column in except_columns is still kept in the row image")


@breaks(except_columns, at="changed fields")
def except_columns_are_named(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("((v_rules -> 'exclude') || (v_rules -> 'except'))", "(v_rules -> 'exclude')"))


@check(
    "redaction.earlier-rows",
    claim="rules apply to later writes only: earlier changes stay unredacted",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def earlier_rows(ctx: CheckContext) -> None:
    _people(ctx)
    ctx.target.attach(ctx.owner, "public.people")
    _run(ctx, _INSERT)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email"])
    _run(ctx, "UPDATE public.people SET name = 'Bea'")
    emails = [(image or {}).get("email") for image in _images(ctx)]
    ctx.expect("values before and after the rule", emails, equals=["ada@example.org", MASK])
    ctx.trail_limit("values captured before a redaction rule stay in the trail until they are purged")


@breaks(earlier_rows, at="values before and after the rule")
def earlier_rows_with_a_rule_that_is_ignored(ctx: CheckContext) -> None:
    _keep_everything(ctx)


@check(
    "redaction.excluded-only",
    claim="an update of excluded columns only is recorded without changed fields",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def excluded_only(ctx: CheckContext) -> None:
    _redacted_people(ctx)
    _run(ctx, _INSERT, "UPDATE public.people SET token = 'other'")
    changes = [(change.op, change.changed_fields) for change in ctx.changes("people")]
    ctx.expect("changes", changes, equals=[("insert", None), ("update", None)])
    ctx.trail_limit("an update of excluded columns only shows that the row was updated, and not which columns")


@breaks(excluded_only, at="changes")
def excluded_only_is_named(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("((v_rules -> 'exclude') || (v_rules -> 'except'))", "(v_rules -> 'except')"))
