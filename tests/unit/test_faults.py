"""The table of faults, and healing: every step runs, once, and in reverse order."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.checks.record import NotExercisedError
from harness.checks.registry import lacking
from harness.errors import ServiceFailedError, TimedOutError
from harness.lab.topologies import load_topologies
from harness.suites.resilience.faults import FAULTS, FaultKind, Where, injection
from harness.suites.resilience.injection import Injection

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

PGBOUNCERS = ("session", "transaction")


class FakeContext:
    """A context whose lab only knows whether it is closed."""

    def __init__(self) -> None:
        self.lab = SimpleNamespace(is_closed=False, topology=SimpleNamespace(name="direct"))
        self.left: list[str] = []

    def left_behind(self, what: str) -> None:
        self.left.append(what)


def kind_of(act: Any) -> FaultKind:
    return FaultKind(id="made-up", title="made up", what="does nothing", where=Where.SERVER, act=act)


def step(done: list[str], name: str, error: Exception | None = None) -> Any:
    def undo() -> str:
        done.append(name)
        if error:
            raise error
        return f"{name} undone"

    return undo


@pytest.fixture
def ctx() -> FakeContext:
    return FakeContext()


def as_context(ctx: FakeContext) -> CheckContext:
    return cast("CheckContext", ctx)


def test_the_table_is_complete_and_its_words_fit_into_sentences() -> None:
    ids = [fault.id for fault in FAULTS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", identity) for identity in ids)
    assert sum(fault.main for fault in FAULTS) == 12
    assert {fault.where for fault in FAULTS} == set(Where)
    for fault in FAULTS:
        assert re.fullmatch(r"[a-z].*[^.]", fault.what), fault.what
        assert not fault.title.endswith("."), fault.title


@pytest.mark.parametrize("name", PGBOUNCERS)
def test_every_fault_applies_behind_one_pgbouncer(name: str) -> None:
    assert {fault.id for fault in FAULTS if lacking(fault.needs, load_topologies()[name])} == set()


def test_a_fault_of_what_a_topology_lacks_is_not_applicable_there() -> None:
    topologies = load_topologies()
    direct = {fault.where for fault in FAULTS if lacking(fault.needs, topologies["direct"])}
    assert direct == {Where.POOLER, Where.SERVER_LINK}
    console = {"pooler-paused", "pooler-reloaded", "pooler-reconnected", "database-killed", "database-disabled"}
    for name in ("pgagroal", "pgpool", "peered"):
        missing = {fault.id: lacking(fault.needs, topologies[name]) for fault in FAULTS}
        assert {identity for identity, reason in missing.items() if reason} == console
        assert "no single PgBouncer process" in str(missing["pooler-paused"])
    statement = {fault.id for fault in FAULTS if lacking(fault.needs, topologies["statement"])}
    assert statement == {"commit-lost", "commit-answer-lost"}


def test_healing_runs_every_step_once_and_in_reverse_order(ctx: FakeContext) -> None:
    done: list[str] = []

    def act(injected: Injection) -> str:
        for name in ("first", "second"):
            injected.on_heal(step(done, name))
        return "harmed"

    with injection(kind_of(act), as_context(ctx)) as injected:
        assert injected.inject() == "harmed"
        assert injected.heal() == "second undone; first undone"
        assert injected.heal() == ""
    assert done == ["second", "first"]


def test_a_block_that_ends_early_heals_what_was_harmed_until_then(ctx: FakeContext) -> None:
    done: list[str] = []

    def act(injected: Injection) -> str:
        injected.on_heal(step(done, "first"))
        raise TimedOutError("nothing was seen")

    with (
        pytest.raises(NotExercisedError, match="the fault could not be injected: nothing was seen"),
        injection(kind_of(act), as_context(ctx)) as injected,
    ):
        injected.inject()
    assert done == ["first"]
    assert ctx.left == []


def test_a_step_that_fails_does_not_keep_the_others_from_running(ctx: FakeContext) -> None:
    done: list[str] = []

    def act(injected: Injection) -> str:
        injected.on_heal(step(done, "first"))
        injected.on_heal(step(done, "second", TimedOutError("no answer")))
        return "harmed"

    injected = Injection(as_context(ctx), act)
    injected.inject()
    with pytest.raises(ServiceFailedError, match="could not be healed: no answer"):
        injected.heal()
    assert done == ["second", "first"]
    with injection(kind_of(act), as_context(ctx)) as injected:
        injected.inject()
    assert ctx.left == ["the fault could not be healed: no answer"]


def test_a_closed_lab_is_not_healed(ctx: FakeContext) -> None:
    done: list[str] = []

    def act(injected: Injection) -> str:
        injected.on_heal(step(done, "first"))
        return "harmed"

    with injection(kind_of(act), as_context(ctx)) as injected:
        injected.inject()
        ctx.lab.is_closed = True
    assert done == []
