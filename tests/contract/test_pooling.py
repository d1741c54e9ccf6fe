"""The feature map is what the servers do; recognition and the drivers are in files of their own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.model import Behaviour, PoolMode, Result, Status
from harness.redaction import Redactor
from harness.store import read_run
from tests.conftest import require_engine
from tests.contract.command_line import harness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine


def answers(folder: Path) -> dict[tuple[str, str], Result]:
    found = read_run(folder / "reports" / "runs" / "latest").answers()
    return {(each.target, each.check.partition(".")[2]): each for each in found}


def test_the_pooling_suite_tells_the_pool_modes_apart(engine: Engine, tmp_path: Path) -> None:
    """On both engines, so with two versions of each product."""
    done = harness(tmp_path, "verify", "direct", "session", "transaction", "--suite", "pooling", "--engine", engine.name)
    assert done.returncode == 0, done.stdout + done.stderr
    found = answers(tmp_path)
    seen = {key: each.feature.observed.behaviour for key, each in found.items() if each.feature}
    for feature in ("setting-apart", "tenant-apart", "role-apart", "temp-table-apart", "advisory-lock", "notify-apart"):
        assert seen["direct", feature] is seen["session", feature] is Behaviour.WORKS
        assert seen["transaction", feature] is Behaviour.LEAKS
    for feature in ("setting-kept", "listen", "advisory-unlock"):
        assert seen["direct", feature] is seen["session", feature] is Behaviour.WORKS
        assert seen["transaction", feature] is Behaviour.LOST
    for feature in ("transaction", "savepoint", "copy", "pipeline", "cancel", "two-phase", "advisory-xact-lock"):
        assert {seen[name, feature] for name in ("direct", "session", "transaction")} == {Behaviour.WORKS}
    for (topology, feature), each in found.items():
        if feature.endswith(("-kept", "-apart")) and each.status in {Status.OK, Status.ISSUE}:
            assert each.probes, (topology, feature)
            kept = topology == "transaction" and feature.endswith("-apart")
            if topology == "transaction":
                assert all((probe.first_pid == probe.second_pid) is kept for probe in each.probes), feature
    assert not [key for key, each in found.items() if each.status is Status.NOT_RUN]


@pytest.mark.long
def test_every_probe_notices_when_a_feature_behaves_otherwise(any_engine: Engine, tmp_path: Path) -> None:
    """In the mode that shares server connections; `.ci/run` proves all topologies."""
    done = harness(tmp_path, "prove", "transaction", "--suite", "pooling", "--engine", any_engine.name)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = read_run(tmp_path / "reports" / "runs" / "latest")
    assert [each for each in stored.proofs if each.applicable and not each.proven] == []
    assert len(stored.proofs) >= 80


def test_other_products_and_versions_stand(tmp_path: Path) -> None:
    """Docker only: these are images of their own."""
    require_engine("docker")
    checks = ("setting-kept", "setting-apart", "named-kept", "discard-all-extended", "transaction", "recognised")
    asked = [f"--check=pooling.{each}" for each in checks]
    done = harness(tmp_path, "verify", "pgpool", "pgagroal", *asked, "--engine", "docker")
    assert done.returncode == 0, done.stdout + done.stderr
    found = answers(tmp_path)
    assert found["pgpool", "discard-all-extended"].known
    assert found["pgagroal", "discard-all-extended"].status is Status.OK
    done = harness(
        tmp_path,
        *("verify", "transaction", "--set", "postgres=15", "--set", "pgbouncer=1.18", *asked, "--engine", "docker"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    older = answers(tmp_path)["transaction+postgres-15+pgbouncer-1.18", "named-kept"]
    assert older.feature
    assert str(older.feature.observed) == "fails (26000)"


@pytest.fixture
def lab(any_engine: Engine, owner: Owner) -> Iterator[Lab]:
    lab = stand_up(any_engine, load_topologies()["transaction"], owner, Redactor())
    yield lab
    lab.close()


def test_identify_prints_what_it_found_and_no_secret(lab: Lab, tmp_path: Path) -> None:
    chain = lab.chain()
    dsn = f"postgresql://{chain.user}:{chain.password}@{chain.host}:{chain.port}/{chain.dbname}"
    done = harness(tmp_path, "identify", "--json", STAGING="x", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    found = {each["fact"]: each for each in json.loads(done.stdout)["findings"]}
    assert (found["pooler"]["value"], found["product"]["value"]) == ("yes", "PgBouncer")
    assert found["pool_mode"] | {"how": ""} == {
        "fact": "pool_mode",
        "value": str(PoolMode.TRANSACTION),
        "confidence": "certain",
        "how": "",
    }
    done = harness(tmp_path, "identify", "--declared", "pool_mode=session", DATABASE_URL=dsn)
    assert done.returncode == 1
    assert "contradicted: pool_mode is declared as 'session' and found to be 'transaction'" in done.stderr
    done = harness(tmp_path, "identify", dsn.replace(chain.password, "wrong-password"))
    assert done.returncode == 3
    for text in (done.stdout, done.stderr):
        assert chain.password not in text
        assert "wrong-password" not in text
        assert "Traceback" not in text


def test_a_restarted_server_leaves_the_rest_of_the_run_whole(any_engine: Engine, tmp_path: Path) -> None:
    checks = ("restart-idle", "restart-busy", "changed-password")
    asked = [f"--check=pooling.{each}" for each in checks]
    done = harness(
        tmp_path, "verify", "direct", "transaction", *asked, "--check=capture.insert", "--engine", any_engine.name
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each.status for each in answers(tmp_path).values()} <= {Status.OK, Status.NA}


def test_a_driver_that_is_not_installed_is_not_run(any_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nreal = m.version\n"
        "def version(name):\n    if name == 'asyncpg':\n        raise m.PackageNotFoundError(name)\n    return real(name)\n"
        "m.version = version\n"
    )
    done = harness(
        tmp_path,
        *("verify", "direct", "--check=drivers.asyncpg", "--check=drivers.psycopg", "--engine", any_engine.name),
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(places.SHIPPED)]),
    )
    assert done.returncode == 0, done.stderr
    found = answers(tmp_path)
    assert found["direct", "psycopg"].status is Status.OK
    assert found["direct", "asyncpg"].status is Status.NOT_RUN
    assert "asyncpg" in found["direct", "asyncpg"].reason
