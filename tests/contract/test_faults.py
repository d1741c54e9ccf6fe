"""Every fault has its effect while clients write, and after its healing all of them write again."""

from __future__ import annotations

import contextlib
import itertools
import select
import time
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from psycopg import pq
from psycopg.conninfo import make_conninfo

from harness.audit.target_loading import reference_target
from harness.checks.record import NotExercisedError
from harness.checks.registry import lacking
from harness.checks.workspace import Workspace
from harness.database import Client, SqlError, connect, console, database_on_console
from harness.engine.owner import Owner
from harness.errors import ServiceFailedError
from harness.lab.lab import stand_up_for_faults
from harness.lab.links import LINK
from harness.lab.topologies import load_topologies, wanted_by
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.catalogue import catalogue
from harness.suites.resilience.faults import CONSOLE, FAULTS, FaultKind, Where, injection
from harness.waiting import NotYet, poll
from harness.wire.link import CUT, PASS
from tests.conftest import ENGINES, require_engine
from tests.contract.services import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.pq.abc import PGconn

    from harness.checks.context import CheckContext
    from harness.database import Endpoint
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab
    from harness.lab.links import ApplicationLink

pytestmark = [pytest.mark.engine, pytest.mark.long]

WRITERS = 4
_RECOVERS_S = 40.0
#: needs a file system whose size the engine limits
_DISK_FULL = "disk-full"
#: the server has received the name of the database
ASKED = pq.ConnStatus.AWAITING_RESPONSE


