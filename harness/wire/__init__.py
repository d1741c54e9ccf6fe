"""PostgreSQL's protocol over a bare socket, for what libpq cannot send.

libpq hides what a probe looks for: it sends no startup parameter that it does not know, asks for one protocol
version, follows a login to its end, and tells nothing of the messages in between. Nothing here imports it.
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
    forget,
    parse,
    run,
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
    "forget",
    "parse",
    "run",
    "unverified_tls",
]
