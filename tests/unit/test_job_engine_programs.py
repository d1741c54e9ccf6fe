"""The programs beside the targets of job engines: they have the commands that their target files name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from harness.job_engines.loading import JobEngine, load, shipped

ROOM = Path(__file__).parents[2] / "harness" / "job_engines"
SAMPLES = tuple(load(path) for path in sorted((ROOM / "samples").glob("*.toml")))
#: how a program defines a command, by the end of its name
DEFINED = {".cjs": r"(?m)^  (?:async )?{}(?:\(|: )", ".sh": r"(?m)^{}\(\) {{"}
ENGINES = [
    engine
    for engine in (*shipped(), *SAMPLES)
    if engine.file.commands.work[1:] and Path(engine.file.commands.work[1]).suffix in DEFINED
]


def _named(engine: JobEngine) -> list[tuple[str, tuple[str, ...]]]:
    """Return the commands of a target that are not empty, by their key."""
    return [(key, words) for key, words in msgspec.structs.asdict(engine.file.commands).items() if words]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_each_command_is_a_function_of_the_program(engine: JobEngine) -> None:
    for key, words in _named(engine):
        program = engine.folder / Path(words[1]).name
        assert words[2] == key
        assert re.search(DEFINED[program.suffix].format(key), program.read_text(encoding="utf-8")), (program.name, key)


def test_the_programs_in_node_and_in_shell_are_among_them() -> None:
    assert {engine.name for engine in ENGINES} >= {"graphile-worker", "pg-boss", "sql"}


def test_the_sample_is_a_shell_script_without_mistakes_of_syntax() -> None:
    found = subprocess.run(["sh", "-n", str(ROOM / "samples" / "sql.sh")], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_what_programs_in_node_are_given_is_what_programs_in_python_are_given() -> None:
    given = r"(?m)\b((?:DATABASE|DIRECT)_URL|WORKER|VARIANT|LEASE_S|POLL_S|CONCURRENCY|ATTEMPTS|PAYLOAD)\b"
    node, python = ((ROOM / "kit" / name).read_text(encoding="utf-8") for name in ("effects.cjs", "effects.py"))
    exported = node[node.index("module.exports") :]
    assert set(re.findall(given, exported)) == set(re.findall(given, python))
