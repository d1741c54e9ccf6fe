"""Stand-ins for programs: each leaves its name in a list, and exits with 1. What passes with them exercises nothing."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

#: what a script needs to run at all, and what compares outputs: they stay as they are
_KEPT = (
    *("bash", "sh", "dash", "zsh", "env", "dirname", "basename", "cat", "echo", "printf", "test", "[", "true", "false"),
    *("grep", "egrep", "fgrep", "sed", "awk", "gawk", "mawk", "head", "tail", "sort", "uniq", "tr", "cut", "wc", "seq"),
    *("expr", "date", "id", "uname", "hostname", "pwd", "readlink", "realpath", "mktemp", "mkdir", "touch", "timeout"),
    *("xargs", "nohup", "time", "nice", "stdbuf", "tee", "ls", "find", "stat", "which", "diff", "cmp", "make", "gmake"),
    "git",
)
#: what changes files, waits or decorates: they do nothing, and succeed
_IDLE = ("sleep", "rm", "mv", "cp", "ln", "chmod", "chown", "kill", "pkill", "killall", "tput", "clear", "stty", "sync")
_MOST = 2_000


class StandIns(Struct, frozen=True):
    """A folder with stand-ins, for PATH, and the list that they write."""

    folder: Path
    log: Path

    @property
    def called(self) -> list[str]:
        """The programs that were called, in order, each once."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return list(dict.fromkeys(Path(line).name for line in text.splitlines()))

    @property
    def script(self) -> str:
        """A script that leaves its name, and fails."""
        return f'#!/bin/sh\nprintf "%s\\n" "$0" >> {shlex.quote(str(self.log))}\nexit 1\n'


def stand_in(scratch: Path, names: Iterable[str]) -> StandIns:
    """Return stand-ins for some programs; PATH has to name their folder first."""
    made = StandIns(scratch / "programs", scratch / "called")
    made.folder.mkdir()
    failing = scratch / "failing"
    failing.write_text(made.script)
    failing.chmod(0o755)
    for name in names:
        (made.folder / name).symlink_to(failing)
    return made


def stand_in_for_all(scratch: Path, names: Iterable[str]) -> StandIns:
    """Return stand-ins for all programs; PATH has to be their folder. Only what a script needs to run at all is left.

    :param names: programs that get a stand-in, whether they are installed or not. Every other program is missing.
    """
    made = stand_in(scratch, sorted({*names} - {*_KEPT, *_IDLE})[:_MOST])
    for name in _KEPT:
        if program := shutil.which(name):
            (made.folder / name).symlink_to(Path(program).resolve() if name != "env" else program)
    succeeding = scratch / "succeeding"
    succeeding.write_text("#!/bin/sh\nexit 0\n")
    succeeding.chmod(0o755)
    for name in _IDLE:
        (made.folder / name).symlink_to(succeeding)
    return made
