"""Real chains are recognised for what they are, in time, and nothing stays behind on their servers."""

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
from harness.recognition.chain import Chain
from harness.recognition.contradictions import contradictions
from harness.recognition.direct_probe import reach
from harness.recognition.findings import FACTS, PARAMETERS, Recognition
from harness.recognition.parameters import STATEMENT
from harness.recognition.pool_probe import Pressure
from harness.recognition.recognise import recognise
from harness.redaction import Redactor
from harness.waiting import NotYet, poll
from harness.wire import Deadline, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.model import Topology

pytestmark = pytest.mark.engine

#: a look that says unknown, because this machine was busy, is followed by another
LOOKS = 3
OUR_NAME = PARAMETERS["application_name"][0]


@contextlib.contextmanager
def standing(engine: Engine, owner: Owner, topology: Topology) -> Iterator[Lab]:
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


def app_backends(lab: Lab) -> list[tuple[object, ...]]:
    with lab.connect_admin() as admin:
        return admin.rows(
            "SELECT state, application_name, backend_xid, backend_xmin FROM pg_stat_activity WHERE usename = %s",
            [lab.roles.app.name],
        )


def locks(lab: Lab) -> int:
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


def nothing_is_left(lab: Lab) -> None:
    """Look from the other side, and into every server connection that the pooler keeps."""

    def settled() -> None:
        found = app_backends(lab)
        if not lab.poolers and found:
            raise NotYet(f"sessions on the server: {found}")
        # old PgBouncers leave a client's name on the server connection: the lab's own is there, and ours must not be
        if any(each[0] != "idle" or each[1] == OUR_NAME or each[2] or each[3] for each in found):
            raise NotYet(f"not idle, or with our name: {found}")
        if locks(lab):
            raise NotYet("locks")

    poll(settled, what="nothing of the application on the server", deadline_s=5)
    pooler = lab.topology.pooler
    if pooler is None:
        return
    deadline, redactor = Deadline(10), Redactor()
    with Chain(reach(lab.direct(), deadline, redactor, "direct"), deadline, 1) as direct:
        usual = settings_of(direct.open())
    with Chain(reach(lab.chain(), deadline, redactor, "chain"), deadline, 99) as chain:
        pressure = Pressure(chain, {})
        if pooler.pool_mode is PoolMode.STATEMENT:
            pressure.no_blocks = "known"
        pids = {pressure.add_holder() for _ in range(pooler.default_pool_size)}
        assert len(pids) == pooler.default_pool_size
        assert None not in pids
        if pooler.pool_mode is not PoolMode.STATEMENT:
            for wire in pressure.holders:
                assert wire.query("SELECT name, statement FROM pg_prepared_statements") == []
                assert wire.query("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [("0",)]
                assert settings_of(wire) == usual
        pressure.release()


def recognised(lab: Lab, *, also: bool = False, needed: Sequence[str] = ("pool_mode",)) -> Recognition:
    """Look, and look again while something that is needed could not be forced."""
    for _ in range(LOOKS):
        found = recognise(
            lab.chain(), direct=conninfo(lab.direct()) if also else None, console=lab.console() if also else None
        )
        assert {each.fact for each in found.findings} <= set(FACTS)
        assert all(each.how for each in found.findings)
        for each in lab.roles.secrets():
            assert each not in repr(found)
        unknown = [found.finding(each) or each for each in needed if not found.value(each)]
        if not unknown:
            return found
    pytest.fail(f"{LOOKS} looks did not find {unknown}")


@pytest.mark.parametrize("name", ["direct", "session", "transaction"])
def test_a_chain_is_recognised_and_nothing_stays_behind(engine: Engine, owner: Owner, name: str) -> None:
    with standing(engine, owner, load_topologies()[name]) as lab:
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
        nothing_is_left(lab)
        helped = recognised(lab, also=True)
        assert contradictions(helped, {**declared, "direct": "yes", "same_server": "yes"}) == ()
        assert helped.is_certain("same_server")
        assert helped.value("direct_authentication") == "scram-sha-256"
        if pooler:
            assert helped.is_certain("pool_mode")
            assert helped.value("version") == lab.evidence.service("pooler").version
        nothing_is_left(lab)


def test_prepared_statements_are_found_tracked_or_not(any_engine: Engine, owner: Owner) -> None:
    from harness.lab.services import knows_prepared_statements

    for most in (0, 50):
        with standing(any_engine, owner, with_pooler("transaction", max_prepared_statements=most)) as lab:
            tracks = bool(most) and knows_prepared_statements(lab.evidence.service("pooler").version)
            found = recognised(lab)
            assert found.value("prepared_statements") == ("tracked" if tracks else "untracked")
            assert found.is_certain("prepared_statements")
            nothing_is_left(lab)


def test_statement_mode_is_recognised_by_its_refusal_of_blocks(any_engine: Engine, owner: Owner) -> None:
    topology = with_pooler("transaction", pool_mode=PoolMode.STATEMENT)
    with standing(any_engine, owner, topology) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == "statement"
        assert found.is_certain("pool_mode")
        assert found.value("pool_size") == "4"
        assert found.value("parameter.TimeZone") == "kept"
        assert found.value("prepared_statements") in {"tracked", "untracked"}
        nothing_is_left(lab)


@pytest.mark.parametrize("mode", [PoolMode.SESSION, PoolMode.TRANSACTION])
def test_a_pool_of_one_is_not_guessed_about(any_engine: Engine, owner: Owner, mode: PoolMode) -> None:
    with standing(any_engine, owner, with_pooler("transaction", pool_mode=mode, default_pool_size=1)) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == mode
        assert found.value("pool_size") in {"1", "at least 1"}
        # nothing could be moved
        assert found.value("parameter.TimeZone") in {"", "honoured"}
        nothing_is_left(lab)


def test_a_pool_that_others_hold_ends_at_the_deadline_with_what_was_seen(any_engine: Engine, owner: Owner) -> None:
    topology = with_pooler("transaction", default_pool_size=2)
    with standing(any_engine, owner, topology) as lab:
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


def test_a_console_of_another_pooler_counts_for_nothing(any_engine: Engine, owner: Owner) -> None:
    topologies = load_topologies()
    with (
        standing(any_engine, owner, topologies["session"]) as lab,
        standing(any_engine, owner, topologies["transaction"]) as other,
    ):
        found = recognise(lab.chain(), console=other.console())
        assert found.value("pool_mode") in {"session", ""}
        assert found.value("max_client_conn") == ""
        finding = found.finding("max_client_conn")
        assert finding
        assert "it is another's" in finding.how


def test_a_limit_of_clients_is_told_and_not_taken_for_the_pool(any_engine: Engine, owner: Owner) -> None:
    with standing(any_engine, owner, with_pooler("session", max_client_conn=5)) as lab:
        found = recognised(lab)
        assert found.value("pool_mode") == "session"
        assert found.value("pool_size").startswith("at least ")
        finding = found.finding("pool_size")
        assert finding
        assert "refused" in finding.how


def test_an_interruption_while_everything_is_held_leaves_nothing(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Pressure) -> None:
        raise InterruptedRunError("interrupted by SIGINT")

    with standing(any_engine, owner, load_topologies()["transaction"]) as lab:
        with monkeypatch.context() as patched:
            patched.setattr(Pressure, "in_pool", interrupt)
            with pytest.raises(InterruptedRunError):
                recognise(lab.chain())
        nothing_is_left(lab)


def test_libpq_chooses_among_several_hosts(any_engine: Engine, owner: Owner) -> None:
    with standing(any_engine, owner, load_topologies()["direct"]) as lab:
        at = lab.direct()
        dsn = f"host=127.0.0.1,{at.host} port=1,{at.port} user={at.user} password={at.password} dbname={at.dbname}"
        assert recognise(f"{dsn} target_session_attrs=read-write").value("server_version")
