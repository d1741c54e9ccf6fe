"""The browser that the tests need: where it is searched, and what is said without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import places
from tests.browser.chromium import PROGRAMS, MissingBrowserError, program

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_program_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in reversed(PROGRAMS):
        (tmp_path / name).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert program() == str(tmp_path / name)


def test_without_a_browser_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingBrowserError, match="try: sudo apt-get install chromium"):
        program()


def test_bootstrap_looks_for_the_same_programs() -> None:
    text = (places.SHIPPED / "bootstrap").read_text(encoding="utf-8")
    assert "has_browser() { " + " || ".join(f"have {name}" for name in PROGRAMS) + "; }" in text
