"""Capture: the application's role can neither forge, change nor delete records, nor switch capture off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.audit.placeholders import fill, table_names
from harness.audit.target_file import Recorded
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe, quote_literal
from harness.model import Section
from harness.suites.capture import shadows
from harness.suites.capture.attempts import REFUSED, UNHARMED, Attempt, Trail, calls, direct_writes
from harness.suites.capture.neighbours import TRIGGERS, with_rights_of_others

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
_OWNER_MAY = "https://www.postgresql.org/docs/current/sql-altertable.html"
#: a trigger function of the application's that drops every row
_SWALLOW = """
    SET ROLE harness_app;
    CREATE FUNCTION own.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    RESET ROLE
"""
#: where the trail may read settings: its functions by name, its triggers, rules and policies, and the defaults of its columns
_SETTING_READERS = f"""
    SELECT proname::text, coalesce(pg_get_function_sqlbody(oid), prosrc) FROM ({shadows.OF_THE_TRAIL}) AS trail
    UNION ALL SELECT '', pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT '', pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT '', concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
    UNION ALL SELECT '', pg_get_expr(adbin, adrelid) FROM pg_attrdef
"""
#: the server's settings that a session may set: a view such as pg_stat_activity shows some of them in a column
_SESSION_SETTINGS = "SELECT name FROM pg_settings WHERE context = 'user'"
_SETTING = re.compile(r"(?:current_setting|set_config)\s*\(\s*'([A-Za-z_][\w.]*)'", re.IGNORECASE)
#: a literal that may be a value of a setting, and one that may be the name of a setting of the trail's own
_LITERAL, _NAME = re.compile(r"'([^'\n]{1,40})'"), re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")
_WORD = re.compile(r"\w+")
_VALUES = ("on", "off", "true", "false", "1", "0", "yes", "no", "disabled", "replica")


@check(
    "capture.forgery",
    claim="the application role can neither forge, change nor delete audit rows, with statements, triggers of its own or the trail's functions",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
)
def forgery(ctx: CheckContext) -> None:
    shadows.make_schemas(ctx.admin)
    ctx.admin.run(_SWALLOW)
    client = ctx.client()
    trail = Trail(ctx, client)
    for name, seen in direct_writes(ctx, client):
        ctx.expect(name, seen, equals=REFUSED)
    attempts = [*_triggers_of_its_own(ctx), *calls(ctx), *_statements_of_the_target(ctx)]
    for attempt in attempts:
        seen = trail.after(attempt)
        ctx.expect(f"the trail after {attempt.name}", UNHARMED if seen == REFUSED else seen, equals=UNHARMED)
    ctx.expect("tables of its own that ran with other rights", with_rights_of_others(ctx), equals=[])
    ctx.fact("attempts", len(attempts))
    trail.require_ended()


def _triggers_of_its_own(ctx: CheckContext) -> list[Attempt]:
    """Return attempts to record rows of the application's own table with the trail's trigger functions."""
    return [
        Attempt(
            f"a temporary table posts with a trigger that calls {function}, {number}",
            "CREATE TEMP TABLE posts (LIKE public.posts) ON COMMIT DROP; "
            f"{definition.replace(' ON public.posts ', ' ON pg_temp.posts ')}; "
            "INSERT INTO pg_temp.posts (id, slug, views) VALUES (9, 'forged', 0); DELETE FROM pg_temp.posts",
        )
        for number, (_, function, definition) in enumerate(ctx.admin.rows(TRIGGERS), 1)
    ]


def _statements_of_the_target(ctx: CheckContext) -> list[Attempt]:
    """Return the statements of the trail's owner, run by the application."""
    target, table = ctx.target, "public.posts"
    prepared = {
        "the statement purge": target.statements.purge.replace("%(cutoff)s", "'infinity'::timestamptz"),
        "the statement age": target.statements.age.replace("%(age)s", "'1 day'::interval"),
        "the statement attach_redacted": target.redacting(table, exclude=["slug"], mask=["title"], placeholder="-"),
        "the statement detach": fill(target.statements.detach, table_names(table)),
    }
    again = fill(target.statements.attach, table_names(table))
    return [
        Attempt(name, statement.replace("%%", "%"), undo=again) for name, statement in prepared.items() if statement
    ]


@breaks(forgery, at="insert into public.audit_changes")
def forgery_by_the_usual_grants(ctx: CheckContext) -> None:
    ctx.sabotage("GRANT SELECT, INSERT ON public.audit_transactions, public.audit_changes TO harness_app")


@breaks(forgery, at="update public.audit_view")
def forgery_through_a_view(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE VIEW public.audit_view AS SELECT id, op, now() AS seen FROM public.audit_changes; "
        "GRANT SELECT, UPDATE ON public.audit_view TO harness_app"
    )


