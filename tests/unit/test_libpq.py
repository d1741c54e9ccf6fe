"""Answers of the protocol functions, against a server in this process that ends a connection between two statements."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from harness.database import Endpoint, connect
from harness.libpq import CLOSED, Reply, simple

if TYPE_CHECKING:
    from collections.abc import Iterator


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


_READY = _message(b"Z", b"I")
_DONE = _message(b"C", b"BEGIN\0") + _message(b"Z", b"T")
_TIMEOUT = _message(b"E", b"SFATAL\0VFATAL\0C25P03\0Midle-in-transaction timeout\0\0")
_CRASHED = _message(b"E", b"SFATAL\0C08P01\0Mserver conn crashed?\0\0")


@contextlib.contextmanager
def _server(*answers: bytes) -> Iterator[Endpoint]:
    """Serve one client: answer each of its statements, and end the connection after the last answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def read(client: socket.socket, kind: int) -> None:
        header = client.recv(kind + 4, socket.MSG_WAITALL)
        (length,) = struct.unpack("!I", header[kind:])
        client.recv(length - 4, socket.MSG_WAITALL)

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            read(client, 0)
            client.sendall(_message(b"R", struct.pack("!I", 0)) + _message(b"S", b"client_encoding\0UTF8\0") + _READY)
            for answer in answers:
                read(client, 1)
                client.sendall(answer)

    thread = Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield Endpoint(host="127.0.0.1", port=listener.getsockname()[1], user="ada", password="", dbname="app")
        thread.join()


@pytest.mark.parametrize("ends", [_TIMEOUT, _TIMEOUT + _CRASHED], ids=["server", "server, then pooler"])
def test_an_error_that_arrives_with_the_end_of_the_statement_before_is_the_answer_to_the_next(
    ends: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client reads both at once, so that libpq has no statement to which the error belongs."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGGSSENCMODE", "disable")
    with _server(_DONE + ends) as endpoint, connect(endpoint) as client:
        assert not simple(client, "BEGIN").is_error
        assert simple(client, "SELECT 1") == Reply(sqlstate="25P03", message="idle-in-transaction timeout", closed=True)


def test_an_error_of_pgbouncer_has_no_untranslated_severity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGGSSENCMODE", "disable")
    with _server(_DONE + _CRASHED) as endpoint, connect(endpoint) as client:
        assert not simple(client, "BEGIN").is_error
        assert simple(client, "SELECT 1") == Reply(sqlstate="08P01", message="server conn crashed?", closed=True)


def test_a_connection_that_ends_without_an_error_has_no_sqlstate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGGSSENCMODE", "disable")
    with _server(_DONE) as endpoint, connect(endpoint) as client:
        assert not simple(client, "BEGIN").is_error
        answer = simple(client, "SELECT 1")
    assert (answer.sqlstate, answer.closed) == (CLOSED, True)


def test_a_rollback_that_fails_with_its_connection_prints_nothing() -> None:
    """As after Ctrl-C: the servers are removed within a transaction, and psycopg logs a warning."""
    script = "import logging, harness.database; logging.getLogger('psycopg').warning('error ignored in rollback')"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
