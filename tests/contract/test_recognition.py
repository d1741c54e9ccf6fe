"""Real chains are recognised correctly and in time, and recognition leaves nothing behind on their servers."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.database import Endpoint, connect
from harness.errors import InterruptedRunError
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import PoolMode
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import FACTS, PARAMETERS, Recognition
from harness.recognition.parameter_probe import STATEMENT
from harness.recognition.pool_probe import Contention
from harness.recognition.recognise import recognise
from harness.recognition.route import find_route
from harness.recognition.sessions import Sessions
from harness.redaction import Redactor
from harness.waiting import NotYet, poll
from harness.wire import Deadline, Wire

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


@pytest.mark.parametrize("name", ["direct", "session", "transaction"])
def test_a_chain_is_recognised_and_nothing_is_left_behind(engine: Engine, owner: Owner, name: str) -> None:
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


def test_a_connection_string_with_several_hosts_works(any_engine: Engine, owner: Owner) -> None:
    with started(any_engine, owner, load_topologies()["direct"]) as lab:
        server = lab.direct()
        dsn = (
            f"host=127.0.0.1,{server.host} port=1,{server.port} user={server.user} "
            f"password={server.password} dbname={server.dbname}"
        )
        assert recognise(f"{dsn} target_session_attrs=read-write").value("server_version")
