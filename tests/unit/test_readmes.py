"""Examples and command lines in the READMEs and in docs/ work as printed."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.cli.settings import read_settings
from tests.unit.command_lines import parse

if TYPE_CHECKING:
    from pathlib import Path

ROOT = places.PACKAGE.parent


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_environments_are_one_project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness.toml").write_text("".join(blocks("docs/environments.md", "toml")))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "versions.md").write_text("library 0.6.1")
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    checks = {each.id for each in settings.catalogue.checks}
    assert {"path.create-post", "path.refresh-title-failure", "command.mix-test"} <= checks
    assert list(settings.environments) == ["staging"]
    assert settings.workflows
    assert settings.readiness
    assert settings.preflight


@pytest.mark.parametrize("text", [each for each in blocks("README.md", "toml") if "[environments" in each])
def test_the_example_in_the_readme_is_a_project_file(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harness.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert read_settings().paths


@pytest.mark.parametrize("readme", ["README.md", "docs/environments.md"])
def test_every_command_line_is_valid(readme: str) -> None:
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m harness ")]
    assert commands
    for command in commands:
        parse(command)
