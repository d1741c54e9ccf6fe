"""Readiness maps: the shipped one names what exists, and areas of harness.toml replace those of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import config
from harness.cli.settings import read_settings
from harness.errors import ConfigError
from harness.host.readiness_file import ReadinessArea
from harness.job_engines.readiness_maps import areas_of, shipped_maps, with_map
from harness.job_engines.target_file import Case
from harness.places import PACKAGE
from harness.report.readiness import Stance, readiness
from harness.suites.catalogue import catalogue
from tests.unit.test_readiness import evidence, row

if TYPE_CHECKING:
    from pathlib import Path

TODAY = "2026-11-15"
#: the areas of the readiness document, in its order
AREAS = (
    "Workflow DSL and normalized specs",
    "Journal-backed starts and execution",
    "Postgres-compatible Ecto storage",
    "Dispatch claims and heartbeats",
    "Retries and terminal failures",
    "Manual pause and approval controls",
    "Cancellation",
    "Replay",
    "Cron activation",
    "Runtime-authored specs",
    "Child workflow starts",
    "Dynamic work",
    "Graph inspection and explanations",
    "Actor-scoped read views",
    "Bedrock-backed delivery example",
    "Soak/load evidence",
)
NOT_OFFERED = ("Runtime-authored specs", "Actor-scoped read views")


def area(name: str, **more: object) -> ReadinessArea:
    declared = {"area": name, "host_responsibility": "watch it in production", **more}
    return config.convert(declared, ReadinessArea, where="a test")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "harness.toml"


# --- the shipped map -------------------------------------------------------------------------------------


def test_the_shipped_map_has_the_sixteen_areas_of_the_document() -> None:
    assert tuple(area.area for area in shipped_maps()["dbos"]) == AREAS


@pytest.mark.parametrize("name", shipped_maps())
def test_every_check_of_a_shipped_map_exists(name: str) -> None:
    named = {check for area in shipped_maps()[name] for check in area.checks}
    known = {check.id for check in catalogue().checks}
    of_jobs = {check for check in named if check.startswith("jobs.")}
    assert named - of_jobs <= known
    assert of_jobs
    target = PACKAGE / "job_engines" / "targets" / f"{name}.toml"
    named_as_checks_are = {f"jobs.{name}-default-{case}" for case in Case}
    assert of_jobs <= (known if target.exists() else named_as_checks_are)


def test_what_no_engine_offers_is_not_shown_whatever_else_is_ok() -> None:
    areas = shipped_maps()["dbos"]
    topologies = ("direct", "session", "transaction")
    everything = {check for area in areas for check in area.checks}
    rows = [row(check, topology=topology) for check in sorted(everything) for topology in topologies]
    found = {shown.area: shown for shown in readiness(areas, evidence(rows))}
    for declared in areas:
        expected = Stance.NOT_SHOWN if declared.not_run else Stance.PROVEN
        assert found[declared.area].stance is expected, declared.area
        assert (f"Not run: {declared.not_run}" in found[declared.area].reasons) is bool(declared.not_run)
    for name in NOT_OFFERED:
        assert found[name].shown == "no rows"
        assert "no job engine here" in found[name].reasons[0]


def test_the_reason_of_not_run_is_shown_however_much_evidence_is_missing() -> None:
    for declared, shown in zip(shipped_maps()["dbos"], readiness(shipped_maps()["dbos"], evidence([])), strict=True):
        assert shown.stance is Stance.NOT_SHOWN
        assert not declared.not_run or shown.reasons[0] == f"Not run: {declared.not_run}"


# --- a map in harness.toml -------------------------------------------------------------------------------


def test_areas_of_the_project_replace_those_of_the_map(project: Path) -> None:
    project.write_text(
        'readiness_map = "dbos"\n'
        '[[readiness]]\narea = "Actor-scoped read views"\nchecks = ["command.views"]\n'
        'host_responsibility = "enforce the roles in every view"\n'
        '[[readiness]]\narea = "Invoices"\nchecks = ["actor"]\nhost_responsibility = "set the actor in every job"\n'
        '[[commands]]\nname = "views"\ntitle = "each role sees its own runs"\ncommand = ["mix", "test"]\n'
    )
    areas = read_settings(today=TODAY).readiness
    assert tuple(area.area for area in areas) == (*AREAS, "Invoices")
    views = next(area for area in areas if area.area == "Actor-scoped read views")
    assert views.checks == ("command.views",)
    assert not views.not_run
    assert readiness([views], evidence([row("command.views")]))[0].stance is Stance.PROVEN


def test_a_map_of_the_project_is_named_by_its_path(project: Path) -> None:
    project.write_text('readiness_map = "our-map.toml"\n')
    project.with_name("our-map.toml").write_text(
        '[[readiness]]\narea = "Imports"\nchecks = ["capture.insert"]\nhost_responsibility = "import twice a day"\n'
    )
    assert [area.area for area in read_settings(today=TODAY).readiness] == ["Imports"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('readiness_map = "dbo"\n', "unknown map 'dbo'"),
        ('readiness_map = "missing.toml"\n', "no such file"),
        ('readiness_map = "our-map.toml"\n', "unknown check or suite 'capture.inserts'"),
        ('[[readiness]]\narea = "A"\nhost_responsibility = "watch it often"\n', "found neither checks nor not_run"),
        (
            '[[readiness]]\narea = "A"\nchecks = []\nhost_responsibility = "watch it often"\n',
            "found neither checks nor not_run",
        ),
        (
            '[[readiness]]\narea = "A"\nnot_run = "  "\nhost_responsibility = "watch it often"\n',
            "found neither checks nor not_run",
        ),
        (
            2 * '[[readiness]]\narea = "A"\nchecks = ["actor"]\nhost_responsibility = "watch it often"\n',
            "declared twice",
        ),
    ],
)
def test_a_mistake_is_an_error_with_its_place(text: str, message: str, project: Path) -> None:
    project.write_text(text)
    project.with_name("our-map.toml").write_text(
        '[[readiness]]\narea = "Imports"\nchecks = ["capture.inserts"]\nhost_responsibility = "import twice a day"\n'
    )
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(today=TODAY)
    assert caught.value.where or caught.value.hint


@given(st.lists(st.sampled_from((*AREAS, "Invoices", "Imports")), unique=True))
def test_no_area_is_lost_and_none_is_there_twice(names: list[str]) -> None:
    declared = [area(name, checks=["actor"]) for name in names]
    merged = with_map(areas_of("dbos"), declared)
    shown = [area.area for area in merged]
    assert len(shown) == len(set(shown))
    assert set(shown) == {*AREAS, *names}
    assert {area.area for area in merged if area.checks == ("actor",)} == set(names)
