"""Rows about secrets: in the files of the tree, and in the patches of its history."""

from __future__ import annotations

import re
import subprocess
import time
from threading import Timer
from typing import IO, TYPE_CHECKING

from harness.gates.rows import GateRow, Place, judged, not_run
from harness.gates.secret_shapes import secrets_in
from harness.gates.tree import glob
from harness.git import git_environment
from harness.preflight.git_access import GitFailure, git_command, git_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.gates.declaration import Secrets
    from harness.gates.tree import Tree

_MEGABYTE = 1_000_000
_LONGEST_LINE = 65_536
_MANY = 50
_TREE_S = 120.0
_COMMIT = b"commit \x01"
_FIX = "revoke it, then remove it; allow a development default: [gates.secrets] defaults"
#: --text, because an attribute such as `-diff` makes git call any file binary
_LOG = (
    "--no-replace-objects", "log", "--all", "--patch", "--cc", "--text", "--unified=0", "--no-color", "--no-ext-diff",
    "--no-textconv", "--no-renames", "--no-show-signature", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/",
    "--format=commit %x01%h",
)  # fmt: skip


def tree_row(tree: Tree, declared: Secrets, stopped: Callable[[], bool]) -> GateRow:
    """Search each file of the tree, within a time limit."""
    allowed = [glob(pattern) for pattern in declared.files]
    found: list[Place] = []
    unread: list[Place] = []
    read = binary = excused = marked = 0
    until = time.monotonic() + _TREE_S
    for name in tree.files:
        if any(pattern.fullmatch(name) for pattern in allowed):
            excused += 1
            continue
        if stopped() or time.monotonic() > until:
            why = "interrupted" if stopped() else f"not read within {_TREE_S:g} s"
            unread.append(Place(name, 0, f"this file and those after it: {why}"))
            break
        path = tree.inside(name)
        if path is None:  # a submodule, or a link that leads out of the repository
            binary += not (tree.root / name).exists()
            continue
        try:
            with path.open("rb") as file:
                if b"\0" in file.read(8192):
                    binary += 1
                    continue
                file.seek(0)
                number = 0
                while line := file.readline(_LONGEST_LINE):
                    number += 1
                    for secret in secrets_in(line, declared.defaults):
                        marked += secret.marked
                        if not secret.marked:
                            found.append(Place(name, number, f"the line contains {secret.shape}"))
                read += 1
        except OSError as error:
            unread.append(Place(name, 0, f"not read: {error.strerror or error}"))
    if not tree.is_complete:
        unread.append(Place(".", 0, f"only the first {len(tree.files):,} files were read"))
    ok = f"{read:,} files read; not read: {binary:,} binary, {excused:,} excused by [gates.secrets]"
    ok += f"; {marked:,} lines are marked as allowed" if marked else ""
    return judged("secrets.tree", broken=found[:_MANY], undecided=unread, ok=ok, fix=_FIX)


def history_row(tree: Tree, declared: Secrets, stopped: Callable[[], bool]) -> GateRow:
    """Search the added lines of all commits of all branches and tags, within limits of time and size."""
    gate = "secrets.history"
    shallow = git_text(tree.root, "rev-parse", "--is-shallow-repository")
    if isinstance(shallow, GitFailure):
        return not_run(gate, f"no history: {shallow.why}", "run it in a clone with git")
    reader = _History(tree, declared, stopped)
    why = reader.read()
    found = [Place(path, line, f"commit {commit}: {shape}") for commit, path, line, shape in reader.found[:_MANY]]
    unread = [Place(".git", 0, why)] if why else []
    if shallow.strip() == "true":
        unread.append(Place(".git", 0, "the clone is shallow, so older commits are not here"))
    binary = f"; not searched: {reader.binary:,} changes of binary files" if reader.binary else ""
    size = f"{reader.bytes / _MEGABYTE:.1f} MB of patches in {reader.commits:,} commits read{binary}"
    fix = (
        "raise history_s or history_mb of [gates.secrets], or fetch the whole history" if unread and not found else _FIX
    )
    reason = f"{unread[0].what}; {size}" if unread else ""
    return judged(gate, broken=found, undecided=unread, ok=size, fix=fix, why_undecided=reason)


class _History:
    def __init__(self, tree: Tree, declared: Secrets, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._tree = tree
        self._declared = declared
        self._allowed = [glob(pattern) for pattern in declared.files]
        self.found: list[tuple[str, str, int, str]] = []
        self.bytes = self.binary = 0
        self.commits = 0

    def read(self) -> str:
        """Read the history, and return why it was not read to its end; "" when it was."""
        command = git_command(self._tree.root, "-c", "core.quotePath=false", *_LOG, "--", ".")
        limit_s = self._declared.history_s
        try:
            process = subprocess.Popen(  # noqa: S603 -- fixed arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=git_environment(),
            )
        except OSError as error:
            return f"git cannot be started: {error.strerror}"
        began = time.monotonic()
        timer = Timer(limit_s, process.kill)
        timer.start()
        try:
            stopped = self._read(process.stdout) if process.stdout else ""
            if not stopped:
                code = process.wait()
                if code and time.monotonic() - began >= limit_s:
                    stopped = f"not read to its end within {limit_s:g} s"
                elif code:
                    message = (process.stderr.read(2000) if process.stderr else b"").decode("utf-8", errors="replace")
                    stopped = f"git log failed: {(message.strip().splitlines() or [f'exit code {code}'])[0]}"
        finally:
            timer.cancel()
            process.kill()
            process.communicate()
        return stopped

    def _read(self, source: IO[bytes]) -> str:
        commit, path, line, combined, excused, goes_on = "", "", 0, 0, False, False
        seen: set[tuple[str, str]] = set()
        while data := source.readline(_LONGEST_LINE):
            self.bytes += 0 if excused else len(data)
            if self._stopped():
                return "interrupted"
            if self.bytes > self._declared.history_mb * _MEGABYTE:
                return f"not read beyond {self._declared.history_mb} MB"
            continued, goes_on = goes_on, not data.endswith(b"\n")
            if not continued:
                if data.startswith(_COMMIT):
                    commit, path, self.commits = data[len(_COMMIT) :].decode().strip(), "", self.commits + 1
                    continue
                if data.startswith(b"diff --"):
                    combined = 2 if data.startswith((b"diff --cc", b"diff --combined")) else 1
                    path, line, excused = "", 0, False
                    continue
                if data.startswith(b"+++ ") and not path:
                    path = _path(data)
                    excused = any(pattern.fullmatch(path) for pattern in self._allowed)
                    continue
                if data.startswith(b"@@") and (match := re.match(rb"@@+ .*?\+(\d+)", data)):
                    line = int(match[1]) - 1
                    continue
            if path and not excused and b"\0" in data:
                excused, self.binary = True, self.binary + 1
            mark = data[:combined]
            if not path or excused or (not continued and b"+" not in mark):
                continue
            line += not continued
            for secret in secrets_in(data if continued else data[combined:], self._declared.defaults):
                if not secret.marked and (path, secret.shape) not in seen:
                    seen.add((path, secret.shape))
                    self.found.append((commit, path, line, secret.shape))
        return ""


def _path(data: bytes) -> str:
    name = data[4:].decode("utf-8", errors="replace").rstrip("\n\t")
    return name.removeprefix("b/") if name != "/dev/null" else ""


def secret_rows(tree: Tree, declared: Secrets, stopped: Callable[[], bool]) -> Sequence[GateRow]:
    return tree_row(tree, declared, stopped), history_row(tree, declared, stopped)
