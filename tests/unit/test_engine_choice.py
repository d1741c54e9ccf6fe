"""The choice of the engine: a fallback is reported, and the error without any engine names a reason for each."""

from __future__ import annotations

import pytest

from harness.engine import choice, programs
from harness.engine.choice import choose
from harness.engine.native_engine import NativeEngine
from harness.engine.protocol import EngineName, Wanted
from harness.engine.recipes import ImagePolicy
from harness.errors import EngineUnavailableError
from harness.events import Event, Notice, silent

PGBOUNCER = Wanted(product="pgbouncer", version="1.24")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide Docker and all installed servers."""
    monkeypatch.setenv("DOCKER_HOST", "nowhere://docker")  # invalid, so that the SDK opens no socket
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(programs, "_PROGRAM_FOLDERS", ())


def chosen(name: EngineName) -> EngineUnavailableError:
    with pytest.raises(EngineUnavailableError) as caught:
        choose(name, ImagePolicy(), (PGBOUNCER,), silent)
    return caught.value


def test_without_any_engine_the_error_names_a_reason_for_each_and_what_to_install() -> None:
    error = chosen("auto")
    assert error.what == "no engine can run the servers"
    docker, native = error.detail.splitlines()
    assert docker.startswith("docker: no Docker engine answers at nowhere://docker: ")
    assert native.startswith("native: the native engine needs pgbouncer 1.24, which is neither on PATH")
    assert "start Docker" in error.hint
    assert "apt-get install postgresql pgbouncer" in error.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [("docker", "no Docker engine answers", "--engine native"), ("native", "needs pgbouncer 1.24", "--engine docker")],
)
def test_a_named_engine_is_never_replaced(name: EngineName, message: str, hint: str) -> None:
    error = chosen(name)
    assert message in error.what
    assert hint in error.hint


def test_a_fallback_to_the_native_engine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Prepared(NativeEngine):
        def prepare(self, wanted: object, listener: object) -> None:
            """Find every product."""

    monkeypatch.setattr(choice, "NativeEngine", Prepared)
    events: list[Event] = []
    assert choose("auto", ImagePolicy(), (PGBOUNCER,), events.append).name == "native"
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.text.endswith("; using the native engine")
