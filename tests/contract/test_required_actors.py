"""Trails that refuse a write without an actor, as their target file says or not, judged with and without a pooler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import mutants
from harness.audit.target_file import Recorded
from harness.audit.target_loading import load_target
from harness.checks.execution import run_check
from harness.checks.workspace import _TEMPLATE, Workspace
from harness.cli.planning import planned
from harness.database import drop_database
from harness.engine.owner import Owner
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.actor import sharing
from harness.suites.catalogue import catalogue
from harness.suites.undeclared import UNDECLARED, UNDECLARED_ROWS
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.protocol import Engine
    from harness.model import Result

pytestmark = pytest.mark.engine

#: a sound trail, which records a write without an actor with none
SOUND = Path(mutants.__file__).parent / "trails" / "sound" / "row-json"
CHECKS = {check.id: check for check in catalogue().checks}
#: the checks that write without an actor
WRITING = {check for check in CHECKS if CHECKS[check].records in (UNDECLARED, UNDECLARED_ROWS)}
ALSO_WRITING = {"capture.replica-role", "retention.old-gone"}
PROPERTY = Recorded.UNDECLARED.check

_BEGIN = "    IF declared IS NOT NULL THEN\n        BEGIN\n"
_AFTER_THE_TABLE = "CREATE INDEX ON rowlog.changes (recorded_at);\n"
_RAISE = "RAISE EXCEPTION 'no user set'; END IF;\n"
REFUSES = f"    IF declared IS NULL THEN {_RAISE}"
#: refuses inserts alone
REFUSES_INSERTS = f"    IF declared IS NULL AND TG_OP = 'INSERT' THEN {_RAISE}"
#: takes the empty string that an earlier transaction leaves for an actor
REFUSES_ON_FRESH_CONNECTIONS = f"    IF current_setting('rowlog.actor', true) IS NULL THEN {_RAISE}"
#: knows the last actor of its connection
REFUSES_UNTIL_DECLARED = f"""
    declared := coalesce(declared, nullif(current_setting('rowlog.last', true), ''));
    {REFUSES}
    PERFORM set_config('rowlog.last', declared, false);
