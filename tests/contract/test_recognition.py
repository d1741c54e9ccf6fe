"""Real chains are recognised correctly and in time, and recognition leaves nothing behind on their servers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
from msgspec.structs import replace

from harness.database import Endpoint, SqlError, connect
from harness.engine.protocol import Wanted
from harness.errors import InterruptedRunError
from harness.events import silent
from harness.lab.lab import Lab, stand_up
from harness.lab.services import pooler_spec
from harness.lab.topologies import load_topologies
from harness.model import PoolMode
from harness.recognition.contradictions import contradictions, doubts
from harness.recognition.findings import FACTS, PARAMETERS, Recognition
from harness.recognition.login_probe import probe_startup
from harness.recognition.parameter_probe import STATEMENT
from harness.recognition.pool_probe import Contention
from harness.recognition.recognise import recognise
from harness.recognition.route import find_route
from harness.recognition.sessions import Sessions
from harness.redaction import Redactor
from harness.waiting import NotYet, poll
from harness.wire import Deadline, Wire
from harness.wire.relay import Relay
from harness.wire.sockets import ServerAddress
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.model import Topology

pytestmark = pytest.mark.engine

#: on a busy machine a finding may be unknown, so recognition is repeated
ATTEMPTS = 3
OUR_NAME = PARAMETERS["application_name"][0]


@contextlib.contextmanager
def started(engine: Engine, owner: Owner, topology: Topology) -> Iterator[Lab]:
    """Start a topology for the block."""
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        yield lab
    finally:
        lab.close()


def with_pooler(name: str, **settings: object) -> Topology:
    topology = load_topologies()[name]
    assert topology.pooler
    return replace(topology, pooler=replace(topology.pooler, **settings))


@contextlib.contextmanager
def in_front(lab: Lab, version: str, mode: PoolMode) -> Iterator[Endpoint]:
    """Start another PgBouncer in front of a lab's for the block, and return its endpoint for the application."""
    assert lab.topology.pooler
    declared = replace(lab.topology.pooler, version=version, pool_mode=mode, default_pool_size=4)
    outer = lab.start_service(
        "outer",
        Wanted(product="pgbouncer", version=version),
        lambda place: pooler_spec(place, declared, lab.roles, lab.outermost.inside),
    )
    endpoint = replace(lab.chain(), host=outer.endpoint().host, port=outer.endpoint().port)

    def answered() -> None:
        try:
            connect(endpoint, connect_timeout_s=3).close()
        except SqlError as error:
            raise NotYet(str(error)) from None

    try:
        poll(answered, what="the outer pooler", deadline_s=20)
        yield endpoint
    finally:
        lab.remove_service(outer)


