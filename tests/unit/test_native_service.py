"""A program that runs next to a native server has a time limit, so that a check cannot hang on it."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.engine import native_service
from harness.engine.native_service import NativeService
from harness.errors import TimedOutError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_program_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: Any = SimpleNamespace(
        place=SimpleNamespace(name="postgres", origin=SimpleNamespace(reference="/bin/postgres"))
    )
    service = NativeService(spec, tmp_path, pwd.getpwuid(os.getuid()))
    assert service.run(["echo", "here"], {}) == (0, "here\n")
    monkeypatch.setattr(native_service, "_PROGRAM_S", 0.05)
    with pytest.raises(TimedOutError, match="sleep did not end within"):
        service.run(["sleep", "60"], {})
