"""Sabotage of a load: something goes wrong once in a thousand rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: so that a short load meets it early
_FIRST, _EVERY = 300, 1000


def every_thousandth(ctx: CheckContext, table: str, action: str, every: int = _EVERY) -> None:
    """Run PL/pgSQL before every thousandth row that is inserted into a table; a row that the action inserts is exempt.

    :param table: as `schema.table`.
    :param action: one statement, without the last semicolon. NEW is the row.
    :param every: the number of rows, where it is not a thousand.
    """
    first = min(_FIRST, every // 2)
    ctx.sabotage(
        "CREATE SEQUENCE public.tampered; GRANT USAGE ON public.tampered TO PUBLIC;"
        "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN "
        "IF current_setting('soak.tampers', true) IS DISTINCT FROM 'on' "
        f"AND nextval('public.tampered') % {every} = {first} THEN "
        f"PERFORM set_config('soak.tampers', 'on', true); {action}; PERFORM set_config('soak.tampers', 'off', true); "
        "END IF; RETURN NEW; END $t$;"
        f"CREATE TRIGGER tamper BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.tamper()"
    )
