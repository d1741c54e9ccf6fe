"""The harness as a user starts it: a process of its own.

A hang is a process that says nothing for longer than any check may take. How long it takes as a whole depends on the
machine, and is not limited.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from threading import Thread
from typing import IO, TYPE_CHECKING

import pytest

from harness import places
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from pathlib import Path

#: a check is given up after 90 s, and says so
_SILENCE_S = 200.0
#: the harness bounds what it waits for, so no test of it takes an hour on any machine
_NO_TEST_S = 3600.0


def harness(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with more environment variables, and return how it ended."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended(process)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait until a process has ended, as long as it makes progress.

    :raises pytest.fail.Exception: with all of its output, when it is silent for too long.
    """
    output: dict[str, list[str]] = {"stdout": [], "stderr": []}
    heard_at = [time.monotonic()]

    def read(stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line)
                heard_at[0] = time.monotonic()

    readers = [
        Thread(target=read, args=(stream, output[name]), daemon=True)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        if stream
    ]
    for reader in readers:
        reader.start()

    def done() -> None:
        if process.poll() is None:
            if time.monotonic() - heard_at[0] > _SILENCE_S:
                process.kill()
                pytest.fail(f"no line for {_SILENCE_S:g} s:\n{''.join(output['stdout'] + output['stderr'])}")
            raise NotYet("it runs")

    poll(done, what="the command to end", deadline_s=_NO_TEST_S, interval_s=0.01)
    for reader in readers:
        reader.join()
    stdout, stderr = ("".join(output[name]) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(places.SHIPPED), "NO_COLOR": "1"} | extra
