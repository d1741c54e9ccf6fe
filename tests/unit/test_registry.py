from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness.audit.target_loading import reference_target
from harness.checks.registry import P0, Fixtures, breaks, build_catalogue, check
from harness.errors import ConfigError, UsageError
from harness.lab.topologies import load_topologies
from harness.model import Section
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

REFERENCE = reference_target()
FIXTURES = Fixtures(sql=Path("x.sql"), attached=())


def module(**members: Any) -> ModuleType:
    made = ModuleType("a_suite")
    for name, value in members.items():
        setattr(made, name, value)
    return made


def made_check(identity: str = "capture.x") -> Any:
    def body(_bench: CheckContext) -> None:
        """Do nothing."""

    body.__module__ = "a_suite"
    return check(identity, claim="it holds", section=Section.CAPTURE, severity=P0, area="x")(body)


def made_control(target: Any) -> Any:
    def body(_bench: CheckContext) -> None:
        """Do nothing."""

    body.__module__ = "a_suite"
    return breaks(target, at="x")(body)


def test_every_check_has_a_control_and_every_suite_fifteen_checks() -> None:
    found = catalogue()
    for each in found.checks:
        assert found.controls_of(each.id), each.id
    for suite in ("capture", "actor"):
        assert len(found.select([suite])) >= 15


def test_every_check_that_applies_can_be_broken_in_every_topology() -> None:
    for topology in load_topologies().values():
        for each in catalogue().checks:
            if each.lacking(topology, REFERENCE) is None:
                assert any(control.lacking(topology) is None for control in catalogue().controls_of(each.id)), each.id


def test_a_check_without_a_control_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"check capture\.x: missing control"):
        build_catalogue([module(x=made_check())], FIXTURES)


def test_a_duplicate_is_refused() -> None:
    one, two = made_check(), made_check()
    with pytest.raises(ConfigError, match="duplicate check id"):
        build_catalogue([module(one=one, two=two, control=made_control(one))], FIXTURES)


def test_a_control_of_nothing_is_refused() -> None:
    one = made_check()
    with pytest.raises(ConfigError, match=r"the unknown check capture\.y"):
        build_catalogue([module(one=one, a=made_control(one), b=made_control(made_check("capture.y")))], FIXTURES)


@pytest.mark.parametrize("identity", ["Insert", "capture", "capture.", "capture.X", "capture.a b", "a.b.c"])
def test_an_id_has_one_form(identity: str) -> None:
    with pytest.raises(ConfigError, match="invalid check id"):
        made_check(identity)


@pytest.mark.parametrize(("suites", "checks"), [(["captur"], []), ([], ["capture.inset"])])
def test_an_unknown_name_is_answered_with_the_nearest(suites: list[str], checks: list[str]) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        catalogue().select(suites, checks)


def test_a_topology_that_lacks_something_says_so_by_rule() -> None:
    moved = next(each for each in catalogue().checks if each.id == "actor.moved-connection")
    topologies = load_topologies()
    assert "keeps one server connection" in (moved.lacking(topologies["session"], REFERENCE) or "")
    assert moved.lacking(topologies["transaction"], REFERENCE) is None
