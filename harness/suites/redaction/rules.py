"""Redaction: rules that protect nothing are refused, and the limits of rules are as documented."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.coverage import definitions
from harness.audit.installing import Redaction, attach, kept_before
from harness.audit.target_file import Recorded, TrailFeature
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
    trust_rules,
    write,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.REDACTION
#: a value that occurs nowhere else
_VALUE = "canary-0815"


@check(
    "redaction.refused-rules",
    claim="rules that would not protect their columns are refused, and coverage reports rules that later DDL weakens",
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
    ctx.owner.run("ALTER TABLE public.people DROP lowered")
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email", "notes", "salary"])
    for name, ddl, problem in (
        ("coverage", "ALTER COLUMN name SET DEFAULT ''", None),
        (
            "coverage with a column computed from a redacted one",
            "ADD lowered text GENERATED ALWAYS AS (lower(email)) STORED",
            "its redaction is not whole: column lowered is computed from email, and would keep what that hides",
        ),
        (
            "coverage after a redacted column is renamed",
            "RENAME COLUMN email TO mail",
            "its redaction is not whole: there is no column email",
        ),
    ):
        ctx.owner.run(f"ALTER TABLE public.people {ddl}")
        ctx.expect(name, ctx.target.coverage(ctx.owner)["public.people"], equals=problem)
    ctx.owner.run("ALTER TABLE public.people DROP lowered")
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["mail", "notes", "salary"])
    ctx.expect("coverage with rules for the new name", ctx.target.coverage(ctx.owner)["public.people"], equals=None)


@breaks(refused_rules, at="a misspelt column")
def refused_rules_are_not_validated(ctx: CheckContext) -> None:
    trust_rules(ctx)


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
    claim="a rule applies to later writes, and earlier changes stay as they are or are redacted, too",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
    records=(Recorded.INSERTS, Recorded.UPDATES, Recorded.IMAGE),
)
def earlier_rows(ctx: CheckContext) -> None:
    create_people(ctx)
    ctx.target.attach(ctx.owner, "public.people")
    write(ctx, INSERT)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email"])
    write(ctx, "UPDATE public.people SET name = 'Bea'")
    emails = [(image or {}).get("email") for image in images(ctx)]
    ctx.expect("values after the rule", emails[1:], equals=[MASK])
    if emails[:1] != [MASK]:
        ctx.expect("values before the rule", emails[:1], equals=["ada@example.org"])
        ctx.trail_limit("values captured before a redaction rule stay in the trail until they are purged")


@breaks(earlier_rows, at="values after the rule")
def earlier_rows_with_a_rule_that_is_ignored(ctx: CheckContext) -> None:
    keep_everything(ctx)


@check(
    "redaction.excluded-only",
    claim="an update of excluded columns only names no column, and keeps no value",
    section=_HERE,
    severity=P1,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION, TrailFeature.CHANGED_FIELDS),
    records=(Recorded.UPDATES,),
)
def excluded_only(ctx: CheckContext) -> None:
    create_redacted_people(ctx)
    write(ctx, INSERT, f"UPDATE public.people SET token = '{_VALUE}'")
    fields = [change.changed_fields for change in ctx.changes("people") if change.op == "update"]
    ctx.fact("changes that the update left", len(fields))
    ctx.expect("columns that they name", [field for field in fields if field], equals=[])
    ctx.expect("rows that hold the value", rows_holding(ctx, _VALUE), equals=0)


@breaks(excluded_only, at="columns that they name")
def excluded_only_is_named(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("((v_rules -> 'exclude') || (v_rules -> 'except'))", "(v_rules -> 'except')"))
