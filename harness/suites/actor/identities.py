"""Actor: whose write it is. Ids that are easily taken for each other, and writes that others make for the actor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.actor_convention import IdType
from harness.audit.target_file import Recorded
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA, ATTRIBUTED, ATTRIBUTED_ROWS, BOB, MALLORY
from harness.suites.areas import ACTOR_SETTING
from harness.suites.sabotage import default_actor
from harness.suites.undeclared import UNDECLARED, nobody, refusal_of, undeclared_actor

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR

# --- ids -------------------------------------------------------------------------------------------------

_LONG = "".join(chr(ord("a") + n % 26) for n in range(254))
#: ids of an application by their type: what each is, and the id. Neighbours differ in one respect only
_IDS: dict[IdType, dict[str, str]] = {
    IdType.TEXT: {
        "lower case": "grace.hopper",
        "upper case": "GRACE.HOPPER",
        "a blank before it": " grace.hopper",
        "blanks after it": "grace.hopper  ",
        "two blanks within": "grace  hopper",
        "one blank within": "grace hopper",
        "a dash": "grace-hopper",
        "an address": "grace.hopper+audit@example.org",
        "one character": "g",
        "digits": "42",
        "digits with leading zeros": "00042",
        "digits with a fraction": "42.0",
        "an exponent": "42e0",
        "more digits than a number holds": "9007199254740993",
        "255 characters": f"{_LONG}1",
        "255 characters, the last one another": f"{_LONG}2",
        "an accent as one character": "Zo\u00eb",
        "an accent as two characters": "Zoe\u0308",
        "Latin letters": "paypal",
        "a Cyrillic letter": "p\u0430ypal",
        "characters of four bytes": "\U0001f9d1\u200d\U0001f680",
        "quotes": 'O\'Brien "Pat" `x`',
        "backslashes": "DOMAIN\\new\\ user",
        "a wildcard": "100%_{id}$1",
        "a line break and a tab": "two\nlines\t",
        "the text null": "null",
        "JSON": '{"type": "user", "id": "ada"}',
    },
    IdType.INTEGER: {"the smallest": "1", "the largest": "2147483647", "one less": "2147483646", "ten": "10"},
    IdType.UUID: {
        "zeros": "00000000-0000-0000-0000-000000000000",
        "ones": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "another end": "ffffffff-ffff-ffff-ffff-fffffffffffe",
        "a leading zero": "0fffffff-ffff-4fff-8fff-ffffffffffff",
    },
}


@check(
    "actor.ids",
    claim="ids of actors are kept as declared: their case, blanks, zeros, quotes, letters and length",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def ids(ctx: CheckContext) -> None:
    client = ctx.client()
    for name, identity in _IDS[ctx.target.actor.ids].items():
        actor = Actor("user", identity)
        outcome = ctx.attempt(partial(ctx.write, client, actor, name))
        if outcome == "done":
            ctx.expect(f"an id: {name}", ctx.actor_of(name), equals=actor.reference)
        else:
            ctx.expect(f"the audited write, with an id: {name}", outcome, equals="done")


@breaks(ids, at="an id: upper case")
def ids_in_lower_case(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.actor_ref := lower(NEW.actor_ref::text)::jsonb")


@breaks(ids, at="an id: blanks after it")
def ids_without_blanks(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", _changed("btrim(NEW.actor_ref ->> 'id')"))


@breaks(ids, at="an id: digits with leading zeros")
def ids_as_numbers(ctx: CheckContext) -> None:
    without = _changed("ltrim(NEW.actor_ref ->> 'id', '0')")
    ctx.tamper("audit_transactions", f"IF NEW.actor_ref ->> 'id' ~ '^[0-9]+$' THEN {without}; END IF")


@breaks(ids, at="an id: 255 characters, the last one another")
def ids_that_are_cut(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", _changed("left(NEW.actor_ref ->> 'id', 254)"))


@breaks(ids, at="an id: an accent as two characters")
def ids_that_are_normalized(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", _changed("normalize(NEW.actor_ref ->> 'id')"))


def _changed(expression: str) -> str:
    """Return PL/pgSQL that replaces the id of an actor."""
    return f"NEW.actor_ref := jsonb_set(NEW.actor_ref, '{{id}}', to_jsonb({expression}))"


# --- who writes ------------------------------------------------------------------------------------------

#: creates what writes for others; the function runs with the rights of the tables' owner
_FUNCTION = """
CREATE FUNCTION public.write_for_others(slug text) RETURNS void LANGUAGE sql SECURITY DEFINER
AS 'INSERT INTO public.posts (slug, title) VALUES ($1, ''a title'')';
GRANT EXECUTE ON FUNCTION public.write_for_others(text) TO harness_app"""


@check(
    "actor.writers",
    claim="a write is attributed to the declared actor, whichever role, function or program makes it",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def writers(ctx: CheckContext) -> None:
    """Write as the tables' owner, as a role within the application's, by a definer function, and under other names."""
    ctx.owner.run(_FUNCTION)
    member = f"member_{ctx.database[-6:]}"
    ctx.admin.run(f"CREATE ROLE {member} IN ROLE harness_app")
    ctx.when_ended(partial(ctx.admin.run, f"DROP ROLE {member}"))
    client = ctx.client()
    #: the client, and the statement that begins its transaction
    ways: dict[str, tuple[Client, str]] = {
        "the application": (client, ""),
        "a member of the application's role": (ctx.admin, f"SET LOCAL ROLE {member}"),
    }
    if "application_name" not in ctx.target.actor.names:
        ways["another application_name"] = client, "SET LOCAL application_name = 'mallory'"
    if not ctx.target.needs_superuser:  # nothing else gives the owner rights on a trail of the superuser
        ways["the owner of the tables"] = ctx.owner, ""
    # first without an actor: one that is set for a session would stay
    for actor, suffix in ((None, ", without an actor"), (ADA, "")):
        for name, (own, first) in ways.items():
            slug = f"by {name}{suffix}"
            _expect_write(ctx, slug, actor, partial(_write_after, ctx, own, actor, first, slug))
    name = "by a SECURITY DEFINER function"
    _expect_write(ctx, name, BOB, partial(_call, ctx, client, name))


def _write_after(ctx: CheckContext, client: Client, actor: Actor | None, first: str, slug: str) -> None:
    with ctx.audited(client, actor, first=first):
        ctx.insert_post(client, slug)


def _call(ctx: CheckContext, client: Client, slug: str) -> None:
    with ctx.audited(client, BOB):
        client.value("SELECT public.write_for_others(%s)", [slug])
        if not ctx.records(Recorded.INSERTS):
            client.run("UPDATE public.posts SET views = 1 WHERE slug = %s", [slug])


def _expect_write(ctx: CheckContext, slug: str, actor: Actor | None, write: Callable[[], None]) -> None:
    refused = ""

    def undeclared() -> None:
        nonlocal refused
        refused = refusal_of(ctx, write)

    outcome = ctx.attempt(write if actor else undeclared)
    if outcome != "done":
        ctx.expect(f"the audited write {slug}", outcome, equals="done")
    elif actor:
        ctx.expect(f"actor of a write {slug}", ctx.actor_of(slug), equals=actor.reference)
    else:
        ctx.expect(f"actor of a write {slug}", undeclared_actor(ctx, slug, refused), equals=nobody(ctx))


@breaks(writers, at="actor of a write by a SECURITY DEFINER function")
def writers_are_the_role(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.actor_ref := jsonb_build_object('type', 'user', 'id', session_user)")


@breaks(writers, at="actor of a write by another application_name, without an actor")
def writers_are_the_program(ctx: CheckContext) -> None:
    name = "jsonb_build_object('type', 'user', 'id', current_setting('application_name'))"
    ctx.tamper("audit_transactions", f"NEW.actor_ref := coalesce(NEW.actor_ref, {name})")


@breaks(writers, at="actor of a write by the application, without an actor")
def writers_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


# --- nested work -----------------------------------------------------------------------------------------

#: triggers of the application that write to another table, at once and at the commit
_NESTED = """
CREATE FUNCTION public.also_an_author() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.authors VALUES (TG_ARGV[0] || NEW.slug, NEW.slug); RETURN NULL; END $$;
CREATE TRIGGER z_nested AFTER INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.also_an_author('at once: ');
CREATE CONSTRAINT TRIGGER z_late AFTER INSERT ON public.posts DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.also_an_author('at commit: ')"""
#: what one transaction does, with {} for the name of its actor
_WORK = (
    "INSERT INTO public.posts (slug, title) VALUES ('{}', 'a title')",
    "INSERT INTO public.comments (post_id, body) SELECT id, 'by {}' FROM public.posts WHERE slug = '{}'",
    "DO $do$ BEGIN BEGIN INSERT INTO public.posts (slug) VALUES ('{} undone'); PERFORM 1 / 0; "
    "EXCEPTION WHEN division_by_zero THEN INSERT INTO public.posts (slug) VALUES ('{} handler'); END; END $do$",
    "INSERT INTO public.posts (slug) VALUES ('{}') ON CONFLICT (slug) DO UPDATE SET views = 1",
    "SAVEPOINT s",
    "INSERT INTO public.posts (slug) VALUES ('{} savepoint')",
    "RELEASE SAVEPOINT s",
    "DELETE FROM public.posts WHERE slug = '{}'",
)


@check(
    "actor.nested-work",
    claim="what triggers, cascades, exception handlers and the commit of a transaction write has the transaction's actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED_ROWS,
)
def nested_work(ctx: CheckContext) -> None:
    ctx.alter("public.posts", _NESTED)
    client = ctx.client()
    known: set[str] = set()
    for actor in (ADA, BOB):
        with ctx.audited(client, actor):
            for statement in _WORK:
                client.run(statement.replace("{}", str(actor.id)))
        changes = [change for change in ctx.changes() if change.id not in known]
        known |= {change.id for change in changes}
        tables = sorted({change.table_name for change in changes})
        ctx.expect(f"tables with changes of {actor.id}", tables, equals=["authors", "comments", "posts"])
        if ctx.records(Recorded.TRANSACTION_ID):
            number = len({change.transaction_id for change in changes})
            ctx.expect(f"transactions of the changes of {actor.id}", number, equals=1)
        others = [f"{change.op} in {change.table_name}" for change in changes if change.actor != actor.reference]
        ctx.expect(f"changes of {actor.id} with another actor, or with none", others, equals=[])


@breaks(nested_work, at="changes of bob with another actor, or with none")
def nested_work_of_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{MALLORY.setting}'")


@breaks(nested_work, at="transactions of the changes of ada")
def nested_work_in_other_transactions(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@breaks(nested_work, at="tables with changes of ada")
def nested_work_not_captured(ctx: CheckContext) -> None:
    ctx.disable_capture("public.authors")
