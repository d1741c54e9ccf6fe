"""Audit target files: loading, and the messages for mistakes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

import pytest
from msgspec.structs import fields, replace

from harness.audit.actor import Actor
from harness.audit.placeholders import fill, table_names
from harness.audit.target_file import Recorded, TargetFile, TrailFeature
from harness.audit.target_loading import load_target, reference_target, shipped_targets
from harness.checks.claims import unjudged_claims
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.settings import read_settings
from harness.cli.settings_options import SettingsOptions
from harness.errors import ConfigError
from harness.lab.topologies import load_topologies
from harness.suites.catalogue import catalogue
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
summary = "mine"
install = ["mine.sql"]
tables = ["public.log"]
claims = ["truncate"]
[actor]
setting = "app.user"
value = "id"
scope = "session"
[statements]
attach = "CREATE TRIGGER t AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.f()"
changes = "SELECT 1"
"""


def written(folder: Path, text: str = GOOD) -> str:
    (folder / "mine.sql").write_text("SELECT 1;\n")
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_target_is_read_from_its_file(tmp_path: Path) -> None:
    target = load_target(written(tmp_path))
    assert (target.name, target.summary, target.claims) == ("mine", "mine", frozenset({TrailFeature.TRUNCATE}))
    assert target.install == (tmp_path / "mine.sql",)
    assert target.actor.spell(Actor("user", "ada")) == "ada"
    assert reference_target().actor.spell(Actor("user", "ada")) == '{"type":"user","id":"ada"}'


def test_the_line_of_a_statement_is_that_of_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for name, text in {"one": GOOD, "other": f"# a comment\n{GOOD}"}.items():
        folder = tmp_path / name
        folder.mkdir()
        written(folder, text)
        monkeypatch.chdir(folder)
        lines.append(load_target("mine.toml").at("changes"))
    first, second = (int(line.removeprefix("mine.toml:")) for line in lines)
    assert second == first + 1


def test_a_target_s_identity_changes_with_its_sql(tmp_path: Path) -> None:
    before = load_target(written(tmp_path)).identity
    assert load_target(written(tmp_path)).identity == before
    (tmp_path / "mine.sql").write_text("SELECT 2;\n")
    assert load_target(str(tmp_path / "mine.toml")).identity != before


@each_row(
    ("old", "new", "message"),
    [
        ('scope = "session"', 'scope = "sesion"', "mine.toml:9: actor.scope: found 'sesion', allowed: "),
        ('claims = ["truncate"]', 'claims = ["truncat"]', "mine.toml:5: claims"),
        ('claims = ["truncate"]', 'claims = ["library"]', "mine.toml:5: claims[0]: found 'library', allowed: "),
        ('claims = ["truncate"]', 'claims = ["redaction"]', "claims: redaction requires statements.attach_redacted"),
        ('setting = "app.user"', 'setting = "app user"', "mine.toml:7: actor.setting"),
        ('setting = "app.user"', 'declare = "SELECT 1"', "mine.toml:8: actor.value: found 'id', which is the form of"),
        ('setting = "app.user"\nvalue = "id"', 'declare = "SELECT 1"', "mine.toml:7: actor.declare: missing {id}"),
        (
            'setting = "app.user"\nvalue = "id"',
            "",
            "actor.setting: found none of them, needed one of setting, settings",
        ),
        (
            'value = "id"',
            'declare = "SELECT {id}"',
            "mine.toml:7: actor.setting: found setting and declare, needed one",
        ),
        ('setting = "app.user"\nvalue = "id"', 'declare = "SELECT {id}, {kind}"', "unknown placeholder {kind}"),
        (
            'setting = "app.user"\nvalue = "id"',
            "declare = \"SELECT audit.begin({type}, '{id}')\"",
            "mine.toml:7: actor.declare: {id} is in quotes",
        ),
        ("ON {table} FOR", "ON '{table_literal}' FOR", "mine.toml:11: statements.attach: {table_literal} is in quotes"),
        (
            'setting = "app.user"\nvalue = "id"',
            'settings = { a = "{id}", b = "{kind}" }',
            "mine.toml:7: actor.settings: unknown placeholder {kind}",
        ),
        ('[actor]\nsetting = "app.user"\nvalue = "id"\nscope = "session"', "", "mine.toml: actor: missing key"),
        ('claims = ["truncate"]', 'omits = ["actor"]', "mine.toml:5: omits: found 'actor', and a table [actor]"),
        ('claims = ["truncate"]', 'omits = ["time"]', "mine.toml:5: omits[0]: found 'time', allowed: "),
        ("ON {table} FOR", "ON {tabel} FOR", "mine.toml:11: statements.attach: unknown placeholder {tabel}"),
        ('changes = "SELECT 1"', 'changes = "SELECT {name}"', "mine.toml:12: statements.changes: unknown placeholder"),
        ("[statements]", "[statement]", "mine.toml: "),
        ('summary = "mine"', 'sumary = "mine"', "sumary"),
        ('install = ["mine.sql"]', 'install = ["other.sql"]', "mine.toml:3: install: "),
        ('tables = ["public.log"]', "tables = []", "mine.toml: tables: missing key"),
        ('summary = "mine"', "summary = ", "invalid TOML"),
    ],
)
def test_a_mistake_names_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_target(written(tmp_path, GOOD.replace(old, new)))
    assert message in str(caught.value)


def test_what_a_file_can_claim_and_omit_is_what_a_trail_can_have() -> None:
    keys = {field.name: field.type for field in fields(TargetFile)}
    choices = {name: set(get_args(get_args(keys[name])[0])) for name in ("claims", "omits")}
    assert choices["claims"] == {*TrailFeature} - {TrailFeature.LIBRARY}
    assert choices["omits"] == {property_ for property_ in Recorded if property_.may_be_omitted}


