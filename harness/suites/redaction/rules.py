"""Redaction: rules that protect nothing are refused, rules follow the table, and their limits are as documented."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.coverage import definitions
from harness.audit.installing import Redaction, attach, kept_before
from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.areas import REDACTION_RULES
from harness.suites.redaction.people import (
    INSERT,
    MASK,
    create_people,
    create_redacted_people,
    images,
    keep_everything,
    rows_holding,
    write,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.REDACTION


@check(
    "redaction.refused-rules",
    claim="rules that would not protect their columns are refused, and the table stays unchanged",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    requires_features=(TrailFeature.LIBRARY,),
)
def refused_rules(ctx: CheckContext) -> None:
    create_people(ctx)
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
    area=REDACTION_RULES,
    requires_features=(TrailFeature.LIBRARY,),
)
def computed_later(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
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
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def renamed_column(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT)
    ctx.owner.run("ALTER TABLE public.people RENAME COLUMN email TO mail")
    for statement in (
        "UPDATE public.people SET name = 'Bea'",
        "DELETE FROM public.people",
        INSERT.replace("(1,", "(2,"),
    ):
        verb = statement.partition(" ")[0]
        ctx.expect(f"{verb} after the renaming", ctx.sqlstate(partial(write, ctx, statement)), equals="55000")
    problem = ctx.target.coverage(ctx.owner)["public.people"]
    ctx.expect("coverage", problem, equals="its redaction is not whole: there is no column email")
    ctx.expect("rows of the trail that hold the value", rows_holding(ctx, "ada@example.org"), equals=0)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["mail", "notes", "salary"])
    ctx.expect(
        "with rules for the new name", ctx.attempt(partial(write, ctx, "DELETE FROM public.people")), equals="done"
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
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def dry_run(ctx: CheckContext) -> None:
    create_people(ctx)
    attach(ctx.owner, ["public.people"], changed_from=True)
    write(ctx, INSERT, "UPDATE public.people SET email = 'bea@example.org'")
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
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def except_columns(ctx: CheckContext) -> None:
    create_people(ctx)
    attach(ctx.owner, ["public.people"], changed_from=True, redaction=Redaction(except_columns=("salary",)))
    write(ctx, INSERT, "UPDATE public.people SET name = 'Bea', salary = 200")
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
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def earlier_rows(ctx: CheckContext) -> None:
    create_people(ctx)
    ctx.target.attach(ctx.owner, "public.people")
    write(ctx, INSERT)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email"])
    write(ctx, "UPDATE public.people SET name = 'Bea'")
    emails = [(image or {}).get("email") for image in images(ctx)]
    ctx.expect("values before and after the rule", emails, equals=["ada@example.org", MASK])
    ctx.trail_limit("values captured before a redaction rule stay in the trail until they are purged")


@breaks(earlier_rows, at="values before and after the rule")
def earlier_rows_with_a_rule_that_is_ignored(ctx: CheckContext) -> None:
    keep_everything(ctx)


@check(
    "redaction.excluded-only",
    claim="an update of excluded columns only is recorded without changed fields",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def excluded_only(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT, "UPDATE public.people SET token = 'other'")
    changes = [(change.op, change.changed_fields) for change in ctx.changes("people")]
    ctx.expect("changes", changes, equals=[("insert", None), ("update", None)])
    ctx.trail_limit("an update of excluded columns only shows that the row was updated, and not which columns")


@breaks(excluded_only, at="changes")
def excluded_only_is_named(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("((v_rules -> 'exclude') || (v_rules -> 'except'))", "(v_rules -> 'except')"))