"""
#: drops the write of a row, in place of an error
SKIPS = "    IF declared IS NULL THEN DELETE FROM public.posts WHERE slug = to_jsonb(NEW) ->> 'slug'; RETURN NULL; END IF;\n"
#: a constraint, in place of an exception
NOT_NULL = "ALTER TABLE rowlog.changes ALTER actor_type SET NOT NULL;\n"


def written(folder: Path, refuses: str, *, required: bool = True) -> Path:
    """Write the target file of a trail and its SQL, and return the file."""
    place = _AFTER_THE_TABLE if refuses is NOT_NULL else _BEGIN
    sql, toml = SOUND.with_suffix(".sql").read_text(), SOUND.with_suffix(".toml").read_text()
    assert sql.count(place) == 1
    (folder / "row-json.sql").write_text(sql.replace(place, refuses + place))
    (folder / "mine.toml").write_text(toml.replace("[actor]\n", f"[actor]\nrequired = {str(required).lower()}\n"))
    return folder / "mine.toml"


#: for what no pooler changes: the trial of the trail, on a direct connection, and which error refuses
through_a_pooler = pytest.mark.parametrize("lab", ["transaction"], indirect=True)


@pytest.fixture(scope="module", params=["direct", "transaction"])
def lab(some_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = stand_up(some_engine, load_topologies()[request.param], Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture
def judged(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Result]]:
    """Return a function that judges a trail by checks, and returns the results that are not OK."""
    monkeypatch.setattr(sharing, "_ROUNDS", 10)  # the last of ten rounds of each client declares no actor

    def judge(refuses: str, *checks: str, required: bool = True) -> dict[str, Result]:
        target = load_target(str(written(tmp_path, refuses, required=required)))
        workspace, topology = Workspace(lab, target, catalogue().fixtures), lab.topology
        try:
            results = {
                check: run_check(CHECKS[check], planned(topology.name, CHECKS[check], ""), topology, workspace)
                for check in checks
                if not CHECKS[check].lacking(topology, target)
            }
        finally:
            workspace.close()
            with lab.connect_admin() as admin:
                drop_database(admin, _TEMPLATE)
        return {check: result for check, result in results.items() if result.status is not Status.OK}

    return judge


def test_a_trail_that_requires_an_actor_has_no_issue(judged: Callable[..., dict[str, Result]], lab: Lab) -> None:
    checks = {PROPERTY, *WRITING, *ALSO_WRITING}
    if lab.topology.pooler:  # a check that writes without an actor, and does not say so, does it everywhere
        checks |= {check for check in CHECKS if check.partition(".")[0] in {"trail", "actor", "retention"}}
    found = judged(REFUSES, *sorted(checks))
    assert {check: result.reason for check, result in found.items()} == {}


@through_a_pooler
def test_a_constraint_refuses_as_well_as_an_exception(judged: Callable[..., dict[str, Result]]) -> None:
    found = judged(NOT_NULL, PROPERTY, *sorted(WRITING))
    assert {check: result.reason for check, result in found.items()} == {}


@through_a_pooler
def test_a_refusal_that_the_file_does_not_name_is_one_issue(judged: Callable[..., dict[str, Result]]) -> None:
    found = judged(REFUSES, PROPERTY, *sorted(WRITING | ALSO_WRITING), required=False)
    assert found.pop(PROPERTY).reason == (
        "a write without an actor: expected as `required` of `[actor]` says, observed the insert without an actor failed: "
        "P0001 no user set (PL/pgSQL function rowlog.record_change() line 20 at RAISE); by design? "
        "Then set `required = true` in `[actor]`"
    )
    assert {(result.status, result.reason) for result in found.values()} == {(Status.NA, Recorded.UNDECLARED.missing)}
    assert {*found} >= {"actor.unset", "actor.many-clients", "actor.writers"}


@through_a_pooler
@pytest.mark.parametrize(
    ("refuses", "sentence"),
    [
        ("", "the insert without an actor is recorded with the actor NULL"),
        (REFUSES_INSERTS, "the update without an actor is recorded with the actor NULL"),
        (SKIPS, "the insert without an actor is not refused"),
    ],
    ids=["never", "inserts", "silently"],
)
def test_a_trail_that_refuses_less_than_its_file_says_is_one_issue(
    judged: Callable[..., dict[str, Result]], refuses: str, sentence: str
) -> None:
    found = judged(refuses, PROPERTY, *sorted(WRITING | ALSO_WRITING))
    issue = found.pop(PROPERTY)
    assert issue.status is Status.ISSUE
    assert f"observed {sentence}, although `[actor]` has `required = true`" in issue.reason
    assert {result.status for result in found.values()} == {Status.NA}


def test_a_refusal_on_fresh_connections_alone_is_seen(judged: Callable[..., dict[str, Result]]) -> None:
    names = {"local-setting", "residue", "shared-connection", "after-error", "many-clients", "single-message"}
    expected = {f"actor.{name}" for name in names}
    found = judged(REFUSES_ON_FRESH_CONNECTIONS, PROPERTY, "actor.unset", *sorted(expected))
    assert {check: result.status for check, result in found.items()} == dict.fromkeys(expected, Status.ISSUE)


def test_the_last_actor_of_the_connection_is_seen(judged: Callable[..., dict[str, Result]]) -> None:
    expected = {"actor.local-setting", "actor.shared-connection", "actor.many-clients"}
    found = judged(REFUSES_UNTIL_DECLARED, PROPERTY, *sorted(expected))
    assert {check: result.status for check, result in found.items()} == dict.fromkeys(expected, Status.ISSUE)
    assert '{"id":"ada","type":"user"}' in found["actor.local-setting"].reason


def test_target_try_misses_nothing_of_a_trail_that_requires_an_actor(tmp_path: Path, any_engine: Engine) -> None:
    for required, code, line in (
        (True, 0, "everything that the file promises is there"),
        (False, 1, "missing: trail.undeclared: the insert without an actor failed: P0001 no user set"),
    ):
        target = written(tmp_path, REFUSES, required=required)
        done = harness_here(tmp_path, "target", "try", str(target), "--engine", any_engine.name)
        assert (done.returncode, line in done.stdout) == (code, True), done.stdout
