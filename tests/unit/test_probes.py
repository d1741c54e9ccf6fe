"""The outcome of a probe that ends with an error of the server or the pooler."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.audit.target_loading import reference_target
from harness.checks.context import CheckContext
from harness.checks.documented import WORKS
from harness.checks.execution import run_check
from harness.checks.load import LoadSettings
from harness.checks.record import NotExercisedError
from harness.database import Client, Endpoint, Side, connect
from harness.errors import ServiceFailedError, TimedOutError
from harness.lab.topologies import load_topologies
from harness.libpq import CLOSED, Reply
from harness.model import EndedBy, Expectation, Outcome, Status
from harness.suites.pooling import restarts
from harness.suites.pooling.probes import WRONG, fails, failure_of, probe, require_open
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from tests.unit.made_up import planned
from tests.unit.test_wire import serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from harness.checks.execution import ContextSource

DIRECT = load_topologies()["direct"]


class Context(CheckContext):
    """The context of a feature without documentation: it is expected to work."""

    def judge(self, _feature: str, _title: str, observed: Outcome) -> None:
        self.add(Expectation(name="outcome", expected="works", observed=str(observed), held=observed == WORKS))


class Contexts:
    target = reference_target()
    load = LoadSettings()

    def own_failure(self, *, read_logs: bool = True) -> None:
        return None

    @contextmanager
    def context(self, _check: str) -> Iterator[CheckContext]:
        ctx = Context(cast("Any", None), self.target, "none", cast("Any", self))
        try:
            yield ctx
        finally:
            ctx.close()


def outcome(body: Callable[[CheckContext], Outcome]) -> tuple[Status, str]:
    check, _ = probe("tried", "a feature", group="locks", claim="it works")(body)
    result = run_check(check, planned("direct", "pooling.tried"), DIRECT, cast("ContextSource", Contexts()))
    return result.status, result.reason


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def answers(*to_queries: bytes) -> Callable[[socket.socket], None]:
    """Return a server that lets everybody in, answers each query in turn, then closes the connection."""

    def handle(client: socket.socket) -> None:
        while struct.unpack("!ii", client.recv(4096)[:8])[1] in _ENCRYPTION:
            client.sendall(b"N")
        client.sendall(message(b"R", struct.pack("!i", 0)) + message(b"Z", b"I"))
        for answer in to_queries:
            client.recv(4096)
            client.sendall(answer)

    return handle


def error(severity: str, sqlstate: str, text: str = "not here") -> bytes:
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", text))
    return message(b"E", b"".join(f"{name}{text}\0".encode() for name, text in fields) + b"\0")


READY = message(b"Z", b"I")
#: the codes of SSLRequest and GSSENCRequest
_ENCRYPTION = (80877103, 80877104)


@pytest.mark.parametrize(
    ("server", "side", "status", "reason"),
    [
        (answers(b""), Side.APPLICATION, Status.ISSUE, "outcome: expected works, observed fails (closed)"),
        (
            answers(error("FATAL", "08P01")),
            Side.APPLICATION,
            Status.ISSUE,
            "outcome: expected works, observed fails (08P01, closed)",
        ),
        (
            answers(error("ERROR", "0A000") + READY, b""),
            Side.APPLICATION,
            Status.ISSUE,
            "outcome: expected works, observed fails (0A000)",
        ),
        # the clients of the check have filled the pool, which says nothing about the feature
        (
            answers(error("FATAL", "08P01", "query_wait_timeout")),
            Side.APPLICATION,
            Status.NOT_RUN,
            "a client waited for a server connection longer than query_wait_timeout",
        ),
        # the harness's own connection shows nothing about the pooler
        (answers(b""), Side.HARNESS, Status.NOT_RUN, "the server did not serve the check: OperationalError: "),
        (answers(error("ERROR", "42P01") + READY, b""), Side.HARNESS, Status.ISSUE, "the check itself broke: 42P01"),
    ],
)
def test_an_error_of_a_clients_connection_is_the_outcome(
    server: Callable[[socket.socket], None], side: Side, status: Status, reason: str
) -> None:
    def uses_a_client(ctx: CheckContext) -> Outcome:
        client: Client = ctx._keep(connect(at, side=side))
        client.run("SELECT 1")
        return WORKS

    with serving(server) as address:
        at = Endpoint(host=address.host, port=address.port, user="app", password="", dbname="app")
        found, why = outcome(uses_a_client)
    assert found is status
    assert why.startswith(reason)


def test_an_answer_about_a_full_pool_is_not_the_outcome_but_the_timeouts_own_probe_sees_it() -> None:
    full = Reply(sqlstate="08P01", message="FATAL:  query_wait_timeout", closed=True)
    with pytest.raises(NotExercisedError, match="query_wait_timeout"):
        fails(full)
    assert str(failure_of(full)) == "fails (08P01, closed)"


@pytest.mark.parametrize(
    ("raised", "observed"),
    [
        (ServerError("08P01", "not here"), "fails (08P01)"),
        (ClosedError("the server closed the connection"), "fails (closed)"),
        (NotPostgresError("a message has an invalid length"), "fails"),
        (TimedOutError("no answer"), "hangs"),
    ],
)
def test_an_error_on_the_wire_is_the_outcome(raised: Exception, observed: str) -> None:
    def fails(_ctx: CheckContext) -> Outcome:
        raise raised

    assert outcome(fails) == (Status.ISSUE, f"outcome: expected works, observed {observed}")


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Reply(sqlstate=CLOSED, closed=True), Status.ISSUE, "outcome: expected works, observed fails (closed)"),
        (Reply(sqlstate="57P01", closed=True), Status.ISSUE, "outcome: expected works, observed fails (57P01, closed)"),
        (Reply(sqlstate="42501"), Status.OK, ""),
        (Reply(value="1"), Status.OK, ""),
    ],
)
def test_a_connection_that_ends_before_the_feature_is_used_is_the_outcome(
    answer: Reply, status: Status, reason: str
) -> None:
    def sets_up(_ctx: CheckContext) -> Outcome:
        require_open(answer)
        return WORKS

    assert outcome(sets_up) == (status, reason)


def test_a_failed_service_is_no_outcome() -> None:
    def fails(_ctx: CheckContext) -> Outcome:
        raise ServiceFailedError("the container is gone")

    assert outcome(fails) == (Status.NOT_RUN, "the container is gone")


def test_an_outcome_after_the_time_limit_is_not_the_features() -> None:
    def cut_off(ctx: CheckContext) -> Outcome:
        ctx.cut(EndedBy.TIME_LIMIT, "the check timed out")
        raise ClosedError("the server closed the connection")

    assert outcome(cut_off) == (Status.NOT_RUN, "the check timed out")


def test_a_statement_that_outlives_its_server_process_without_an_error_is_wrong() -> None:
    ctx = Context(cast("Any", None), reference_target(), "none", cast("Any", None))
    assert restarts._interrupted(ctx, Reply(value="")) == WRONG
    ended = Reply(sqlstate="57P01", message="terminating connection", closed=True)
    assert str(restarts._interrupted(ctx, ended)) == "fails (57P01, closed)"
    assert ctx.facts == {"error that the client received": "terminating connection"}
