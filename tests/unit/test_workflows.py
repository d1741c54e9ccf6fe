"""The workflows of this project: pinned actions, least rights, no expression inside a script."""

from __future__ import annotations

import re
import shlex

import pytest

from harness import places
from tests.unit.command_lines import parse
from tests.unit.doc_files import blocks

WORKFLOWS = sorted((places.SHIPPED / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
#: complete workflows that a document shows
EXAMPLES = blocks("docs/ci.md", "yaml")


def steps_of(text: str) -> list[str]:
    """Return the text of each step."""
    return re.split(r"^ +- (?=uses:|run:|name:|id:|if:)", text, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("text", [*(path.read_text(encoding="utf-8") for path in WORKFLOWS), *EXAMPLES])
def test_a_workflow_is_pinned_and_has_least_rights(text: str) -> None:
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


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_uses_the_actions_of_this_project_and_valid_command_lines(text: str) -> None:
    ours = {action for path in WORKFLOWS for action in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    assert set(re.findall(r"uses: (.*)", text)) <= ours
    variables = dict(re.findall(r"^      ([A-Z]+): (.*)$", text, re.MULTILINE))
    lines = re.findall(r"(?:run:|^) +harness (.*?)(?: \|\| .*| > .*)?$", text, re.MULTILINE)
    assert lines
    for line in lines:
        written = re.sub(r"\$([A-Z]+)", lambda found: variables[found[1]], line)
        assert parse(shlex.split(written)).command.name
