"""Topologies start, or give the reason why not, and leave no services behind."""

from __future__ import annotations

import re
import shutil
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import jinja2
import pytest
from msgspec.structs import replace

from harness.database import SqlError, connect, console, create_database, drop_database, leave_database
from harness.engine import docker_group, native_group
from harness.engine.docker_engine import DockerEngine
from harness.engine.native_folders import runs_on_disk
from harness.engine.owner import Owner
from harness.engine.recipes import load_product
from harness.errors import ConfigError, ServiceFailedError
from harness.lab import lab as lab_module
from harness.lab import readiness, services, templates
from harness.lab.effective import as_it_runs
from harness.lab.lab import stand_up
from harness.lab.topologies import chain_of, load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.waiting import NotYet, poll
from tests.conftest import ENGINES, require_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine, Service
    from harness.engine.recipes import Recipe
    from harness.lab.lab import Lab
    from harness.model import Topology, TopologyEvidence

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=ENGINES)
def pooled(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Start a topology with a pooler. The tests share it."""
    engine = require_engine(request.param)
    lab = stand_up(engine, load_topologies()["transaction"], Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


def test_a_topology_answers_through_its_whole_chain(pooled: Lab) -> None:
    assert_whole_chain(pooled)


def test_a_topology_without_a_pooler_answers(engine: Engine, owner: Owner) -> None:
    lab = stand_up(engine, load_topologies()["direct"], owner, Redactor())
    try:
        assert_whole_chain(lab)
    finally:
        lab.close()
    lab.close()


def assert_whole_chain(lab: Lab) -> None:
    with connect(lab.chain()) as client:
        # behind a pooler, the pid that the login announces is not the server process's
        announced = client.info.backend_pid
        assert (announced == client.server_pid()) is (lab.topology.pooler is None)
        assert client.value("SELECT current_user") == "harness_app"
        assert (
            client.value(
                "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            )
            is False
        )
    assert lab.evidence.stood
    assert lab.evidence.service("postgres").settings["password_encryption"] == "scram-sha-256"
    if lab.topology.pooler:
        assert lab.evidence.service("pooler").settings["pool_mode"] == lab.topology.pooler.pool_mode
        assert lab.evidence.service("pooler").settings["auth_type"] == "scram-sha-256"
        with pytest.raises(SqlError):
            connect(replace(lab.chain(), password="wrong"))


def test_a_login_that_the_pooler_refuses_is_an_error_with_its_log(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = services._render

    def without_app(name: str, **facts: object) -> str:
        text = render(name, **facts)
        if name == "pgbouncer/userlist.txt":
            return text.replace('"harness_app"', '"somebody_else"')
        return re.sub(r"^auth_(user|query|dbname) = .*\n", "", text, flags=re.MULTILINE)

    monkeypatch.setattr(services, "_render", without_app)
    with pytest.raises(ServiceFailedError) as caught:
        stand_up(any_engine, load_topologies()["transaction"], owner, Redactor())
    assert "the login was refused" in caught.value.what
    assert "service pooler" in caught.value.where
    assert "harness_app" in caught.value.detail
    nothing_is_left(any_engine, owner)


def test_a_service_that_ends_while_starting_is_an_error_with_its_log(engine: Engine, owner: Owner) -> None:
    topology = load_topologies()["direct"]
    broken = replace(topology, postgres=replace(topology.postgres, settings={"no_such_setting": "1"}))
    with pytest.raises(ServiceFailedError) as caught:
        stand_up(engine, broken, owner, Redactor())
    assert "ended while starting" in caught.value.what
    assert "no_such_setting" in caught.value.detail
    nothing_is_left(engine, owner)


def test_a_mistake_in_a_template_is_an_error_with_its_line(
    any_engine: Engine, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for product in ("postgres", "pgbouncer"):
        shutil.copytree(services._FOLDER / product, tmp_path / product)
    (tmp_path / "pgbouncer" / "pgbouncer.ini.j2").write_text("[pgbouncer]\n{% if %}\n")
    monkeypatch.setattr(services, "_FOLDER", tmp_path)
    monkeypatch.setattr(templates._TEMPLATES, "loader", jinja2.FileSystemLoader(tmp_path))
    with pytest.raises(ConfigError, match=r"pgbouncer\.ini\.j2:2: invalid template"):
        stand_up(any_engine, load_topologies()["transaction"], owner, Redactor())
    nothing_is_left(any_engine, owner)


def test_a_service_that_never_answers_ends_at_the_deadline(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_READY_DEADLINE_S", 0.5)
    spec = services.postgres_spec
    monkeypatch.setattr(
        lab_module,
        "postgres_spec",
        lambda *facts: replace(spec(*facts), script="echo 'not a server' >&2; exec sleep 60"),
    )
    with pytest.raises(ServiceFailedError) as caught:
        stand_up(any_engine, load_topologies()["direct"], owner, Redactor())
    assert "timed out after 0.5 s" in caught.value.what
    assert "not a server" in caught.value.detail
    nothing_is_left(any_engine, owner)


def test_a_lab_that_is_up_when_the_run_ends_is_removed(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run has closed its other labs by then, and would go on with this one."""
    cancelled = Event()

    def last_step(topology: Topology, evidence: TopologyEvidence) -> Topology:
        cancelled.set()
        return as_it_runs(topology, evidence)

    monkeypatch.setattr(lab_module, "as_it_runs", last_step)
    with pytest.raises(ServiceFailedError, match="the run is ending"):
        stand_up(any_engine, load_topologies()["direct"], owner, Redactor(), cancelled)
    nothing_is_left(any_engine, owner)


def test_a_port_that_is_in_use_is_replaced(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    engine = require_engine("native")
    free = native_group.free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(native_group, "free_port", lambda: next(ports, None) or free())
        lab = stand_up(engine, load_topologies()["direct"], owner, Redactor())
        lab.close()
    nothing_is_left(engine, owner)


@pytest.mark.parametrize("port", [5432, 6543])
def test_a_pooler_with_the_port_of_another_service_gets_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """It may be fixed in its image. All of them share one network."""

    def product(name: str) -> Recipe:
        found = load_product(name)
        return replace(found, port=port) if name == "pgbouncer" else found

    for module in (docker_group, lab_module):
        monkeypatch.setattr(module, "load_product", product)
    engine = require_engine("docker")
    lab = stand_up(engine, load_topologies()["transaction"], owner, Redactor(), linked=True)
    try:
        assert lab.outermost.endpoint().port == port
        assert len({service.endpoint().port for service in lab.required}) == 3
        poolers_own = lab.console()
        assert poolers_own
        assert console(poolers_own, "SHOW VERSION")
    finally:
        lab.close()
    nothing_is_left(engine, owner)


def test_a_chain_needs_no_network_until_a_service_is_added_that_finds_it_by_name(owner: Owner) -> None:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    chosen = {"label": f"pooler-harness.run={owner.run_id}"}
    topology = load_topologies()["transaction"]
    assert topology.pooler
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        assert engine._api.networks(filters=chosen) == []
        declared, product = topology.pooler, chain_of(topology)["pooler"]
        second = lab.start_service(
            "second", product, lambda place: services.pooler_spec(place, declared, lab.roles, lab.outermost.inside)
        )
        assert len(engine._api.networks(filters=chosen)) == 1
        lab.outermost.restart()  # a restarted pooler keeps the network that it shares

        def answered(service: Service) -> None:
            app, at = lab.roles.app, service.inside
            code, output = lab.postgres.run(
                ["psql", "--no-psqlrc", "--command", "SELECT 1"],
                {"PGHOST": at.host, "PGPORT": str(at.port), "PGUSER": app.name, "PGPASSWORD": app.password}
                | {"PGDATABASE": "postgres"},
            )
            if code:
                raise NotYet(output)

        for service in (*lab.services, second):
            poll(partial(answered, service), what=f"an answer of {service.name}", deadline_s=20)
    finally:
        lab.close()
    nothing_is_left(engine, owner)


def test_a_database_that_is_left_has_no_sessions_and_one_that_is_gone_has_no_size(pooled: Lab) -> None:
    with pooled.connect_admin() as admin:
        create_database(admin, "left", owner=pooled.roles.owner.name)
        client = connect(pooled.owner("left"))
        assert leave_database(admin, "left") > 1_000_000
        with pytest.raises(SqlError):
            client.value("SELECT 1")
        client.close()
        drop_database(admin, "left")
        assert leave_database(admin, "left") == 0


def test_the_pooler_forwards_scram_keys_and_has_only_the_password_of_its_own_login(pooled: Lab) -> None:
    endpoint = pooled.console()
    assert endpoint
    users = console(endpoint, "SHOW USERS")
    assert "harness_app" in {row["name"] for row in users}
    text = services._render("pgbouncer/userlist.txt", roles=pooled.roles)
    assert [role.name for role in pooled.roles.all() if role.password in text] == ["harness_lookup"]


def nothing_is_left(engine: Engine, owner: Owner) -> None:
    if isinstance(engine, DockerEngine):
        chosen = {"label": f"pooler-harness.run={owner.run_id}"}
        assert engine._api.containers(all=True, filters=chosen) == []
        assert engine._api.networks(filters=chosen) == []
    else:
        folder: Path = runs_on_disk() / owner.run_id
        assert not folder.exists()