@breaks(forgery, at="the trail after a temporary table posts with a trigger that calls threadline_capture, 1")
def forgery_by_a_trigger_of_its_own(ctx: CheckContext) -> None:
    ctx.sabotage("GRANT EXECUTE ON FUNCTION public.threadline_capture() TO PUBLIC")


@breaks(forgery, at="tables of its own that ran with other rights")
def forgery_by_a_table_next_to_the_captured_one(ctx: CheckContext) -> None:
    ctx.sabotage("GRANT EXECUTE ON FUNCTION public.threadline_capture() TO PUBLIC")
    ctx.rewrite_capture(
        ("IF FOUND THEN", "EXECUTE format('UPDATE %I.audit_changes SET op = op WHERE false', TG_TABLE_SCHEMA); IF FOUND THEN")
    )


@breaks(forgery, at="the trail after the statement attach_redacted")
def forgery_by_a_rule_that_hides_columns(ctx: CheckContext) -> None:
    ctx.sabotage("""
        DO $$ DECLARE found regprocedure; BEGIN
            FOR found IN SELECT oid FROM pg_proc WHERE starts_with(proname, 'threadline_attach') LOOP
                EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER; GRANT EXECUTE ON FUNCTION %s TO PUBLIC', found, found);
            END LOOP;
        END $$""")


@breaks(forgery, at="the trail after keep(text,text,jsonb) with insert")
def forgery_by_a_function(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.keep(table_name text, operation text, image jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER AS "
        "$$ INSERT INTO public.audit_changes (transaction_id, table_schema, table_name, table_pk, op, data_after, captured_at) "
        "VALUES (public.threadline_transaction_id(), 'public', $1, 'null', $2, $3, clock_timestamp()) $$"
    )


@check(
    "capture.switches",
    claim="no setting, function or statement lets the application role switch capture off",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
)
def switches(ctx: CheckContext) -> None:
    trail = Trail(ctx, ctx.client())
    settings = _settings(ctx)
    ctx.fact("settings that the trail reads", ", ".join(settings) or "none")
    attempts = [
        *(
            Attempt(
                f"{name} = {value}",
                f"SELECT set_config({quote_literal(name)}, {quote_literal(value)}, true)",
                with_write=True,
                may_declare=True,
            )
            for name, values in settings.items()
            for value in values
        ),
        Attempt("session_replication_role = replica", "SET LOCAL session_replication_role = replica", with_write=True),
        Attempt("ALTER TABLE … DISABLE TRIGGER", "ALTER TABLE public.posts DISABLE TRIGGER ALL", with_write=True),
        *(
            Attempt(
                f"DROP TRIGGER {name}",
                f'DROP TRIGGER "{name.replace(chr(34), chr(34) * 2)}" ON public.posts',
                with_write=True,
            )
            for name, _, _ in ctx.admin.rows(TRIGGERS)
        ),
        *(Attempt(switch, switch, with_write=True) for switch in ctx.target.switches),
    ]
    for attempt in attempts:
        seen = trail.after(attempt)
        ctx.expect(f"the trail with {attempt.name}", UNHARMED if seen == REFUSED else seen, equals=UNHARMED)
    trail.require_ended()


def _settings(ctx: CheckContext) -> dict[str, list[str]]:
    """Return the settings that the trail may read, without those of the actor, each with the values to try."""
    schemas = {name for (name,) in ctx.admin.rows("SELECT nspname FROM pg_namespace")}
    of_sessions = {name for (name,) in ctx.admin.rows(_SESSION_SETTINGS)}
    sources = [(name, source or "") for name, source in ctx.admin.rows(_SETTING_READERS)]
    found: dict[str, None] = {}
    for _, source in sources:
        own = [text for text in _LITERAL.findall(source) if _NAME.fullmatch(text) and text.partition(".")[0] not in schemas]
        found |= dict.fromkeys((*_SETTING.findall(source), *own, *(of_sessions & set(_WORD.findall(source)))))
    return {name: _values(name, sources) for name in sorted(found.keys() - set(ctx.target.actor.names))}


def _values(setting: str, sources: list[tuple[str, str]]) -> list[str]:
    """Return values to try: literals of the sources that name the setting, or call a function that does."""
    concerned = [(name, source) for name, source in sources if setting in source]
    more = concerned
    while more:
        names = {name for name, _ in more if name}
        more = [reader for reader in sources if reader not in concerned and names & set(_WORD.findall(reader[1]))]
        concerned += more
    literals = [text for _, source in concerned for text in _LITERAL.findall(source)]
    # a pattern of LIKE matches itself
    return list(dict.fromkeys((*_VALUES, *literals, *(text.strip("^$") for text in literals))))


@breaks(switches, at="the trail with app.mode = bulk")
def switches_by_a_value_of_an_argument(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
        "$t$ BEGIN IF current_setting(TG_ARGV[0], true) = TG_ARGV[1] THEN RETURN NULL; END IF; RETURN NEW; END $t$;"
        "CREATE TRIGGER tamper BEFORE INSERT ON public.audit_changes FOR EACH ROW "
        "EXECUTE FUNCTION public.tamper('app.mode', 'bulk')"
    )


@breaks(switches, at="the trail with threadline.off = on")
def switches_in_a_setting(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "IF TG_OP = 'INSERT' THEN",
            "IF current_setting('threadline.off', true) = 'on' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN",
        )
    )


