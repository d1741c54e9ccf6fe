"""The sound trails and their faulty variants install, attach and run their statements on a real server."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import load_target
from harness.audit.verifying import verify_statements
from harness.database import connect, create_database
from harness.engine.choice import choose
from harness.engine.owner import Owner
from harness.engine.recipes import ImagePolicy
from harness.errors import EngineUnavailableError
from harness.events import silent
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.mutants.variants import SOUND, Variant, sql_of, target_file_of, variants
from harness.redaction import Redactor
from harness.suites.actor import sharing
from harness.suites.capture import extremes, writes
from tests.contract.command_line import harness_here
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.audit.target import AuditTarget
    from harness.database import Client
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine

#: the tables with a trigger of the trail in a schema
ATTACHED = """
SELECT DISTINCT c.relname
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_proc f ON f.oid = t.tgfoid
JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE n.nspname = %s
ORDER BY c.relname"""


#: a function of a sound trail
FUNCTION = re.compile(r"^CREATE FUNCTION .*?^\$\$;$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a direct topology."""
    topology = load_topologies()["direct"]
    try:
        engine = choose("auto", ImagePolicy(), wanted_by(topology), silent)
        engine.prepare(wanted_by(topology), silent)
    except EngineUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.what)
    lab = stand_up(engine, topology, Owner.me("mutant-trails"), Redactor())
    yield lab
    lab.close()


@contextlib.contextmanager
def database(lab: Lab, name: str) -> Iterator[Client]:
    """Connect as the owner of a new database."""
    with lab.connect_admin() as admin:
        create_database(admin, name, owner=lab.roles.owner.name)
    with connect(lab.owner(name)) as client:
        yield client


@pytest.fixture(scope="module")
def owner(lab: Lab) -> Iterator[Client]:
    with database(lab, "trails") as client:
        yield client


@pytest.fixture(scope="module")
def installed(lab: Lab) -> Iterator[Client]:
    """Connect to a database in which the sound trails are installed."""
    with database(lab, "installed") as client:
        for trail in SOUND:
            load_target(str(target_file_of(trail))).install_in(client)
        yield client


def changed_functions(variant: Variant) -> list[str] | None:
    """Return the statements that replace functions of the sound trail; None if a variant differs elsewhere, too."""
    sound, faulty = (sql_of(one).strip() for one in (replace(variant, replace=(), append=""), variant))
    functions, others = FUNCTION.findall(sound), FUNCTION.findall(faulty)
    changed = [(old, new) for old, new in zip(functions, others, strict=False) if old != new]
    same_kind = all(old.partition(" LANGUAGE ")[0] == new.partition(" LANGUAGE ")[0] for old, new in changed)
    if len(functions) != len(others) or FUNCTION.sub("", sound) != FUNCTION.sub("", faulty) or not same_kind:
        return None
    return [new.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) for _, new in changed]


def use(owner: Client, target: AuditTarget) -> None:
    """Run the statements of an installed trail, and attach a table and its partitions."""
    verify_statements(target, owner)
    owner.run("CREATE TABLE public.trial (id integer PRIMARY KEY, note text) PARTITION BY RANGE (id)")
    owner.run("CREATE TABLE public.trial_1 PARTITION OF public.trial FOR VALUES FROM (0) TO (10)")
    owner.run("CREATE TABLE public.plain (id integer PRIMARY KEY, note text)")
    target.attach(owner, "public.trial")
    for _ in range(2):
        target.attach(owner, "public.plain")
    schema = target.tables[0].partition(".")[0]
    attached = owner.rows(ATTACHED, [schema])
    assert {name for (name,) in attached} >= {"plain", "trial", "trial_1"}
    target.detach(owner, "public.plain")


@pytest.mark.parametrize("trail", SOUND)
def test_a_sound_trail_records_what_was_written(owner: Client, trail: str) -> None:
    target = load_target(str(target_file_of(trail)))
    with owner.transaction(force_rollback=True):
        target.install_in(owner)
        owner.run("CREATE TABLE public.plain (b text, a integer, note numeric, PRIMARY KEY (b, a))")
        target.attach(owner, "public.plain")
        owner.value("SELECT set_config(%s, %s, true)", [target.actor.setting, '{"type": "user", "id": "Ada"}'])
        owner.run("INSERT INTO public.plain VALUES ('x', 1, 1.0), ('x', 2, 2)")
        owner.run("UPDATE public.plain SET note = 1.00 WHERE a = 1")
        owner.run("DELETE FROM public.plain WHERE a = 2")
        changes = target.changes(owner)
    assert [(change.op, change.table_pk, change.changed_fields) for change in changes] == [
        ("insert", {"b": "x", "a": 1}, None),
        ("insert", {"b": "x", "a": 2}, None),
        ("update", {"b": "x", "a": 1}, ("note",)),
        ("delete", {"b": "x", "a": 2}, None),
    ]
    assert [change.actor for change in changes] == [{"type": "user", "id": "Ada"}] * 4
    assert len({change.transaction_id for change in changes}) == 1


@each_row("variant", variants(), ids=[variant.full_name for variant in variants()])
def test_a_faulty_variant_installs_and_attaches(
    owner: Client, installed: Client, variant: Variant, tmp_path: Path
) -> None:
    functions = changed_functions(variant)
    if functions:  # an installation of everything takes three times as long
        with installed.transaction(force_rollback=True):
            installed.run(";\n".join(functions))
            use(installed, load_target(str(target_file_of(variant.trail))))
    else:
        file = tmp_path / f"{variant.trail}.sql"
        file.write_text(sql_of(variant), encoding="utf-8")
        target = load_target(str(target_file_of(variant.trail)), [str(file)])
        with owner.transaction(force_rollback=True):
            target.install_in(owner)
            use(owner, target)


def test_faults_of_a_trail_are_noticed(any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no fault here depends on a size or a number, and 100 MB take as long as all other checks of the sound trail
    monkeypatch.setattr(extremes, "_HUGE_KIB", 1)
    monkeypatch.setattr(extremes, "_LARGE_KB", 1)
    monkeypatch.setattr(writes, "_MANY", 50)
    monkeypatch.setattr(sharing, "_CLIENTS", 4)
    monkeypatch.setattr(sharing, "_ROUNDS", 10)
    named = (
        "row-json/deletes-not-in-the-trigger",
        "row-json/last-actor-of-the-connection",
        "row-json/last-column-missing-in-prior-values",
    )
    only = [argument for name in named for argument in ("--only", name)]
    done = harness_here(tmp_path, "mutants", "direct", *only, "--engine", any_engine.name)
    noticed = "direct: noticed 3 of 3 (100.0 %); written without the checks: 2 of 2 (100.0 %)\n"
    assert done.stdout.endswith(noticed), done.stdout + done.stderr
    found = json.loads((tmp_path / "reports" / "mutants-of-trails.json").read_text())
    assert sorted(f"{variant['trail']}/{variant['name']}" for variant in found["variants"]) == sorted(named)
    assert all(variant["check"] and variant["reason"] for variant in found["variants"])
    assert [(trail["trail"], trail["issues"], trail["not_run"]) for trail in found["sound"]] == [("row-json", {}, {})]
