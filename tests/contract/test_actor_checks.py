"""Verdicts of the suite `actor` on trails of other designs, sound ones and faulty ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine
    from harness.model import Result

pytestmark = pytest.mark.engine

DIRECT = load_topologies()["direct"]
CHECKS = {check.id: check for check in catalogue().checks}

#: a log of changes, which has the actor in a column; {who} is its default
_SQL = """
CREATE SCHEMA trail;
CREATE TABLE trail.started (tx text PRIMARY KEY DEFAULT pg_current_xact_id()::text, who uuid NOT NULL);
CREATE FUNCTION trail.begin(who uuid) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS 'INSERT INTO trail.started (who) VALUES ($1)';
CREATE FUNCTION trail.declared() RETURNS uuid LANGUAGE sql STABLE
    AS 'SELECT who FROM trail.started WHERE tx = pg_current_xact_id()::text';
CREATE FUNCTION trail.unforgeable() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('app.who', true), '')
    WHERE NOT EXISTS (SELECT FROM pg_db_role_setting WHERE 'app.who=' || current_setting('app.who', true) = ANY (setconfig)) $$;
CREATE TABLE trail.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tx text DEFAULT pg_current_xact_id()::text,
    who text DEFAULT {who}, s text, t text, op text, before json, after json
);
CREATE FUNCTION trail.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO trail.log (s, t, op, before, after) VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN to_json(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_json(NEW) END);
    RETURN NULL;
END $$;
GRANT USAGE ON SCHEMA trail TO harness_app;
"""
_SETTING = "nullif(current_setting('app.who', true), '')"
_TARGET = '''
summary = "mine"
install = ["mine.sql"]
tables = ["trail.log"]
{keys}
[actor]
{actor}
[statements]
attach = """
CREATE OR REPLACE TRIGGER capture AFTER {events} ON {{table}} FOR EACH ROW EXECUTE FUNCTION trail.capture()"""
changes = """
SELECT id, tx AS transaction_id, s AS table_schema, t AS table_name,
       json_build_object('id', coalesce(after, before) -> 'id') AS table_pk, lower(op) AS op, {image} AS data_after,
       CASE WHEN who IS NOT NULL THEN json_build_object('type', 'user', 'id', who) END AS actor
FROM trail.log ORDER BY id"""
'''
_BY_SETTING = 'setting = "app.who"\nvalue = "id"'
_BY_FUNCTION = 'declare = "SELECT trail.begin({id})"\nids = "uuid"'
_JUDGED = ("ids", "writers", "many-clients", "single-message", "vanished-client", "careless-after-first-write", "unset")


@pytest.fixture(scope="module")
def server(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, DIRECT, Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture
def judged(server: Lab, tmp_path: Path) -> Callable[..., dict[str, Result]]:
    """Return a function that judges a trail by checks of the suite."""

    def judge(
        *names: str,
        actor: str = _BY_SETTING,
        who: str = _SETTING,
        events: str = "INSERT OR UPDATE OR DELETE",
        image: str = "after",
        keys: str = "",
    ) -> dict[str, Result]:
        (tmp_path / "mine.sql").write_text(_SQL.replace("{who}", who))
        (tmp_path / "mine.toml").write_text(_TARGET.format(actor=actor, events=events, image=image, keys=keys))
        checks = [CHECKS[f"actor.{name}"] for name in names]
        workspace = Workspace(server, load_target(str(tmp_path / "mine.toml")), catalogue().fixtures)
        try:
            return {check.id[6:]: run_check(check, planned("direct", check, ""), DIRECT, workspace) for check in checks}
        finally:
            workspace.close()
            with server.connect_admin() as admin:
                drop_database(admin, _TEMPLATE)

    return judge


@pytest.mark.parametrize(
    "trail",
    [
        {},
        {"actor": _BY_FUNCTION, "who": "trail.declared()::text"},
        {"events": "UPDATE OR DELETE", "keys": 'omits = ["inserts"]'},
        {"image": "NULL", "keys": 'omits = ["image"]'},
    ],
    ids=["setting", "function", "no-inserts", "no-image"],
)
def test_a_sound_trail_has_no_issue(
    judged: Callable[..., dict[str, Result]], monkeypatch: pytest.MonkeyPatch, trail: dict[str, str]
) -> None:
    # designs count here: a round without an actor and one with a delete, and not hundreds of transactions
    monkeypatch.setattr(sharing, "_CLIENTS", 4)
    monkeypatch.setattr(sharing, "_ROUNDS", 10)
    results = judged(*_JUDGED, **trail)
    assert {name: result.reason for name, result in results.items() if result.status is Status.ISSUE} == {}
    assert {results[name].status for name in ("ids", "writers", "unset")} == {Status.OK}


@pytest.mark.parametrize(
    ("who", "check", "reason"),
    [
        (f"lower({_SETTING})", "ids", "an id: upper case"),
        (f"btrim({_SETTING})", "ids", "an id: a blank before it"),
        (f"left({_SETTING}, 200)", "ids", "an id: 255 characters"),
        (f"coalesce({_SETTING}, session_user)", "writers", "actor of a write by the application, without an actor"),
    ],
)
def test_a_trail_with_other_actors_is_an_issue(
    judged: Callable[..., dict[str, Result]], who: str, check: str, reason: str
) -> None:
    result = judged(check, who=who)[check]
    assert result.status is Status.ISSUE
    assert reason in result.reason


def test_a_trail_whose_actor_no_default_forges_is_better(judged: Callable[..., dict[str, Result]]) -> None:
    plain = judged("careless-role-default", "careless-session-set")
    better = judged("careless-role-default", "careless-session-set", who="trail.unforgeable()")
    for results in (plain, better):
        assert {result.status for result in results.values()} == {Status.OK}
    limits = {name: result.limit is not None for name, result in better.items()}
    assert limits == {"careless-role-default": False, "careless-session-set": True}
    assert all(result.limit for result in plain.values())


def test_statements_of_the_trail_cannot_be_set_carelessly(judged: Callable[..., dict[str, Result]]) -> None:
    results = judged(
        *("careless-role-default", "careless-startup-option", "residue"),
        actor=_BY_FUNCTION,
        who="trail.declared()::text",
    )
    assert {result.status for result in results.values()} == {Status.NA}