@check(
    "capture.table-owner",
    claim="writes of a role that owns its tables are captured, and with triggers, policies and types it can neither forge records nor gain rights",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
)
def table_owner(ctx: CheckContext) -> None:
    """Write as many frameworks do: the application's role owns its tables, and another role owns the trail."""
    shadows.make_schemas(ctx.admin)
    ctx.admin.run("ALTER TABLE public.posts OWNER TO harness_app")
    client = ctx.client()
    listener = shadows.Listener(client)
    trail = Trail(ctx, client)
    for number, (name, function, definition) in enumerate(ctx.admin.rows(TRIGGERS), 1):
        again = re.sub(
            r"^(CREATE (?:CONSTRAINT )?TRIGGER) .*? (BEFORE|AFTER|INSTEAD OF) ", rf"\1 own_{number} \2 ", definition
        )
        seen = trail.after(
            Attempt(name, again, with_write=True, undo=f"DROP TRIGGER IF EXISTS own_{number} ON public.posts")
        )
        ctx.expect(
            f"the trail after a second trigger that calls {function}, {number}",
            UNHARMED if seen == REFUSED else seen,
            equals=UNHARMED,
        )
    for name, statement in _OWNERS_OBJECTS.items():
        if name == _HIDING and not ctx.records(Recorded.INSERTS):
            continue  # the write to look at is an update, which would find no row
        try:
            with client.transaction():
                client.run(statement)
        except SqlError as error:
            ctx.fact(f"not made: {name}", describe(error))
            continue
        seen = trail.after(Attempt(name, "SELECT 1", with_write=True))  # a trail may refuse such a write
        ctx.expect(f"the trail with {name}", UNHARMED if seen == REFUSED else seen, equals=UNHARMED)
    with_more = {f"{report.name} as {report.role}" for report in listener.take() if report.role != "harness_app"}
    casts = {seen for seen in with_more if seen.startswith(_CAST)}
    ctx.expect("objects of the owner that ran with other rights", sorted(with_more - casts), equals=[])
    trail.require_ended()
    ctx.documented_limit("the owner of a table may disable, drop and redefine its triggers", _OWNER_MAY)
    if casts:  # documented by trails that convert rows to JSON with the rights of their owner
        ctx.trail_limit("a cast to json of the owner's type runs with the rights of another role")


_CAST, _HIDING = "cast to json", "a policy that hides the row"
#: what the owner of a table may add to it
_OWNERS_OBJECTS = {
    _HIDING: """
        ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY hidden ON public.posts FOR SELECT USING (own.spy('policy') AND false);
        CREATE POLICY written ON public.posts FOR INSERT WITH CHECK (NOT own.spy('policy'))""",
    "a rule": "CREATE RULE own AS ON UPDATE TO public.posts DO ALSO SELECT own.spy('rule')",
    "a check with a function": "ALTER TABLE public.posts ADD CHECK (NOT own.spy('check'))",
    "a type with a cast to json": """
        CREATE TYPE own.mood AS ENUM ('calm');
        CREATE FUNCTION own.mood_as_json(own.mood) RETURNS json LANGUAGE plpgsql AS
            'BEGIN PERFORM own.spy(''cast to json''); RETURN ''"calm"''; END';
        CREATE CAST (own.mood AS json) WITH FUNCTION own.mood_as_json(own.mood);
        ALTER TABLE public.posts ADD mood own.mood NOT NULL DEFAULT 'calm'""",
}


@breaks(table_owner, at="the trail after a second trigger that calls threadline_capture, 2")
def table_owner_attaches_it_twice(ctx: CheckContext) -> None:
    ctx.sabotage("GRANT EXECUTE ON FUNCTION public.threadline_capture() TO PUBLIC")


@breaks(table_owner, at="the limit that a cast to json of the owner's type runs with the rights of another role")
def table_owner_has_types_that_run(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("IF EXISTS (SELECT FROM pg_attribute", "IF false AND EXISTS (SELECT FROM pg_attribute"))
