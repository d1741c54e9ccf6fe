"""Actor: the types of actors, and actors that are invalid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.actor_convention import IdType
from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import quote_literal
from harness.model import Section
from harness.suites.actors import ATTRIBUTED, claimed
from harness.suites.areas import ACTOR_SETTING

if TYPE_CHECKING:
    from harness.audit.actor_convention import ActorConvention
    from harness.checks.context import CheckContext

_HERE = Section.ACTOR


@check(
    "actor.types",
    claim="all six actor types are stored unchanged",
    section=_HERE,
    severity=P1,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTOR_TYPES,),
    records=ATTRIBUTED,
)
def types(ctx: CheckContext) -> None:
    client = ctx.client()
    for actor in (
        Actor("user", "42"),
        Actor("admin", "ünïcode 'quoted'"),
        Actor("service_account", "billing"),
        Actor("job", "7"),
        Actor("system", "cron"),
        Actor("anonymous"),
    ):
        ctx.write(client, actor, actor.type)
        ctx.expect(f"stored actor of type {actor.type}", ctx.actor_of(actor.type), equals=actor.reference)


@breaks(types, at="stored actor of type admin")
def types_are_confused(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", """NEW.actor_ref := jsonb_set(NEW.actor_ref, '{type}', '"user"')""")


@check(
    "actor.anonymous",
    claim="an anonymous actor is stored without an id, also when the setting has one",
    section=_HERE,
    severity=P1,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTOR_TYPES,),
    records=ATTRIBUTED,
)
def anonymous(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, claimed("anonymous", "10.0.0.7"), "by anonymous")
    ctx.expect("stored actor", ctx.actor_of("by anonymous"), equals={"type": "anonymous"})


@breaks(anonymous, at="stored actor")
def anonymous_keeps_its_id(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("public.threadline_checked_actor(v_actor)", "v_actor"))


_INVALID_IDS = {"an empty id": claimed("user", ""), "a blank id": claimed("user", " \t")}
_INVALID_JSON = {
    "text that is not JSON": "ada",
    "blank text": "  ",
    "a JSON text": '"ada"',
    "a number": "42",
    "an array": '[{"type": "user", "id": "1"}]',
    "JSON null": "null",
    "an object without type": '{"id": "1"}',
    "a type without id": '{"type": "user"}',
}


def _set_text(convention: ActorConvention, text: str) -> str:
    return f"SELECT set_config({quote_literal(convention.setting)}, {quote_literal(text)}, true)"


@check(
    "actor.invalid",
    claim="a write with an invalid actor fails, so that the actor is neither stored nor ignored",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.ACTOR_TYPES,),
    records=ATTRIBUTED,
)
def invalid(ctx: CheckContext) -> None:
    client, convention = ctx.client(), ctx.target.actor
    as_json = convention.setting and convention.value == "json"
    actors = {"an unknown type": claimed("root", "1")}
    if convention.ids is IdType.TEXT and (as_json or convention.declare):  # ids of other types are made from any text
        actors |= _INVALID_IDS
    values = {name: convention.declaration(actor) for name, actor in actors.items()}
    if as_json:
        values |= {name: _set_text(convention, text) for name, text in _INVALID_JSON.items()}
        if convention.ids is IdType.TEXT:
            values["a number as id"] = _set_text(convention, '{"type": "user", "id": 1}')

    def write(declaration: str, slug: str) -> None:
        with client.transaction():
            client.execute(declaration.encode(), prepare=False)
            ctx.insert_post(client, slug)  # a unique slug: a duplicate would fail for another reason

    for name, declaration in values.items():
        ctx.expect(name, ctx.refusal(partial(write, declaration, name)), equals="refused")
    ctx.expect("rows written", ctx.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    ctx.expect("changes", len(ctx.changes()), equals=0)


@breaks(invalid, at="an unknown type")
def invalid_is_not_validated(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_actor_problem(actor jsonb) RETURNS text "
        "LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text'"
    )
