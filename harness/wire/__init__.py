"""A client of PostgreSQL's protocol on a raw socket, for messages that libpq cannot send.

libpq sends only the startup parameters that it knows, and requests one protocol version. It completes every login and
does not show the messages in between. A probe needs these messages, so nothing in this package imports libpq.
Message formats: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from harness.wire.connection import PROTOCOL_3_0, PROTOCOL_3_2, Wire
from harness.wire.messages import (
    ClosedError,
    LoginError,
    Message,
    NotPostgresError,
    Part,
    Row,
    ServerError,
    authentication_name,
    bind_and_execute,
    close_statement,
    parse,
)
from harness.wire.sockets import Deadline, ServerAddress, unverified_tls

__all__ = [
    "PROTOCOL_3_0",
    "PROTOCOL_3_2",
    "ClosedError",
    "Deadline",
    "LoginError",
    "Message",
    "NotPostgresError",
    "Part",
    "Row",
    "ServerAddress",
    "ServerError",
    "Wire",
    "authentication_name",
    "bind_and_execute",
    "close_statement",
    "parse",
    "unverified_tls",
]
