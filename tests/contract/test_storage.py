"""Failures of the harness's own servers, such as full memory, are never an Issue of the subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.audit.target_loading import reference_target
from harness.checks.execution import run_check
from harness.checks.registry import P0, check
from harness.checks.workspace import Workspace
from harness.database import SqlError
from harness.engine import storage
from harness.engine.docker_engine import DockerEngine
from harness.engine.storage import StoragePolicy
from harness.events import silent
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.model import Section, Status
from harness.redaction import Redactor
from harness.suites.catalogue import catalogue
from harness.waiting import NotYet, poll
from tests.conftest import require_engine
from tests.unit.made_up import planned

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine
_MIB = 256


@check("capture.insert", claim="a write succeeds", section=Section.CAPTURE, severity=P0, area="x")
def too_much(ctx: CheckContext) -> None:
    write = "CREATE TABLE big AS SELECT repeat(md5(n::text), 60) AS text FROM generate_series(1, 400000) AS n"
    ctx.expect("the write", ctx.attempt(lambda: ctx.owner.run(write)), equals="done")


@check("capture.delete", claim="a write succeeds", section=Section.CAPTURE, severity=P0, area="x")
def too_much_unhandled(ctx: CheckContext) -> None:
    ctx.owner.run("CREATE TABLE big AS SELECT repeat(md5(n::text), 60) AS text FROM generate_series(1, 400000) AS n")


@check("capture.update", claim="the table has no rows", section=Section.CAPTURE, severity=P0, area="x")
def little(ctx: CheckContext) -> None:
    ctx.expect("rows", ctx.owner.value("SELECT count(*) FROM public.posts"), equals=0)


@check("capture.update", claim="the server answers", section=Section.CAPTURE, severity=P0, area="x")
def killed_server(ctx: CheckContext) -> None:
    ctx.lab.postgres.kill()
    ctx.expect("an answer", ctx.attempt(lambda: ctx.owner.value("SELECT 1")), equals="done")


def wait_until_it_answers(lab: Lab) -> None:
    def probe() -> None:
        try:
            lab.connect_admin().close()
        except SqlError as error:
            raise NotYet(str(error)) from None

    poll(probe, what="the server to recover", deadline_s=60)


def test_checks_that_fill_the_memory_are_not_run_and_the_others_are(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine("docker")
    monkeypatch.setattr(storage, "LAB_MIB", _MIB)
    monkeypatch.setattr(storage, "ROOMY_MIB", _MIB)
    topology = load_topologies()["direct"]
    engine = DockerEngine(storage=StoragePolicy.MEMORY)
    engine.prepare(wanted_by(topology), silent)
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        assert lab.evidence.storage == f"in memory, {_MIB} MiB at most"
        workspace = Workspace(lab, reference_target(), catalogue().fixtures)
        found = {}
        for declared in (too_much, too_much_unhandled, little):
            found[declared.id] = run_check(declared, planned("direct", declared.id), topology, workspace)
            wait_until_it_answers(lab)  # a server that cannot write its log recovers
        workspace.close()
    finally:
        lab.close()
        engine.close()
    for full in ("capture.insert", "capture.delete"):
        assert found[full].status is Status.NOT_RUN, found[full]
        assert "the file system of the server's data was full" in found[full].reason
    assert found["capture.update"].status is Status.OK


def test_a_server_that_ended_is_never_an_issue(any_engine: Engine, owner: Owner) -> None:
    topology = load_topologies()["direct"]
    any_engine.prepare(wanted_by(topology), silent)
    lab = stand_up(any_engine, topology, owner, Redactor())
    try:
        workspace = Workspace(lab, reference_target(), catalogue().fixtures)
        for declared in (killed_server, little):  # the server has already ended before the second check
            result = run_check(declared, planned("direct", declared.id), topology, workspace)
            assert result.status is Status.NOT_RUN, result
            assert "the service postgres is not running" in result.reason
        workspace.close()
    finally:
        lab.close()
