"""The target of Squidie: shipped, complete, and marked as not run here."""

from __future__ import annotations

import msgspec

from harness import config
from harness.job_engines.target_file import JobEngineFile
from harness.places import PACKAGE

FILE = config.load(PACKAGE / "job_engines" / "targets" / "squidie.toml", JobEngineFile)


def test_it_says_why_it_does_not_run_here() -> None:
    assert "Elixir" in FILE.not_run
    assert FILE.packages.programs == ("mix",)


def test_every_command_calls_the_same_program_in_the_folder_of_the_application() -> None:
    commands = {name: words for name, words in msgspec.structs.asdict(FILE.commands).items() if words}
    assert {"install", "enqueue", "work", "fork", "children"} <= set(commands)
    for name, (shell, option, script, *_) in commands.items():
        assert (shell, option) == ("sh", "-c")
        assert script.startswith(f'cd "$SQUIDIE_HOST" && exec mix run priv/harness.exs {name}')
