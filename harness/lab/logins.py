"""The logins that a lab's servers saw, read from their logs: by which role, into which database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.lab.lab import Lab

#: PostgreSQL with log_connections (https://www.postgresql.org/docs/current/runtime-config-logging.html)
_SERVER = re.compile(
    r"connection authorized: user=(.+?) database=(.+?)(?= application_name=| SSL enabled| GSS |$)", re.MULTILINE
)
#: PgBouncer with log_connections (https://www.pgbouncer.org/config.html#log_connections), after authentication
_POOLER = re.compile(r"login attempt: db=(.+?) user=(.+?) tls=", re.MULTILINE)
_LOGGING_S = 10.0


class Login(Struct, frozen=True):
    """A successful login."""

    role: str
    database: str


class LoginLog:
    """The logins that PostgreSQL and the pooler log from now on."""

    def __init__(self, lab: Lab) -> None:
        """Let PostgreSQL log each login, and remember where its log and the pooler's end.

        :raises TimedOutError: when the server does not begin to log.
        """
        self._lab = lab
        self._start_logging()
        self._server = lab.postgres.logs()
        self._pooler = lab.outermost.logs() if self.pooler_logs else ""

    @property
    def pooler_logs(self) -> bool:
        """Whether the pooler logs who logs in; other products log no role."""
        return self._lab.topology.pooler is not None and self._lab.topology.pooler.product == "pgbouncer"

    def at_server(self) -> frozenset[Login]:
        """Return the logins at PostgreSQL, of clients and of poolers."""
        found = _SERVER.findall(_new(self._lab.postgres.logs(), self._server))
        return frozenset(Login(role, database) for role, database in found)

    def at_pooler(self) -> frozenset[Login]:
        """Return the logins of clients at the pooler; none without one that logs them."""
        if not self.pooler_logs:
            return frozenset()
        found = _POOLER.findall(_new(self._lab.outermost.logs(), self._pooler))
        return frozenset(Login(role, database) for database, role in found)

    def _start_logging(self) -> None:
        """Change the setting, and wait until a new connection has it: the server reads its files asynchronously."""

        def probe() -> None:
            with self._lab.connect_admin() as client:
                if client.value("SHOW log_connections") in {"", "off"}:
                    raise NotYet("the setting is not in effect")

        with self._lab.connect_admin() as client:
            if client.value("SHOW log_connections") in {"", "off"}:
                client.run("ALTER SYSTEM SET log_connections = on")
                client.value("SELECT pg_reload_conf()")
        poll(probe, what="PostgreSQL to log logins", deadline_s=_LOGGING_S)


def _new(log: str, before: str) -> str:
    """Return what a log got since; all of it when it began anew."""
    return log.removeprefix(before)
