"""Probes of the feature map against real servers; recognition and drivers have test files of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.model import Behaviour, PoolMode, Result, Status
from harness.redaction import Redactor
from harness.store import read_run
from tests.conftest import require_engine
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine


def latest_results(folder: Path) -> dict[tuple[str, str], Result]:
    """Return the results of the latest run, by topology and check id without its suite."""
    results = read_run(folder / "reports" / "runs" / "latest").answers()
    return {(result.target, result.check.partition(".")[2]): result for result in results}


def has_state(feature: str) -> bool:
    return feature.endswith(("-kept", "-apart"))


#: features by their outcome behind a transaction pool; direct and behind a session pool they work
LEAKING = ("setting-apart", "tenant-apart", "role-apart", "temp-table-apart", "advisory-lock", "notify-apart")
LOST = ("setting-kept", "listen", "advisory-unlock")
#: features whose outcome depends on the product or its version
SOME = ("setting-kept", "setting-apart", "named-kept", "discard-all-extended", "transaction", "recognised")
WORKING = ("transaction", "savepoint", "copy", "pipeline", "cancel", "two-phase", "advisory-xact-lock")


SELECTED = [f"--check=pooling.{feature}" for feature in LEAKING + LOST + WORKING]

@pytest.mark.long
def test_the_pooling_suite_distinguishes_the_pool_modes(tmp_path: Path) -> None:
    """`report` and test_configurations.py run the whole suite with the versions of the Docker engine.

    The suite restarts its servers, too, and nothing of the rest is affected.
    """
    require_engine("native")
    results: dict[tuple[str, str], Result] = {}
    for arguments in (["session", *SELECTED], ["transaction", "--suite=pooling", "--check=capture.insert"]):
        done = harness_here(tmp_path, "verify", *arguments, "--engine", "native")
        assert done.returncode == 0, done.stdout + done.stderr
        results |= latest_results(tmp_path)
    observed = {key: result.feature.observed.behaviour for key, result in results.items() if result.feature}
    for features, behaviour in ((LEAKING, Behaviour.LEAKS), (LOST, Behaviour.LOST), (WORKING, Behaviour.WORKS)):
        for feature in features:
            assert observed["session", feature] is Behaviour.WORKS
            assert observed["transaction", feature] is behaviour
    for (topology, feature), result in results.items():
        if feature == "pg-dump-apart":
            continue  # pg_dump is a program of its own, and gets whichever server connection the pooler hands out
        if has_state(feature) and result.status in {Status.OK, Status.ISSUE}:
            assert result.probes, (topology, feature)
            shared = feature.endswith("-apart")
            if topology == "transaction":
                assert all((probe.first_pid == probe.second_pid) is shared for probe in result.probes), feature
    for check in ("restart-idle", "restart-busy", "changed-password", "insert"):
        assert results["transaction", check].status is Status.OK
    assert not [key for key, result in results.items() if result.status is Status.NOT_RUN]


def test_shares_and_moves_are_forced_for_a_pooler_that_hands_out_round_robin(
    any_engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "topologies"
    folder.mkdir()
    declared = (places.TOPOLOGIES / "transaction.toml").read_text()
    size = "max_prepared_statements = 200"
    assert declared.count(size) == 1
    (folder / "robin.toml").write_text(declared.replace(size, f'{size}\nsettings = {{ server_round_robin = "1" }}'))
    checks = (
        *("setting-kept", "setting-apart", "tracked-settings-kept", "sql-prepare-collides", "sql-prepare-mixed-up"),
        *("named-mixed-up", "leftovers", "advisory-lock", "parameter-status-moved", "cancel-late"),
    )
    selection = [f"--check=pooling.{check}" for check in checks]
    done = harness_here(
        tmp_path, "verify", "robin", "--topologies-folder", str(folder), *selection, "--engine", any_engine.name
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = latest_results(tmp_path)
    assert {result.status for result in results.values()} == {Status.OK}
    assert all(result.probes for result in results.values())
    for check, outcome in {"setting-kept": "lost", "setting-apart": "leaks", "sql-prepare-mixed-up": "wrong"}.items():
        feature = results["robin", check].feature
        assert feature
        assert str(feature.observed) == outcome


def test_other_products_are_verified(tmp_path: Path) -> None:
    """Docker only, because these products need images. Pgagroal ends a server connection with its client.

    A probe of Pgpool-II occupies all of its processes, so fewer than usual start.
    """
    require_engine("docker")
    folder = tmp_path / "topologies"
    folder.mkdir()
    for product in ("pgpool", "pgagroal"):
        declared = (places.TOPOLOGIES / f"{product}.toml").read_text()
        assert declared.count(" = 64\n") == 2
        (folder / f"{product}.toml").write_text(declared.replace(" = 64\n", " = 24\n"))
    ended = ("setting-apart", "local-residue", "leftovers")
    selection = [f"--check=pooling.{check}" for check in (*SOME, *ended)]
    done = harness_here(
        tmp_path,
        *("verify", "pgpool", "pgagroal", "--topologies-folder", str(folder), *selection, "--engine", "docker"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = latest_results(tmp_path)
    assert results["pgpool", "discard-all-extended"].known
    assert results["pgagroal", "discard-all-extended"].status is Status.OK
    for check in ended:
        result = results["pgagroal", check]
        assert result.status is Status.OK
        (probe,) = result.probes
        assert "its server connection ends" in probe.how
        assert probe.first_pid != probe.second_pid


def test_an_older_version_is_verified(tmp_path: Path) -> None:
    """Docker only, because the version needs an image."""
    require_engine("docker")
    selection = [f"--check=pooling.{check}" for check in SOME]
    done = harness_here(
        tmp_path,
        *("verify", "transaction", "--set", "postgres=15", "--set", "pgbouncer=1.18", *selection, "--engine", "docker"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    older = latest_results(tmp_path)["transaction+postgres-15+pgbouncer-1.18", "named-kept"]
    assert older.feature
    assert str(older.feature.observed) == "fails (26000)"


@pytest.fixture
def lab(any_engine: Engine, owner: Owner) -> Iterator[Lab]:
    lab = stand_up(any_engine, load_topologies()["transaction"], owner, Redactor())
    yield lab
    lab.close()


def test_identify_prints_its_findings_and_no_secret(lab: Lab, tmp_path: Path) -> None:
    chain = lab.chain()
    dsn = f"postgresql://{chain.user}:{chain.password}@{chain.host}:{chain.port}/{chain.dbname}"
    done = harness_here(tmp_path, "identify", "--json", STAGING="x", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    findings = {finding["fact"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert (findings["pooler"]["value"], findings["product"]["value"]) == ("yes", "PgBouncer")
    assert findings["pool_mode"] | {"how": ""} == {
        "fact": "pool_mode",
        "value": str(PoolMode.TRANSACTION),
        "confidence": "certain",
        "how": "",
    }
    done = harness_here(tmp_path, "identify", "--declared", "pool_mode=session", DATABASE_URL=dsn)
    assert done.returncode == 1
    assert "contradicted: pool_mode is declared as 'session' and found to be 'transaction'" in done.stderr
    done = harness_here(tmp_path, "identify", dsn.replace(chain.password, "wrong-password"))
    assert done.returncode == 3
    for text in (done.stdout, done.stderr):
        assert chain.password not in text
        assert "wrong-password" not in text
        assert "Traceback" not in text
