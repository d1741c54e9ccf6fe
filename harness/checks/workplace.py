"""A standing lab made ready for checks: a template database with the trail, and a clone for each check."""

from __future__ import annotations

import contextlib
import re
import secrets
from threading import local
from typing import TYPE_CHECKING

from harness.checks.bench import Bench
from harness.config import at_key
from harness.database import Client, SqlError, connect, create_database, describe, drop_database, run_files
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.target import AuditTarget
    from harness.checks.registry import Fixtures
    from harness.lab.lab import Lab

_TEMPLATE = "harness_template"


class Workplace:
    """Provisions once, on the direct connection, then gives each check a database of its own."""

    def __init__(self, lab: Lab, target: AuditTarget, fixtures: Fixtures) -> None:
        """Install the trail and the fixture tables in the template database.

        :raises DatabaseError: naming file, line and SQLSTATE.
        """
        self._lab = lab
        self.target = target
        #: what putting capture on each fixture table came to: `done`, or the error
        self.attached: dict[str, str] = {}
        self._thread = local()
        self._chores: list[Client] = []
        owner = lab.roles.owner.name
        try:
            create_database(self._chore(), _TEMPLATE, owner=owner)
            with connect(lab.owner(_TEMPLATE), application_name="pooler-harness owner") as client:
                target.install_in(client)
                run_files(client, [fixtures.sql])
                target.verify_in(client)
                self._attach(client, fixtures)
                target.grant(client, lab.roles.app.name)
        except SqlError as error:
            raise DatabaseError(
                f"the database could not be provisioned: {describe(error)}", where=f"topology {lab.topology.name}"
            ) from None

    def _attach(self, client: Client, fixtures: Fixtures) -> None:
        """Attach the fixture tables. Where that fails for one of them, the checks of that table tell."""
        tables = dict.fromkeys(fixtures.attached, False) | dict.fromkeys(fixtures.attached_with_changed_from, True)
        for table, changed_from in tables.items():
            try:
                with client.transaction():
                    self.target.attach(client, table, changed_from=changed_from)
            except SqlError as error:
                self.attached[table] = describe(error)
                if table == fixtures.attached[0]:  # an ordinary table: here the statement is at fault
                    raise DatabaseError(
                        f"statements.attach does not run for {table}: {describe(error)}",
                        where=at_key(self.target.where, "attach"),
                        hint=error.diag.message_hint or "",
                    ) from None
            else:
                self.attached[table] = "done"

    def new_database(self, name: str, template: str | None = None) -> None:
        create_database(self._chore(), name, owner=self._lab.roles.owner.name, template=template)

    def drop_database(self, name: str) -> None:
        with contextlib.suppress(SqlError):
            drop_database(self._chore(), name)

    @contextlib.contextmanager
    def bench(self, check: str) -> Iterator[Bench]:
        """Give a check a database that nobody else uses; it is dropped afterwards."""
        name = f"{re.sub('[^a-z0-9]+', '_', check)[:40]}_{secrets.token_hex(3)}"
        self.new_database(name, _TEMPLATE)
        bench = Bench(self._lab, self.target, name, self)
        try:
            yield bench
        finally:
            bench.close()
            # ends the pooler's idle server connections to it, too
            self.drop_database(name)

    def forget_connections(self) -> None:
        """Connect anew for the next chore: the server was restarted."""
        for client in self._chores:
            client.close()
        self._chores.clear()

    def close(self) -> None:
        for client in self._chores:
            client.close()

    def _chore(self) -> Client:
        """Return this thread's connection for creating and dropping databases."""
        client: Client | None = getattr(self._thread, "client", None)
        if client is None or client.closed:
            client = self._thread.client = self._lab.connect_admin()
            self._chores.append(client)
        return client
