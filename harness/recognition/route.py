"""The route of a connection string: the address that libpq chooses, and the login.

libpq parses the connection string, chooses the host and logs in once. Recognition therefore supports what libpq
supports: several hosts, target_session_attrs, service and password files, Unix sockets, certificates. The probes then
open raw sockets to the address that libpq chose.
"""

from __future__ import annotations

import contextlib
import math
import re
import ssl
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.database import Client, Endpoint, SqlError, connect, connect_to
from harness.errors import ConfigError, DatabaseError, HarnessError, TimedOutError
from harness.passwords import passwords_of
from harness.wire import ClosedError, Deadline, NotPostgresError, ServerAddress, unverified_tls

if TYPE_CHECKING:
    from harness.redaction import Redactor

#: the shortest timeout of libpq (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-CONNECT-TIMEOUT)
_LEAST_TIMEOUT_S = 2
#: how often the wait for a login looks whether the deadline was cancelled, seconds
_LOOK_S = 0.1
_FOREIGN = re.compile(r"received invalid response|expected authentication request|invalid (?:SSL|TLS) negotiation")
_CLOSED = re.compile(r"server closed the connection unexpectedly|Connection reset by peer|EOF detected")
_NOISE = re.compile(
    r"^connection failed: |\bIs the server running on that host and accepting TCP/IP connections\?"
    r"|\bThis probably means the server terminated abnormally before or while processing the request\."
)


class Route(Struct, frozen=True, kw_only=True):
    """The address and the login that libpq used. Its text never shows the password."""

    address: ServerAddress
    user: str
    password: str
    dbname: str
    #: the TLS context, if libpq used TLS
    tls: ssl.SSLContext | None
    #: the connection string demands a login that does not reveal the password, so other methods are refused
    scram_only: bool

    def __repr__(self) -> str:
        return f"{self.user}@{self.address}/{self.dbname}"


def find_route(target: Endpoint | str, deadline: Deadline, redactor: Redactor, where: str) -> Route:
    """Log in through libpq, log out, and return the route that libpq used.

    :param target: an endpoint, or a connection string of libpq.
    :param redactor: learns the password, before the login and after it.
    :param where: the name of the target in error messages.
    :raises ConfigError: for an invalid connection string. :raises TimedOutError: at the deadline.
    :raises NotPostgresError: :raises ClosedError: :raises DatabaseError: when the login fails, with one line of text.
    """
    # before the login, because a server that refuses it may repeat the password
    redactor.learn(*(passwords_of(target) if isinstance(target, str) else (target.password,)))
    try:
        client = _Attempt(target, deadline).result()
    except ConfigError as error:
        error.where = error.where or where
        raise
    except SqlError as error:
        raise _translated(error, redactor, where) from None
    with client:
        redactor.learn(client.info.password)
        return _route(client)


class _Attempt:
    """One login in its own thread, because libpq cannot be interrupted while it resolves a host name."""

    def __init__(self, target: Endpoint | str, deadline: Deadline) -> None:
        self._target = target
        self._deadline = deadline
        self._lock = Lock()
        self._given_up = False
        self._outcome: SimpleQueue[Client | Exception] = SimpleQueue()

    def result(self) -> Client:
        Thread(target=self._run, name="libpq login", daemon=True).start()
        try:
            outcome = self._awaited()
        finally:
            with self._lock:
                self._given_up = True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _awaited(self) -> Client | Exception:
        while True:
            left_s = self._deadline.left_s()
            try:
                return self._outcome.get(timeout=max(min(left_s, _LOOK_S), 0.001))
            except Empty:
                if not left_s:
                    raise _login_timeout() from None

    def _run(self) -> None:
        outcome: Client | Exception
        try:
            outcome = self._connect()
        except (SqlError, HarnessError) as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 -- raised in the thread that waits for the outcome
            outcome = ConfigError(f"this connection string cannot be used: {type(error).__name__}")
        with self._lock:
            if not self._given_up:
                self._outcome.put(outcome)
            elif isinstance(outcome, Client):
                outcome.close()

    def _connect(self) -> Client:
        left_s = max(_LEAST_TIMEOUT_S, math.ceil(self._deadline.left_s()))
        if isinstance(self._target, Endpoint):
            return connect(self._target, application_name="", connect_timeout_s=left_s)
        # libpq applies the timeout to each host, so a host that hangs must leave time for the next
        hosts = 1 + self._target.count(",")
        return connect_to(self._target, connect_timeout_s=max(_LEAST_TIMEOUT_S, left_s // hosts))


def _login_timeout() -> TimedOutError:
    return TimedOutError(
        "no login before the deadline: the name server or the server itself does not answer",
    )


def _translated(error: SqlError, redactor: Redactor, where: str) -> HarnessError:
    """Return libpq's message on one line, in an error of the class that matches the cause."""
    text = " ".join(_NOISE.sub("", " ".join(redactor(str(error)).split())).split())
    if error.sqlstate is None and _FOREIGN.search(text):
        return NotPostgresError(f"the server is not PostgreSQL: {text}", where=where)
    if error.sqlstate is None and _CLOSED.search(text):
        return ClosedError(f"the connection was closed before the login: {text}", where=where)
    if error.sqlstate is None and "timeout expired" in text:
        timeout = _login_timeout()
        timeout.where = where
        return timeout
    return DatabaseError(f"cannot connect: {text}", where=where)


def _route(client: Client) -> Route:
    info = client.info
    parameters = info.get_parameters()
    host = info.host
    is_unix = host.startswith(("/", "@"))
    return Route(
        address=ServerAddress(
            host=host if is_unix else info.hostaddr or host, port=info.port, name="" if is_unix else host
        ),
        user=info.user,
        password=info.password,
        dbname=info.dbname,
        tls=_tls(parameters) if client.pgconn.ssl_in_use else None,
        scram_only=parameters.get("channel_binding") == "require" or "require_auth" in parameters,
    )


def _tls(parameters: dict[str, str]) -> ssl.SSLContext:
    """Return a TLS context that is as strict as the connection string demands."""
    mode, root = parameters.get("sslmode", ""), parameters.get("sslrootcert", "")
    folder = Path.home() / ".postgresql"
    context = unverified_tls()
    if mode in {"verify-ca", "verify-full"}:
        context = ssl.create_default_context(cafile=None if root == "system" else root or str(folder / "root.crt"))
        context.check_hostname = mode == "verify-full"
    certificate = Path(parameters.get("sslcert") or folder / "postgresql.crt")
    key = Path(parameters.get("sslkey") or folder / "postgresql.key")
    # the password callback keeps OpenSSL from asking at the terminal; without the certificate the login fails with a
    # message about it
    with contextlib.suppress(OSError, ValueError):
        if certificate.is_file():
            context.load_cert_chain(certificate, key, password=lambda: parameters.get("sslpassword", ""))
    return context
