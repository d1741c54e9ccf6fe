"""From a connection string to an address: libpq reads it, chooses the host and logs in once.

So whatever libpq understands is understood here: several hosts, target_session_attrs, service and password files,
Unix sockets, certificates. Only then sockets of our own are opened, to the very address that libpq had chosen.
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
from harness.wire import ClosedError, Deadline, NotPostgresError, ServerAddress, unverified_tls

if TYPE_CHECKING:
    from harness.redaction import Redactor

#: libpq waits no shorter (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-CONNECT-TIMEOUT)
_LEAST_TIMEOUT_S = 2
_FOREIGN = re.compile(r"received invalid response|expected authentication request|invalid (?:SSL|TLS) negotiation")
_LEFT = re.compile(r"server closed the connection unexpectedly|Connection reset by peer|EOF detected")
_NOISE = re.compile(
    r"^connection failed: |\bIs the server running on that host and accepting TCP/IP connections\?"
    r"|\bThis probably means the server terminated abnormally before or while processing the request\."
)


class Route(Struct, frozen=True, kw_only=True):
    """Where libpq got in, and how. Its text never shows the password."""

    address: ServerAddress
    user: str
    password: str
    dbname: str
    #: how to encrypt, when libpq did
    tls: ssl.SSLContext | None
    #: the connection string demands a login that tells the server nothing, so no other is answered
    scram_only: bool

    def __repr__(self) -> str:
        return f"{self.user}@{self.address}/{self.dbname}"


def reach(target: Endpoint | str, deadline: Deadline, redactor: Redactor, where: str) -> Route:
    """Log in through libpq, log out, and return where that was.

    :param where: what to call the target in an error.
    :raises ConfigError: for what is no connection string. :raises TimedOutError: at the deadline.
    :raises NotPostgresError: :raises ClosedError: :raises DatabaseError: when it is refused; each in one line.
    """
    if isinstance(target, Endpoint):
        redactor.learn(target.password)
    try:
        client = _Attempt(target, deadline).result()
    except ConfigError as error:
        error.where = error.where or where
        raise
    except SqlError as error:
        raise _plain(error, redactor, where) from None
    with client:
        redactor.learn(client.info.password)
        return _route(client)


class _Attempt:
    """One login in a thread of its own: libpq cannot be interrupted while it resolves a name."""

    def __init__(self, target: Endpoint | str, deadline: Deadline) -> None:
        self._target = target
        self._deadline = deadline
        self._lock = Lock()
        self._given_up = False
        self._outcome: SimpleQueue[Client | Exception] = SimpleQueue()

    def result(self) -> Client:
        Thread(target=self._run, name="libpq login", daemon=True).start()
        try:
            outcome = self._outcome.get(timeout=max(self._deadline.left_s(), 0.001))
        except Empty:
            raise _unanswered() from None
        finally:
            with self._lock:
                self._given_up = True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _run(self) -> None:
        outcome: Client | Exception
        try:
            outcome = self._connect()
        except (SqlError, HarnessError) as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 -- it belongs to whoever waits, not to this thread
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
        # the timeout is for each host, and the first that hangs must leave time for the next
        hosts = 1 + self._target.count(",")
        return connect_to(self._target, connect_timeout_s=max(_LEAST_TIMEOUT_S, left_s // hosts))


def _unanswered() -> TimedOutError:
    return TimedOutError(
        "no login before the deadline: whatever is there accepts the connection or the name is looked up, "
        "and no answer comes",
    )


def _plain(error: SqlError, redactor: Redactor, where: str) -> HarnessError:
    """Return libpq's message as one line, under the class of its cause."""
    text = redactor(" ".join(_NOISE.sub("", " ".join(str(error).split())).split()))
    if error.sqlstate is None and _FOREIGN.search(text):
        return NotPostgresError(f"what answers is not PostgreSQL: {text}", where=where)
    if error.sqlstate is None and _LEFT.search(text):
        return ClosedError(f"the connection was closed before the login: {text}", where=where)
    if error.sqlstate is None and "timeout expired" in text:
        late = _unanswered()
        late.where = where
        return late
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
    """Return a context that is as strict as the connection string is."""
    mode, root = parameters.get("sslmode", ""), parameters.get("sslrootcert", "")
    folder = Path.home() / ".postgresql"
    context = unverified_tls()
    if mode in {"verify-ca", "verify-full"}:
        context = ssl.create_default_context(cafile=None if root == "system" else root or str(folder / "root.crt"))
        context.check_hostname = mode == "verify-full"
    certificate = Path(parameters.get("sslcert") or folder / "postgresql.crt")
    key = Path(parameters.get("sslkey") or folder / "postgresql.key")
    # a key with a passphrase would ask at the terminal, and without the certificate the login says what is missing
    with contextlib.suppress(OSError, ValueError):
        if certificate.is_file():
            context.load_cert_chain(certificate, key, password=lambda: parameters.get("sslpassword", ""))
    return context