class SlowProxy:
    """A proxy in front of a server. It delays one answer of each connection, once a client has sent certain bytes."""

    def __init__(self, server: Endpoint, trigger: bytes, delay_s: float) -> None:
        self._server = server
        self._trigger = trigger
        self._delay_s = delay_s
        self._is_slow = threading.Event()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for opened in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection((self._server.host, self._server.port))
                self._sockets += [client, server]
                for copy, source, target in ((self._requests, client, server), (self._answers, server, client)):
                    threading.Thread(target=copy, args=(source, target), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._trigger in data:
                    self._is_slow.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        delayed = False
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self._is_slow.is_set() and not delayed:
                    delayed = True
                    self._ended.wait(self._delay_s)
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def conninfo(endpoint: Endpoint) -> str:
    return (
        f"host={endpoint.host} port={endpoint.port} user={endpoint.user} "
        f"password={endpoint.password} dbname={endpoint.dbname}"
    )


def app_sessions(lab: Lab) -> list[tuple[object, ...]]:
    with lab.connect_admin() as admin:
        return admin.rows(
            "SELECT state, application_name, backend_xid, backend_xmin FROM pg_stat_activity WHERE usename = %s",
            [lab.roles.app.name],
        )


def lock_count(lab: Lab) -> int:
    with lab.connect_admin() as admin:
        count = admin.value(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE usename = %s", [lab.roles.app.name]
        )
        assert isinstance(count, int)
        return count


def settings_of(wire: Wire) -> dict[str, object]:
    shown = dict(zip(PARAMETERS, wire.query(STATEMENT)[0][1:], strict=True))
    del shown["application_name"]
    return {**shown}


def require_nothing_left(lab: Lab) -> None:
    """Assert that no session state is left: as the server shows it, and in every server connection of the pooler."""

    def cleaned_up() -> None:
        sessions = app_sessions(lab)
        if not lab.poolers and sessions:
            raise NotYet(f"sessions on the server: {sessions}")
        # old PgBouncers leave a client's application_name on the server connection: the lab's name may be there, but
        # not the one of this recognition
        if any(
            state != "idle" or application_name == OUR_NAME or xid or xmin
            for state, application_name, xid, xmin in sessions
        ):
            raise NotYet(f"sessions that are not idle, or have our name: {sessions}")
        if lock_count(lab):
            raise NotYet("locks")

    poll(cleaned_up, what="the end of the application's sessions and locks", deadline_s=5)
    pooler = lab.topology.pooler
    if pooler is None:
        return
    deadline, redactor = Deadline(10), Redactor()
    with Sessions(find_route(lab.direct(), deadline, redactor, "direct"), deadline, 1) as direct:
        usual = settings_of(direct.open())
    with Sessions(find_route(lab.chain(), deadline, redactor, "chain"), deadline, 99) as chain:
        contention = Contention(chain, {})
        if pooler.pool_mode is PoolMode.STATEMENT:
            contention.begin_error = "known"
        pids = {contention.add_holder() for _ in range(pooler.default_pool_size)}
        assert len(pids) == pooler.default_pool_size
        assert None not in pids
        if pooler.pool_mode is not PoolMode.STATEMENT:
            for wire in contention.holders:
                assert wire.query("SELECT name, statement FROM pg_prepared_statements") == []
                assert wire.query("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [("0",)]
                assert settings_of(wire) == usual
        contention.release()


def recognised(lab: Lab, *, also: bool = False, needed: Sequence[str] = ("pool_mode",)) -> Recognition:
    """Recognise the chain, and repeat it while a finding that the test needs is unknown.

    :param also: also give the direct address and the console.
    :param needed: facts that must have a value.
    """
    for _ in range(ATTEMPTS):
        found = recognise(
            lab.chain(), direct=conninfo(lab.direct()) if also else None, console=lab.console() if also else None
        )
        assert {finding.fact for finding in found.findings} <= set(FACTS)
        assert all(finding.how for finding in found.findings)
        for secret in lab.roles.secrets():
            assert secret not in repr(found)
        unknown = [found.finding(fact) or fact for fact in needed if not found.value(fact)]
        if not unknown:
            return found
    pytest.fail(f"{ATTEMPTS} attempts did not find {unknown}")


@pytest.mark.parametrize(
    ("engine_name", "name"),
    [
        # `report` recognises all chains on Docker
        ("docker", "transaction"),
        *(("native", "direct"), ("native", "session"), ("native", "transaction")),
    ],
)
def test_a_chain_is_recognised_and_nothing_is_left_behind(engine_name: str, owner: Owner, name: str) -> None:
    engine = require_engine(engine_name)
    with started(engine, owner, load_topologies()[name]) as lab:
        pooler = lab.topology.pooler
        declared = {"server_version": lab.evidence.service("postgres").version.split()[0], "in_recovery": "no"}
        if pooler:
            declared |= {
                "pooler": "yes",
                "product": "PgBouncer",
                "version": lab.evidence.service("pooler").version,
                "pool_mode": pooler.pool_mode,
                "pool_size": str(pooler.default_pool_size),
                "parameter.TimeZone": "kept",
                "parameter.extra_float_digits": "refused",
                "authentication": "scram-sha-256",
            }
        else:
            declared |= {"pooler": "no", "product": "PostgreSQL", "pool_mode": "none", "prepared_statements": "kept"}
        declared |= {"parameter_status": "complete", "poolers": "at least 1" if pooler else "none"}
        alone = recognised(lab, needed=list(declared))
        assert contradictions(alone, declared) == ()
        assert alone.is_certain("pool_mode") or name != "transaction"
        require_nothing_left(lab)
        with_direct_address = recognised(lab, also=True)
        assert contradictions(with_direct_address, {**declared, "direct": "yes", "same_server": "yes"}) == ()
        assert with_direct_address.is_certain("same_server")
        assert with_direct_address.value("direct_authentication") == "scram-sha-256"
        if pooler:
            assert with_direct_address.is_certain("pool_mode")
            assert with_direct_address.value("version") == lab.evidence.services[1].version
        require_nothing_left(lab)


def test_tracked_and_untracked_prepared_statements_are_distinguished(any_engine: Engine, owner: Owner) -> None:
    from harness.lab.effective import knows_prepared_statements

    for limit in (0, 50):
        with started(any_engine, owner, with_pooler("transaction", max_prepared_statements=limit)) as lab:
            tracks = bool(limit) and knows_prepared_statements(lab.evidence.services[1].version)
            found = recognised(lab)
            assert found.value("prepared_statements") == ("tracked" if tracks else "untracked")
            assert found.is_certain("prepared_statements")
            require_nothing_left(lab)


def test_statement_mode_is_recognised_by_refused_transaction_blocks(any_engine: Engine, owner: Owner) -> None:
    topology = with_pooler("transaction", pool_mode=PoolMode.STATEMENT)
    with started(any_engine, owner, topology) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == "statement"
        assert found.is_certain("pool_mode")
        assert found.value("pool_size") == "4"
        assert found.value("parameter.TimeZone") == "kept"
        assert found.value("prepared_statements") in {"tracked", "untracked"}
        require_nothing_left(lab)


@pytest.mark.parametrize("mode", [PoolMode.SESSION, PoolMode.TRANSACTION])
def test_the_mode_of_a_pool_of_one_is_not_guessed(any_engine: Engine, owner: Owner, mode: PoolMode) -> None:
    with started(any_engine, owner, with_pooler("transaction", pool_mode=mode, default_pool_size=1)) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == mode
        assert found.value("pool_size") in {"1", "at least 1"}
        # a pool of one cannot move a client to another server connection
        assert found.value("parameter.TimeZone") in {"", "honoured"}
        require_nothing_left(lab)


def test_recognition_of_an_exhausted_pool_ends_at_the_deadline_with_partial_findings(
    any_engine: Engine, owner: Owner
) -> None:
    topology = with_pooler("transaction", default_pool_size=2)
    with started(any_engine, owner, topology) as lab:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                other = stack.enter_context(connect(lab.chain()))
                stack.enter_context(other.transaction())
                other.server_pid()
            began = time.monotonic()
            found = recognise(lab.chain(), deadline_s=2.0)
            assert time.monotonic() - began < 5
            assert found.value("product") == "PgBouncer"
            assert found.value("pool_mode") == ""
            finding = found.finding("pool_mode")
            assert finding
            assert "first query failed" in finding.how
        recognised(lab)


def test_a_console_of_another_pooler_is_ignored(any_engine: Engine, owner: Owner) -> None:
    topologies = load_topologies()
    with (
        started(any_engine, owner, topologies["session"]) as lab,
        started(any_engine, owner, topologies["transaction"]) as other,
    ):
        found = recognise(lab.chain(), console=other.console())
        assert found.value("pool_mode") in {"session", ""}
        assert found.value("max_client_conn") == ""
        finding = found.finding("max_client_conn")
        assert finding
        assert "belongs to another pooler" in finding.how


def test_a_limit_of_clients_is_reported_and_not_taken_for_the_pool_size(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, with_pooler("session", max_client_conn=5)) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == "session"
        assert found.value("pool_size").startswith("at least ")
        finding = found.finding("pool_size")
        assert finding
        assert "refused" in finding.how


def test_sessions_that_still_count_when_the_first_begins_are_waited_for(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(any_engine, owner, with_pooler("session", max_client_conn=4)) as lab:

        def probe_and_fill(*arguments: Any) -> None:
            probe_startup(*arguments)
            held = contextlib.ExitStack()
            with pytest.raises(SqlError):  # noqa: PT012 -- one of them is refused
                for _ in range(5):
                    held.enter_context(connect(lab.chain()))
            threading.Timer(0.1, held.close).start()

        monkeypatch.setattr("harness.recognition.recognise.probe_startup", probe_and_fill)
        assert recognised(lab).value("pool_mode") == "session"


def test_an_interruption_while_connections_are_held_leaves_nothing_behind(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Contention) -> None:
        raise InterruptedRunError("interrupted by SIGINT")

    with started(any_engine, owner, load_topologies()["transaction"]) as lab:
        with monkeypatch.context() as patched:
            patched.setattr(Contention, "in_pool", interrupt)
            with pytest.raises(InterruptedRunError):
                recognise(lab.chain())
        require_nothing_left(lab)


@pytest.mark.parametrize(
    ("outer", "outer_mode", "inner", "inner_mode", "version", "inner_version"),
    [
        ("1.24", PoolMode.TRANSACTION, "1.18", PoolMode.TRANSACTION, ">= 1.23", "< 1.20"),
        ("1.18", PoolMode.SESSION, "1.24", PoolMode.TRANSACTION, "< 1.20", ">= 1.21"),
    ],
)
def test_two_poolers_of_different_versions_in_a_row_are_recognised(
    owner: Owner, outer: str, outer_mode: PoolMode, inner: str, inner_mode: PoolMode, version: str, inner_version: str
) -> None:
    engine = require_engine("docker")
    topology = with_pooler("transaction", version=inner, pool_mode=inner_mode, default_pool_size=6)
    with started(engine, owner, topology) as lab:
        assert recognised(lab).value("poolers") == "at least 1"
        with in_front(lab, outer, outer_mode) as endpoint:
            found = recognise(endpoint)
        assert found.value("poolers") == "at least 2"
        assert found.value("version").startswith(version)
        assert found.value("inner_version") == inner_version
        assert found.is_certain("product")


def test_a_pooler_in_session_mode_in_front_of_one_that_shares_is_recognised(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, with_pooler("transaction-legacy", default_pool_size=6)) as lab:
        assert lab.topology.pooler
        with in_front(lab, lab.topology.pooler.version, PoolMode.SESSION) as endpoint:
            for _ in range(ATTEMPTS):
                found = recognise(endpoint)
                if found.value("poolers") == "at least 2":
                    break
        assert found.value("poolers") == "at least 2"
        assert found.value("pool_mode") == "transaction"
        assert found.value("version")


def test_what_pgbouncer_announces_is_certain_and_twice_means_two_poolers(owner: Owner) -> None:
    engine = require_engine("docker")
    engine.prepare((Wanted(product="pgbouncer", version="1.26"),), silent)
    with started(engine, owner, with_pooler("transaction", version="1.26", default_pool_size=6)) as lab:
        found = recognised(lab)
        assert found.value("version") == lab.evidence.services[1].version
        assert found.is_certain("version")
        assert found.is_certain("max_prepared_statements")
        assert found.value("poolers") == "at least 1"
        assert found.value("security_fixes") == "none"
        with in_front(lab, "1.26", PoolMode.TRANSACTION) as endpoint:
            found = recognise(endpoint)
        assert found.value("poolers") == "at least 2"
        assert found.is_certain("poolers")
        assert found.value("inner_version") == found.value("version")


@pytest.mark.long
def test_a_chain_that_becomes_slow_is_not_taken_for_a_full_pool(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, with_pooler("transaction-legacy", default_pool_size=2)) as lab:
        with SlowProxy(lab.chain(), b"BEGIN ISOLATION", 1.0) as proxy:
            found = recognise(replace(lab.chain(), host="127.0.0.1", port=proxy.port), deadline_s=60)
        declared = {
            "pooler": "yes",
            "product": "PgBouncer",
            "version": lab.evidence.services[1].version,
            "pool_mode": "transaction",
            "pool_size": "2",
            "prepared_statements": "untracked",
        }
        assert contradictions(found, declared) == ()
        assert doubts(found, declared) == ()
        assert (found.value("pool_mode"), found.is_certain("pool_mode")) == ("transaction", True)
        assert found.value("pool_size") in {"2", "at least 2"}
        require_nothing_left(lab)


def test_a_role_that_may_use_the_console_learns_the_exact_version(any_engine: Engine, owner: Owner) -> None:
    settings = {"stats_users": "harness_app"}
    with started(any_engine, owner, with_pooler("transaction-legacy", settings=settings)) as lab:
        found = recognised(lab)
        assert found.value("version") == lab.evidence.services[1].version
        assert found.is_certain("version")
        assert found.value("security_fixes").startswith("missing before ")
        assert not found.is_certain("security_fixes")


def test_a_proxy_that_drops_parameter_status_is_noticed(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, load_topologies()["transaction-legacy"]) as lab:
        chain = lab.chain()
        for at_login, value in ((True, "none"), (False, "at the login only")):
            with Relay(ServerAddress(host=chain.host, port=chain.port), b"S", at_login=at_login) as relay:
                found = recognise(replace(chain, host=relay.address.host, port=relay.address.port))
            assert (found.value("parameter_status"), found.is_certain("parameter_status")) == (value, True)


def test_a_connection_string_with_several_hosts_works(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, load_topologies()["direct"]) as lab:
        server = lab.direct()
        dsn = (
            f"host=127.0.0.1,{server.host} port=1,{server.port} user={server.user} "
            f"password={server.password} dbname={server.dbname}"
        )
        assert recognise(f"{dsn} target_session_attrs=read-write").value("server_version")