class Writers:
    """Clients that insert audited rows, each in a transaction, and connect again after an error."""

    def __init__(self, ctx: CheckContext, link: ApplicationLink) -> None:
        self._ctx, self._link = ctx, link
        self._stopped = Event()
        self._names = itertools.count()
        #: when each of them last succeeded
        self.succeeded = [0.0] * WRITERS
        self.last_error = ""
        self._threads = [Thread(target=self._write, args=(number,), daemon=True) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        client: Client | None = None
        while not self._stopped.is_set():
            try:
                if client is None:
                    client = connect(self._link.endpoint(self._ctx.database), connect_timeout_s=3)
                with client.transaction():
                    self._ctx.insert_post(client, f"{number}-{next(self._names)}")
                self.succeeded[number] = time.monotonic()
            except (SqlError, ServiceFailedError) as error:  # the latter when the lab closes
                self.last_error = str(error)
                if client:
                    client.close()
                client = None
            self._stopped.wait(0.02 if client else 0.05)  # a faster load would take most of the machine
        if client:
            client.close()

    def all_succeed(self) -> None:
        """Wait until every writer has succeeded again."""
        began = time.monotonic()

        def succeeded() -> None:
            if waiting := sum(at < began for at in self.succeeded):
                raise NotYet(f"{waiting} of {WRITERS}; last error: {self.last_error}")

        poll(succeeded, what="every writer to succeed", deadline_s=_RECOVERS_S)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(_RECOVERS_S)


@contextlib.contextmanager
def stage_in(lab: Lab) -> Iterator[tuple[CheckContext, Writers]]:
    """Yield the context of a check, with writers that connect through a link."""
    workspace = Workspace(lab, reference_target(), catalogue().fixtures)
    with workspace.context("resilience.contract") as ctx, lab.application_link() as link:
        writers = Writers(ctx, link)
        try:
            writers.all_succeed()
            yield ctx, writers
        finally:
            writers.stop()
    workspace.close()


def started(engine: Engine, topology: str, run: str) -> Lab:
    declared = load_topologies()[topology]
    engine.prepare(wanted_by(declared), lambda _: None)
    return stand_up_for_faults(engine, declared, Owner.me(run), Redactor(), linked=True)


@pytest.fixture(scope="module", params=ENGINES)
def stage(request: pytest.FixtureRequest) -> Iterator[tuple[CheckContext, Writers]]:
    """Start a topology with all places for faults. The tests share it, and each heals what it injects."""
    lab = started(require_engine(request.param), "transaction", new_run_id())
    try:
        with stage_in(lab) as made:
            yield made
    finally:
        lab.close()


def is_proved(fault: FaultKind) -> bool:
    """Return whether `prove` shows a fault on docker, and no engine injects it: links and consoles are the same."""
    return fault.main and (fault.where in {Where.SERVER_LINK, Where.APPLICATION_LINK} or CONSOLE in fault.needs)


def injects_and_heals(fault: FaultKind, ctx: CheckContext, writers: Writers) -> None:
    """Inject a fault and heal it, and wait until all writers succeed again."""
    assert lacking(fault.needs, ctx.topology) is None
    with injection(fault, ctx) as injected:
        if fault.id == _DISK_FULL and not ctx.lab.postgres.spare_folder:
            with pytest.raises(NotExercisedError, match="a shared one is not filled"):
                injected.inject()
        else:
            assert injected.inject()
        injected.heal()
        assert injected.heal() == ""
    writers.all_succeed()
    assert "left behind" not in ctx.facts
    assert all(service.state().detail == "running" for service in ctx.lab.required)
    assert ctx.lab.server_link is not None
    assert ctx.lab.server_link.counts().state == PASS


@pytest.mark.parametrize("fault", [*itertools.filterfalse(is_proved, FAULTS)], ids=lambda fault: fault.id)
def test_a_fault_has_its_effect_and_all_clients_succeed_after_its_healing(
    stage: tuple[CheckContext, Writers], fault: FaultKind
) -> None:
    injects_and_heals(fault, *stage)


@pytest.mark.parametrize("fault", [*filter(is_proved, FAULTS)], ids=lambda fault: fault.id)
@pytest.mark.parametrize("stage", ["native"], indirect=True)
def test_a_fault_of_a_link_or_console_that_is_proved_on_docker_has_its_effect_on_native_servers(
    stage: tuple[CheckContext, Writers], fault: FaultKind
) -> None:
    injects_and_heals(fault, *stage)


def inject_and_fail(kind: FaultKind, ctx: CheckContext) -> None:
    with injection(kind, ctx) as injected:
        injected.inject()
        raise KeyboardInterrupt


@pytest.mark.parametrize("fault", ["server-killed", "server-frozen", "server-link-cut", "pooler-paused"])
def test_a_block_that_ends_with_an_error_heals(stage: tuple[CheckContext, Writers], fault: str) -> None:
    ctx, writers = stage
    kind = next(kind for kind in FAULTS if kind.id == fault)
    with pytest.raises(KeyboardInterrupt):
        inject_and_fail(kind, ctx)
    writers.all_succeed()


def test_a_server_link_harms_the_connections_of_the_pooler_only(stage: tuple[CheckContext, Writers]) -> None:
    ctx, writers = stage
    assert ctx.lab.server_link is not None
    link = ctx.lab.server_link

    def refused() -> None:
        if not link.counts().refused:
            raise NotYet("no attempt of the pooler to connect")

    with ctx.lab.connect_admin() as direct:
        link.change(CUT)
        try:
            poll(refused, what="an attempt of the pooler to connect", deadline_s=20)
            assert direct.value("SELECT 1") == 1
        finally:
            link.change(PASS)
    writers.all_succeed()


@pytest.mark.parametrize("name", ENGINES)
def test_a_lab_ends_while_its_faults_last(name: str) -> None:
    """As after Ctrl-C: the lab closes while the check still runs."""
    engine, run = require_engine(name), new_run_id()
    lab = started(engine, "transaction", run)
    try:
        with stage_in(lab) as (ctx, writers):
            by_id = {fault.id: fault for fault in FAULTS}
            with injection(by_id["pooler-frozen"], ctx) as pooler, injection(by_id["server-frozen"], ctx) as server:
                pooler.inject()
                server.inject()
                lab.close()
                assert leftovers(name, run) == []
            writers.stop()
    finally:
        lab.close()


def test_without_the_program_of_the_link_the_lab_starts_and_says_why(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = any_engine
    prepare = engine.prepare

    def without_link(wanted: tuple[object, ...], listener: object) -> None:
        if LINK in wanted:
            raise ServiceFailedError("no Python here")
        prepare(wanted, listener)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "prepare", without_link)
    lab = started(engine, "transaction", owner.run_id)
    try:
        assert lab.server_link is None
        assert lab.no_server_link == "its program is not available: no Python here"
        with connect(lab.chain()) as client:
            assert client.value("SELECT 1") == 1
    finally:
        lab.close()


def half_logged_in(endpoint: Endpoint) -> PGconn:
    """Return a connection whose client has named its database, and has not sent its password yet."""
    conninfo = make_conninfo(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=endpoint.dbname,
    )
    connection = pq.PGconn.connect_start(conninfo.encode())
    while (connection.connect_poll(), connection.status) != (pq.PollingStatus.READING, ASKED):
        if connection.status == pq.ConnStatus.BAD:
            raise AssertionError(connection.get_error_message())
        select.select([], [connection.socket], [], 5)
    assert select.select([connection.socket], [], [], 5)[0], "no answer to the startup message"
    return connection


def test_a_database_that_the_pooler_lists_as_idle_is_found_on_its_console(
    stage: tuple[CheckContext, Writers],
) -> None:
    lab = stage[0].lab
    console_endpoint = lab.console()
    assert console_endpoint
    chain = lab.chain(f"named_{uuid4().hex}")
    connection = half_logged_in(chain)
    try:

        def idle() -> None:
            if any(row["name"] == chain.dbname for row in console(console_endpoint, "SHOW DATABASES")):
                raise NotYet("it is listed")

        poll(idle, what="the end of the list's entry", deadline_s=10)
        row = database_on_console(console_endpoint, chain)
        assert row
        assert row["name"] == chain.dbname
    finally:
        connection.finish()