def test_a_pipe_is_no_sql_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "mine.sql").unlink()
    os.mkfifo(tmp_path / "mine.sql")
    with pytest.raises(ConfigError, match=r"mine\.toml:3: install: .*mine\.sql is not a regular file"):
        load_target(path)


def test_a_missing_sql_file_of_the_command_line_is_not_blamed_on_the_target_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_target(written(tmp_path), [str(tmp_path / "other.sql")])
    assert str(caught.value).startswith("install: cannot read ")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean plain-trigger"):
        load_target("plain-triger")


def test_the_shipped_targets_load_and_threadline_ships_no_sql(tmp_path: Path) -> None:
    names = ["history-tables", "joined-actor", "plain-trigger", "row-diff", "session-setting"]
    assert list(shipped_targets()) == ["reference", *names, "threadline"]
    for name in ("reference", *names):
        assert load_target(name).install
    # an operator's environment may have it installed already; behind a topology the harness must install it
    with pytest.raises(ConfigError, match="--audit-sql"):
        load_target("threadline").require_installable()
    (tmp_path / "own.sql").write_text("SELECT 1;")
    assert load_target("threadline", [str(tmp_path / "own.sql")]).install == (tmp_path / "own.sql",)


@pytest.mark.parametrize(
    ("table", "name"),
    [("public.posts", "posts"), ('"Shop"."Order ""Items"""', '"Order ""Items"""'), ('"a.b"', '"a.b"')],
)
def test_placeholders_are_replaced_by_the_table_s_sql_identifier(table: str, name: str) -> None:
    assert fill("{table}|{name}|'{}'", table_names(table)) == f"{table}|{name}|'{{}}'"
    assert fill("{table_literal}", table_names("public.it's")) == "'public.it''s'"


def test_an_unclaimed_feature_gives_na_with_its_reason() -> None:
    direct, checks = load_topologies()["direct"], {check.id: check for check in catalogue().checks}

    def lacking(identity: str, target: Any) -> str:
        return checks[identity].lacking(direct, target) or ""

    plain, session = load_target("plain-trigger"), load_target("session-setting")
    assert lacking("redaction.insert", plain) == "the audit target does not claim to redact"
    assert lacking("capture.insert", plain) == ""
    assert "sets its actor for the session" in lacking("actor.residue", session)
    assert "whose own functions" in lacking("retention.policy", session)
    for check in checks.values():
        assert "audit target" not in (check.lacking(direct, reference_target()) or ""), check.id


LIMIT = '[[limits]]\ncheck = "capture.truncate"\nsays = "not recorded"\nwhere = "#truncate"\n'
ACCEPTED = """[[accepted]]
check = "capture.keys"
link = "https://example.org/7"
owner = "us"
expires = "2027-01-01"
"""


def settings_with(folder: Path, more: str, today: str = "2026-12-01") -> Any:
    return read_settings(SettingsOptions(audit_target=written(folder, GOOD + more)), today=today)


def test_limits_and_accepted_issues_of_a_target_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings_with(tmp_path, LIMIT + ACCEPTED)
    assert [entry.check for entry in found.known_issues] == ["capture.keys"]
    limit = found.target.limit_of("capture.truncate")
    assert found.target.place_of(limit) == "#truncate"
    assert found.target.limit_of("capture.keys") is None


@pytest.mark.parametrize(
    ("more", "today", "message"),
    [
        (LIMIT + LIMIT.replace("truncate", "trunkate", 1), "2026-12-01", "toml:18: limits: unknown check 'capture.trunkate'"),
        (ACCEPTED.replace("keys", "kees"), "2026-12-01", "accepted: unknown check 'capture.kees'"),
        (ACCEPTED, "2027-01-02", "toml:14: accepted: the entry for capture.keys expired on 2027-01-01"),
        (ACCEPTED.replace("2027-01-01", "2027-31-01"), "2026-12-01", "accepted: invalid date '2027-31-01'"),
    ],
)
def test_entries_for_unknown_checks_and_expired_ones_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, today: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        settings_with(tmp_path, more, today)
    assert message in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_target_try_rejects_unknown_checks_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD + LIMIT.replace("truncate", "trunkate", 1))
    assert main(["target", "try", path]) == ExitCode.USAGE
    assert "mine.toml:14: limits: unknown check 'capture.trunkate'" in capsys.readouterr().err


def test_a_claim_that_no_check_can_judge_is_named() -> None:
    checks = catalogue().checks
    assert unjudged_claims(checks, reference_target()) == []
    assert unjudged_claims(checks, load_target("plain-trigger")) == []
    redaction = tuple(check for check in checks if TrailFeature.REDACTION in check.requires_features)
    nothing_else = tuple(check for check in redaction if len(check.requires_features) > 1)
    target = replace(load_target("plain-trigger"), claims=frozenset({TrailFeature.REDACTION}))
    assert unjudged_claims(redaction, target) == []
    assert unjudged_claims(nothing_else, target) == [TrailFeature.REDACTION]


def test_a_claim_that_a_check_of_every_trail_judges_needs_that_check() -> None:
    checks = catalogue().checks
    target = replace(
        load_target("plain-trigger"), claims=frozenset({TrailFeature.CONTRACT_TABLES, TrailFeature.TRUNCATE})
    )
    assert unjudged_claims(checks, target) == []
    without_ids = replace(target, omits=frozenset({Recorded.TRANSACTION_ID}))
    assert unjudged_claims(checks, without_ids) == [TrailFeature.CONTRACT_TABLES]
    others = [check for check in checks if check.id != "capture.truncate"]
    assert unjudged_claims(others, target) == [TrailFeature.TRUNCATE]
