"""The catalogue of checks: which declarations it accepts, and how names select from it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness.audit.target_loading import reference_target
from harness.checks.collection import Fixtures, build_catalogue
from harness.checks.registry import P0, breaks, check
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


def check_of(identity: str = "capture.x") -> Any:
    def body(_ctx: CheckContext) -> None:
        """Do nothing."""

    body.__module__ = "a_suite"
    return check(identity, claim="it holds", section=Section.CAPTURE, severity=P0, area="x")(body)


def control_of(target: Any) -> Any:
    def body(_ctx: CheckContext) -> None:
        """Do nothing."""

    body.__module__ = "a_suite"
    return breaks(target, at="x")(body)


def test_every_check_has_a_control_and_the_audit_suites_have_fifteen_checks() -> None:
    found = catalogue()
    for declared in found.checks:
        assert found.controls_of(declared.id), declared.id
    for suite in ("capture", "actor"):
        assert len(found.select([suite])) >= 15


def test_every_applicable_check_has_an_applicable_control_in_every_topology() -> None:
    for topology in load_topologies().values():
        for declared in catalogue().checks:
            if declared.lacking(topology, REFERENCE) is None:
                controls = catalogue().controls_of(declared.id)
                assert any(control.lacking(topology) is None for control in controls), declared.id


def test_a_check_without_a_control_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"check capture\.x: missing control"):
        build_catalogue([module(x=check_of())], FIXTURES)


def test_a_duplicate_is_an_error() -> None:
    one, two = check_of(), check_of()
    with pytest.raises(ConfigError, match="duplicate check id"):
        build_catalogue([module(one=one, two=two, control=control_of(one))], FIXTURES)


def test_a_control_of_an_unknown_check_is_an_error() -> None:
    one = check_of()
    with pytest.raises(ConfigError, match=r"the unknown check capture\.y"):
        build_catalogue([module(one=one, a=control_of(one), b=control_of(check_of("capture.y")))], FIXTURES)


@pytest.mark.parametrize("identity", ["Insert", "capture", "capture.", "capture.X", "capture.a b", "a.b.c"])
def test_an_invalid_id_is_an_error(identity: str) -> None:
    with pytest.raises(ConfigError, match="invalid check id"):
        check_of(identity)


@pytest.mark.parametrize(("suites", "checks"), [(["captur"], []), ([], ["capture.inset"])])
def test_the_error_of_an_unknown_name_suggests_the_nearest(suites: list[str], checks: list[str]) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        catalogue().select(suites, checks)


def test_a_missing_capability_is_a_sentence() -> None:
    moved = next(declared for declared in catalogue().checks if declared.id == "actor.moved-connection")
    topologies = load_topologies()
    assert "keeps one server connection" in (moved.lacking(topologies["session"], REFERENCE) or "")
    assert moved.lacking(topologies["transaction"], REFERENCE) is None
