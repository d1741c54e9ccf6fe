"""The logins of foreign commands: what each of them may do, its database, and what a command leaves on the server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.database import SqlError, drop_database, quote_literal, quote_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from harness.checks.context import CheckContext
    from harness.lab.credentials import CommandRole, Role

#: the rights of each login, as the evidence says them
RIGHTS: dict[CommandRole, str] = {
    "app": "connects, and owns nothing",
    "owner": "owns the database",
    "createdb": "owns the database, and may create databases, roles and trusted extensions",
    "superuser": "may do everything",
}
#: how a pooler treats roles that the command creates, by its product
CREATED_ROLES = {
    "pgbouncer": "PgBouncer looks up their passwords in the server",
    "pgpool": "Pgpool-II refuses their logins: it knows the passwords in its file pool_passwd only",
    "pgagroal": "pgagroal passes their logins on to the server",
}
#: roles and databases of these owners are the harness's own
_OWNERS = ("harness_admin", "harness_owner")


def own_database(ctx: CheckContext, role: CommandRole, name: str = "command") -> str:
    """Create an empty database for a command, and return its name. It belongs to the login, except that of `app`.

    :param name: the last part of the name; one check may need several databases.
    """
    owner = ctx.empty_database(name)
    database = owner.info.dbname
    owner.close()
    if role != "app":
        login = ctx.lab.roles.commands[role].name
        ctx.admin.run(f"ALTER DATABASE {quote_name(database)} OWNER TO {quote_name(login)}")
    return database


@contextlib.contextmanager
def leaves_nothing(ctx: CheckContext, own: Collection[str]) -> Iterator[None]:
    """Remove the databases and roles that commands created, so that the next command finds none of them.

    :param own: the databases that were created for them, which the check drops itself.
    """
    try:
        yield
    finally:
        if not ctx.lab.is_closed:
            with contextlib.suppress(SqlError):
                remove_left(ctx, own)


def remove_left(ctx: CheckContext, own: Collection[str]) -> None:
    """Remove the databases and roles that commands created, with what those roles own and may do in other databases.

    Logins get their settings and passwords back: a search path that a migration sets for its role would reach all later
    commands.

    :param own: the databases that the check drops itself.
    """
    made = ctx.admin.rows(
        "SELECT datname FROM pg_database WHERE datname <> ALL(%s) AND pg_get_userbyid(datdba) <> ALL(%s)",
        [list(own), list(_OWNERS)],
    )
    for (name,) in made:
        drop_database(ctx.admin, name)
    roles = ctx.admin.rows(
        "SELECT quote_ident(rolname) FROM pg_roles WHERE NOT starts_with(rolname, 'harness_') AND NOT starts_with(rolname, 'pg_')"
    )
    for name in ("postgres", *own) if roles else ():
        with ctx.lab.connect_admin(name) as client:
            for (role,) in roles:
                client.run(f"DROP OWNED BY {role} CASCADE")
    for (role,) in roles:
        ctx.admin.run(f"DROP ROLE {role}")
    for login in ctx.lab.roles.commands.values():
        _restore(ctx, login)


def _restore(ctx: CheckContext, login: Role) -> None:
    """Undo what a command changed of its own login: its settings and its password, which the next command needs."""
    name = quote_name(login.name)
    changed = ctx.admin.rows(
        "SELECT d.datname FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE s.setrole = %s::regrole",
        [name],
    )
    for (database,) in changed:
        where = f"IN DATABASE {quote_name(database)} " if database else ""
        ctx.admin.run(f"ALTER ROLE {name} {where}RESET ALL")
    if ctx.admin.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [login.name]) != login.verifier:
        ctx.admin.run(f"ALTER ROLE {name} PASSWORD {quote_literal(login.verifier)}")
