"""The template database of a lab: the trail is installed in it, attached to the fixture tables, and tried."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.audit.statements import explained
from harness.audit.target import AuditTarget
from harness.audit.trial import try_trail, with_texts
from harness.audit.verifying import columns_of, try_as_superuser, try_attaching, verify_statements, with_its_tables
from harness.database import (
    Client,
    SqlError,
    cancelled_after,
    connect,
    create_database,
    describe,
    describe_in_full,
    drop_database,
    observing,
    run_files,
)
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.collection import Fixtures
    from harness.lab.lab import Lab

#: of the sessions that run the target's statements here: a statement that never ends would end no run
_DEADLINES = "-c statement_timeout=60s -c lock_timeout=30s"
#: of the installation, whose files may set other deadlines
_LONGEST_INSTALL_S = 60.0


class Provisioned(Struct, frozen=True, kw_only=True):
    """A template database with the trail."""

    #: with the roles and the tables of the lab, and what a trial found
    target: AuditTarget
    #: the fixture tables by name: `done` when capture is attached, else the error
    attached: dict[str, str]


def provision(lab: Lab, target: AuditTarget, fixtures: Fixtures, admin: Client, database: str) -> Provisioned:
    """Create a template database, and install and attach the trail in it, on the direct connection.

    :param admin: creates the database.
    :raises DatabaseError: with file, line and SQLSTATE.
    """
    target = target.of_roles(lab.roles.app.name, lab.roles.owner.name)
    after = ""
    try:
        create_database(admin, database, owner=lab.roles.owner.name, durable=lab.topology.postgres.durable)
        _install(lab, target, database)
        after = "" if target.is_reference else " after the installation of the audit trail"
        with _sessions(lab, target, database) as (owner, installer):
            _create_tables(target, owner, fixtures)
            verify_statements(target, installer)
            if not target.statements.each:
                columns_of(target, installer)
            try_attaching(target, owner)
            attached = _attach(target, owner, fixtures)
            target.grant(installer)
            target = replace(with_its_tables(target, installer), columns=columns_of(target, installer))
        if not target.is_reference:
            target = _tried(lab, target, admin, database)
    except SqlError as error:
        what = f"the database could not be provisioned{after}: {describe_in_full(error)}"
        raise DatabaseError(what, where=f"topology {lab.topology.name}") from None
    return Provisioned(target=target, attached=attached)


def _install(lab: Lab, target: AuditTarget, database: str) -> None:
    """Install the trail on a connection of its own: its files may change settings for the session, as a dump does.

    :raises DatabaseError: with file, line and SQLSTATE.
    """
    with _sessions(lab, target, database) as (_, installer), cancelled_after(installer, _LONGEST_INSTALL_S) as late:
        try:
            target.install_in(installer)
        except DatabaseError as error:
            if not late.is_set():
                raise
            what = f"this SQL did not end within {_LONGEST_INSTALL_S:g} s"
            raise DatabaseError(what, where=error.where) from None


def _create_tables(target: AuditTarget, owner: Client, fixtures: Fixtures) -> None:
    """Create the fixture tables.

    :raises DatabaseError: about the trail, whose installation may have removed a schema or made DDL fail.
    """
    try:
        run_files(owner, [fixtures.sql])
    except DatabaseError as error:
        if target.is_reference:
            raise
        what = f"with the trail installed, the tables that it is to audit cannot be created: {error.what}"
        raise DatabaseError(what, where=target.where, hint=error.hint, detail=error.detail) from None


def _tried(lab: Lab, target: AuditTarget, admin: Client, template: str) -> AuditTarget:
    """Try the trail in a clone of the template, so that nothing of the trial is left, and return the target with it.

    A trail may make its tables with the first change, and a query `each` may find a table only then.

    :raises DatabaseError: when the trail cannot be read, or a statement has a mistake.
    """
    name = f"{template}_trial"
    create_database(admin, name, owner=lab.roles.owner.name, template=template, durable=lab.topology.postgres.durable)
    try:
        with (
            connect(lab.direct(name), application_name="application") as application,
            connect(lab.direct(name), application_name="application") as undeclared,
            connect(lab.admin(name), application_name="pooler-harness trial", options=_DEADLINES) as reader,
            connect(lab.owner(name), application_name="pooler-harness owner", options=_DEADLINES) as owner,
        ):
            try_as_superuser(target, observing(reader))
            with explained("changes", target.at("changes")):
                trial = try_trail(target, application, undeclared, reader)
                trial = with_texts(trial, target, owner, application, reader)
            return replace(target, trial=trial, columns=columns_of(target, reader))
    finally:
        drop_database(admin, name)


@contextlib.contextmanager
def _sessions(lab: Lab, target: AuditTarget, database: str) -> Iterator[tuple[Client, Client]]:
    """Return connections of the tables' owner, and of the role that installs the trail: the owner or a superuser."""
    with contextlib.ExitStack() as stack:
        endpoints = [lab.owner(database), *([lab.admin(database)] if target.needs_superuser else [])]
        clients = [
            stack.enter_context(connect(endpoint, application_name="pooler-harness owner", options=_DEADLINES))
            for endpoint in endpoints
        ]
        yield observing(clients[0]), observing(clients[-1])


def _attach(target: AuditTarget, owner: Client, fixtures: Fixtures) -> dict[str, str]:
    """Attach the fixture tables. If attaching one of them fails, the checks that use it report it."""
    if not target.grants_each_table:  # the grant runs once afterwards
        target = replace(target, role="")
    attached = {}
    tables = dict.fromkeys(fixtures.attached, False) | dict.fromkeys(fixtures.attached_with_changed_from, True)
    for table, changed_from in tables.items():
        attached[table] = "done"
        is_ordinary = table == fixtures.attached[0]  # an error there is the fault of the statement
        try:
            with owner.transaction():
                target.attach(owner, table, changed_from=changed_from)
        except SqlError as error:
            attached[table] = describe(error)
            if is_ordinary:
                raise DatabaseError(
                    f"statements.attach failed for {table}: {describe_in_full(error)}",
                    where=target.at("attach"),
                    hint=error.diag.message_hint or "",
                ) from None
        except DatabaseError as error:  # of the grant
            attached[table] = error.what
            if is_ordinary:
                raise
    return attached
