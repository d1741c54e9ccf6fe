"""The logins of foreign commands: what each of them may do, its database, and what a command leaves on the server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe, drop_database, quote_name
from harness.suites.server_state import remember, restore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from harness.checks.context import CheckContext
    from harness.lab.credentials import CommandRole

#: the rights of each login, as the evidence says them
RIGHTS: dict[CommandRole, str] = {
    "app": "connects, and owns nothing",
    "owner": "owns the database",
    "createdb": "owns the database, and may create databases, roles and trusted extensions",
    "superuser": "may do everything",
}
#: of a line that a reason repeats
_LONGEST_LINE = 160
#: how a pooler treats roles that the command creates, by its product
CREATED_ROLES = {
    "pgbouncer": "PgBouncer looks up their passwords in the server",
    "pgpool": "Pgpool-II refuses their logins: it knows the passwords in its file pool_passwd only",
    "pgagroal": "pgagroal passes their logins on to the server",
}
#: roles and databases of these owners are the harness's own
_OWNERS = ("harness_admin", "harness_owner")


def chosen_by_the_harness(what: str, line: str, chosen: CommandRole, owed: str) -> str:
    """Return why nothing follows from a missing right, and which key decides about it.

    :param what: what happened, such as `up failed`.
    :param line: what the tool printed, without secrets.
    :param chosen: the login that the harness chose.
    :param owed: whose role the project should name, such as `the role that migrates your database`.
    """
    line = line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"
    roles = list(RIGHTS)
    others = " or ".join(f'role = "{role}" ({RIGHTS[role]})' for role in roles[roles.index(chosen) + 1 :])
    return (
        f"{what}, and its login lacks a right: {line}; no role is declared, so the harness chose "
        f'"{chosen}", which {RIGHTS[chosen]}; declare {owed}: {others}, or role = "{chosen}", and this is an Issue'
    )


def own_database(ctx: CheckContext, role: CommandRole, name: str = "command") -> str:
    """Create an empty database for a command, and return its name. It belongs to the login, except that of `app`.

    :param name: the last part of the name; one check may need several databases.
    """
    owner = ctx.empty_database(name)
    database = owner.info.dbname
    owner.close()
    if role != "app":
        login = ctx.lab.roles.commands[role].name
        with ctx.lab.connect_admin() as admin:
            admin.run(f"ALTER DATABASE {quote_name(database)} OWNER TO {quote_name(login)}")
    return database


@contextlib.contextmanager
def leaves_nothing(ctx: CheckContext, own: Collection[str]) -> Iterator[None]:
    """Remove what commands left on the server, so that the next command finds none of it.

    :param own: the databases that were created for them, which the check drops itself.
    :raises NotExercisedError: when it cannot be removed.
    """
    remember(ctx.lab)
    left = ""
    try:
        yield
    finally:
        if not ctx.lab.is_closed:
            try:
                remove_left(ctx, own)
            except SqlError as error:
                left = f"what the commands left on the server cannot be removed: {describe(error)}"
                ctx.left_behind(left)
    if left:
        raise NotExercisedError(left)


def remove_left(ctx: CheckContext, own: Collection[str]) -> None:
    """Remove the databases and roles that commands created, with what those roles own and may do in other databases.

    Logins get their attributes, passwords and settings back: a search path that a migration sets for its role would
    reach all later commands. Settings of the whole server are restored, too.

    :param own: the databases that the check drops itself.
    :raises SqlError: when something cannot be removed or restored.
    """
    before = remember(ctx.lab)
    # a command may have ended all sessions, so this one is new
    with ctx.lab.connect_admin() as admin:
        # no session can enter a database that a command closed, and a template cannot be dropped
        changed = admin.rows(
            "SELECT format('ALTER DATABASE %%I ALLOW_CONNECTIONS true IS_TEMPLATE false', datname) FROM pg_database"
            " WHERE (NOT datallowconn OR datistemplate) AND pg_get_userbyid(datdba) <> 'harness_admin'"
            " AND (datname = ANY(%s) OR pg_get_userbyid(datdba) <> ALL(%s))",
            [list(own), list(_OWNERS)],
        )
        changed += admin.rows(
            "SELECT format('ALTER DATABASE %%I OWNER TO harness_owner', datname) FROM pg_database"
            " WHERE datname = ANY(%s) AND format('role %%I', pg_get_userbyid(datdba)) <> ALL(%s)",
            [list(own), list(before)],
        )
        for (statement,) in changed:
            admin.run(statement)
        # a prepared transaction outlives its session, keeps its locks, and can only be ended in its database
        prepared = admin.rows(
            "SELECT database, quote_literal(gid) FROM pg_prepared_xacts"
            " WHERE database = ANY(%s) OR format('role %%I', owner) <> ALL(%s) OR starts_with(owner, 'harness_command_')",
            [list(own), list(before)],
        )
        for name, transaction in prepared:
            with ctx.lab.connect_admin(name) as client:
                client.run(f"ROLLBACK PREPARED {transaction}")
        made = admin.rows(
            "SELECT datname FROM pg_database WHERE datname <> ALL(%s) AND pg_get_userbyid(datdba) <> ALL(%s)",
            [list(own), list(_OWNERS)],
        )
        for (name,) in made:
            drop_database(admin, name)
        # an idle session of a pooler prevents that the template is cloned
        admin.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'template1' AND starts_with(usename, 'harness_command_')"
        )
        elsewhere = admin.rows(
            "SELECT DISTINCT datname, quote_ident(rolname) FROM pg_shdepend JOIN pg_database ON pg_database.oid = dbid"
            " JOIN pg_roles ON pg_roles.oid = refobjid WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o'"
            " AND datname IN ('postgres', 'template1') AND starts_with(rolname, 'harness_command_')"
        )
        for name, login in elsewhere:
            with ctx.lab.connect_admin(name) as client:
                client.run(f"DROP OWNED BY {login} CASCADE")
        roles = admin.rows(
            "SELECT quote_ident(rolname) FROM pg_roles"
            " WHERE NOT starts_with(rolname, 'pg_') AND format('role %%I', rolname) <> ALL(%s)",
            [list(before)],
        )
        there = admin.rows("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [["postgres", *own]])
        for (name,) in there if roles else ():
            with ctx.lab.connect_admin(name) as client:
                for (role,) in roles:
                    client.run(f"DROP OWNED BY {role} CASCADE")
        for (role,) in roles:
            admin.run(f"DROP ROLE {role}")
        restore(admin, before)
