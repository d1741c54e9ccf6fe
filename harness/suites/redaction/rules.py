"""Redaction: rules that protect nothing are refused, rules follow the table, and their limits are as documented."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.coverage import definitions
from harness.audit.installing import Redaction, attach, kept_before
from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import REDACTION_RULES
from harness.suites.redaction.people import (
    INSERT,
    MASK,
    create_people,
    create_redacted_people,
    holding,
    images,
    keep_everything,
    rows_holding,
    write,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.REDACTION


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
    _trust_rules(ctx)


def _trust_rules(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_rules_problem(relation regclass, rules jsonb) RETURNS text "
        "LANGUAGE sql STABLE AS 'SELECT NULL::text'"
    )


#: a value that occurs nowhere else; its letters are lower case, so that lower() keeps it
_VALUE = "canary-0815"


class _Case(Struct, frozen=True):
    """Rules for a table with a value to hide, and DDL before or after they are attached."""

    name: str
    exclude: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    #: statements about the table before and after the rules are attached
    before: str = ""
    after: str = ""
    #: where the value is afterwards
    column: str = "email"
    table: str = ""


_MISTAKES = (
    _Case("a misspelt column, masked", mask=("emial",)),
    _Case("a misspelt column, excluded", exclude=("emial",)),
    _Case("a column in other case", mask=("Email",)),
    _Case("a column with a blank", exclude=(" email",)),
    _Case("the key, masked", mask=("code", "email")),
    _Case("the key, excluded", exclude=("code", "email")),
    _Case(
        "a column that a generated column repeats",
        mask=("email",),
        before="ADD low text GENERATED ALWAYS AS (lower(email)) STORED",
    ),
    _Case("the same, excluded", exclude=("email",), before="ADD low text GENERATED ALWAYS AS (lower(email)) STORED"),
    _Case(
        "a table that inherits from it",
        mask=("email",),
        before="ADD more int; CREATE TABLE public.inheriting (PRIMARY KEY (code)) INHERITS (public.{name}); "
        "GRANT ALL ON public.inheriting TO harness_app",
        table="inheriting",
    ),
    _Case("a table without a key, masked", mask=("email",), before="DROP CONSTRAINT {name}_pkey"),
    _Case("a table without a key, excluded", exclude=("email",), before="DROP CONSTRAINT {name}_pkey"),
)
_LATER = (
    _Case("a masked column is renamed", mask=("email",), after="RENAME COLUMN email TO mail", column="mail"),
    _Case("an excluded column is renamed", exclude=("email",), after="RENAME COLUMN email TO mail", column="mail"),
    _Case(
        "a generated column repeats it", mask=("email",), after="ADD low text GENERATED ALWAYS AS (lower(email)) STORED"
    ),
    _Case("its type changes", exclude=("email",), after="ALTER email TYPE varchar(200)"),
    _Case("a column before it is dropped", mask=("email",), after="DROP first"),
    _Case("the table is renamed", exclude=("email",), after="RENAME TO renamed", table="renamed"),
)


def _judge(ctx: CheckContext, cases: tuple[_Case, ...]) -> None:
    client = ctx.client()
    for number, case in enumerate(cases):
        ctx.expect(case.name, _outcome(ctx, client, case, number), equals=_PROTECTED)


def _outcome(ctx: CheckContext, client: Client, case: _Case, number: int) -> str:
    """Return `protected` when the value is nowhere, or attaching or writing was refused; else where the value is."""
    table, value = f"public.case_{number}", f"{_VALUE}-{number}"
    code = value if "code" in case.exclude + case.mask else "k-1"
    ctx.owner.run(
        f"CREATE TABLE {table} (first int, code text PRIMARY KEY, email text, other text); GRANT ALL ON {table} TO harness_app"
    )
    if case.before:
        ctx.owner.run(f"ALTER TABLE {table} {case.before.format(name=f'case_{number}')}")
    attached = ctx.attempt(partial(ctx.target.attach_redacted, ctx.owner, table, exclude=case.exclude, mask=case.mask))
    if attached != "done":
        ctx.fact(case.name, f"attaching is refused: {attached}")
        return _PROTECTED
    if case.after:
        ctx.owner.run(f"ALTER TABLE {table} {case.after}")
    table = f"public.{case.table}" if case.table else table

    def in_a_transaction(statements: str) -> None:
        with ctx.audited(client, ADA):
            client.run(statements)

    writes = (
        f"INSERT INTO {table} (code, {case.column}, other) VALUES ('{code}', '{value}', 'x')",
        f"UPDATE {table} SET other = 'y'; UPDATE {table} SET {case.column} = '{value} too'; DELETE FROM {table}",
    )
    outcomes = [ctx.attempt(partial(in_a_transaction, statements)) for statements in writes]
    if found := holding(ctx, value, table):
        return "the value is in " + ", ".join(f"{number} rows of {name}" for name, number in sorted(found.items()))
    if refused := [outcome for outcome in outcomes if outcome != "done"]:
        ctx.fact(case.name, f"an audited write is refused: {refused[0]}")
    return _PROTECTED


_PROTECTED = "protected"


@check(
    "redaction.mistakes",
    claim="a rule that cannot protect its column by itself is refused, or its value stays out of the trail all the same",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def mistakes(ctx: CheckContext) -> None:
    _judge(ctx, _MISTAKES)


@breaks(mistakes, at="a misspelt column, masked")
def mistakes_are_not_refused(ctx: CheckContext) -> None:
    _trust_rules(ctx)
    ctx.rewrite_function("threadline_redacted", ("IF NOT image ?&", "IF false AND NOT image ?&"))


@check(
    "redaction.later-ddl",
    claim="after DDL on a redacted table its values stay out of the trail, or writes are refused",
    section=_HERE,
    severity=P0,
    item="3.2",
    area=REDACTION_RULES,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.REDACTION,),
)
def later_ddl(ctx: CheckContext) -> None:
    _judge(ctx, _LATER)


@breaks(later_ddl, at="a masked column is renamed")
def later_ddl_unnoticed(ctx: CheckContext) -> None:
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
