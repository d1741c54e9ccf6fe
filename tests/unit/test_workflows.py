"""The workflows of this project: pinned actions, least rights, no expression inside a script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from harness import places

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOWS = sorted((places.SHIPPED / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def steps_of(text: str) -> list[str]:
    """Return the text of each step."""
    return re.split(r"^ +- (?=uses:|run:|name:|id:|if:)", text, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_pinned_and_has_least_rights(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    steps = steps_of(text)
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    for step in steps:
        if "actions/checkout@" in step:
            assert "persist-credentials: false" in step
        script = re.search(r"\brun: (.*(?:\n {10,}.*)*)", step)
        assert not script or "${{" not in script[1], script[1]
