"""Redaction: mistakes in rules, and DDL on a table that has rules, show no redacted value."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import REDACTION_RULES
from harness.suites.redaction.people import trust_rules
from harness.suites.searching import holding

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.REDACTION
#: a value that occurs nowhere else; its letters are lower case, so that lower() keeps it
_VALUE = "canary-0815"


class _Case(Struct, frozen=True):
    """Rules for a table with a value to hide, and DDL before or after they are attached."""

    name: str
    exclude: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    #: statements that follow ALTER TABLE, before and after the rules are attached; {name} is the table's
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
_NAME_TAKEN_OVER = _Case(
    "another column gets its name",
    mask=("email",),
    after="RENAME COLUMN email TO mail; ALTER TABLE public.{name} ADD email text",
    column="mail",
)


def _judge(ctx: CheckContext, cases: tuple[_Case, ...]) -> None:
    client = ctx.client()
    for number, case in enumerate(cases):
        ctx.expect(case.name, _outcome(ctx, client, case, number), equals=_PROTECTED)


def _outcome(ctx: CheckContext, client: Client, case: _Case, number: int) -> str:
    """Return `protected` when the value is nowhere, or attaching or writing was refused; else where the value is."""
    name, value = f"case_{number}", f"{_VALUE}-{number}"
    table = f"public.{name}"
    code = value if "code" in case.exclude + case.mask else "k-1"
    ctx.owner.run(
        f"CREATE TABLE {table} (first int, code text PRIMARY KEY, email text, other text); GRANT ALL ON {table} TO harness_app"
    )
    if case.before:
        ctx.owner.run(f"ALTER TABLE {table} {case.before.format(name=name)}")
    attached = ctx.attempt(partial(ctx.target.attach_redacted, ctx.owner, table, exclude=case.exclude, mask=case.mask))
    if attached != "done":
        if case.after:  # these rules name columns that the table has
            return f"valid rules are refused: {attached}"
        ctx.fact(case.name, f"attaching is refused: {attached}")
        return _PROTECTED
    if case.after:
        ctx.owner.run(f"ALTER TABLE {table} {case.after.format(name=name)}")
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
        return "the value is in " + ", ".join(f"{rows} rows of {where}" for where, rows in sorted(found.items()))
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
    trust_rules(ctx)
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
    outcome = _outcome(ctx, ctx.client(), _NAME_TAKEN_OVER, len(_LATER))
    ctx.fact(_NAME_TAKEN_OVER.name, outcome)
    if outcome != _PROTECTED:
        ctx.trail_limit("a rule stays with the name of its column when another column gets that name")


@breaks(later_ddl, at="a masked column is renamed")
def later_ddl_unnoticed(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_redacted", ("IF NOT image ?&", "IF false AND NOT image ?&"))
