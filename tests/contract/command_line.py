"""Runs the harness as a user does: as a separate process, or in this one where the process is not what is tested.

A process hangs when it prints nothing new for longer than the time limit of a check: the line of progress, which it
prints every ten seconds, is new when its counts are. Its total time depends on the machine and has no limit.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from threading import Thread
from typing import IO, TYPE_CHECKING

import pytest

from harness import places
from harness.cli.main import main
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from pathlib import Path

#: more than the 90 s after which a check is stopped and reported
_SILENCE_S = 200.0
#: what changes in a line of progress although nothing happens
_TIMES = re.compile(r"[\d:]+ elapsed|about [\d.]+ \w+ left")
#: upper bound for a test on any machine: the harness has a deadline for everything that it waits for
_NO_TEST_S = 3600.0


def harness(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the harness in a folder and return its exit code and output.

    :param extra: additional environment variables.
    """
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


def harness_here(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the harness in this process, with the folder, environment and output of :func:`harness`.

    A process of its own costs more than most commands. Use :func:`harness` where the process counts: for signals, for
    crashes, and for errors of the Docker SDK, which leaves its socket open after them.

    :param extra: additional environment variables.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in environment(**extra).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [str(places.SHIPPED / "harness" / "__main__.py"), *arguments])
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = main(arguments)
    return subprocess.CompletedProcess(command(*arguments), code, stdout.getvalue(), stderr.getvalue())


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process while it makes progress, and return its exit code and output.

    :raises pytest.fail.Exception: with all of its output, when it prints nothing for too long.
    """
    output: dict[str, list[str]] = {"stdout": [], "stderr": []}
    last_line_at = [time.monotonic()]

    def read(stream: IO[str], lines: list[str]) -> None:
        with stream:
            seen = ""
            for line in stream:
                lines.append(line)
                if (text := _TIMES.sub("", line)) != seen:
                    seen, last_line_at[0] = text, time.monotonic()

    readers = [
        Thread(target=read, args=(stream, output[name]), daemon=True)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        if stream
    ]
    for reader in readers:
        reader.start()

    def done() -> None:
        if process.poll() is None:
            if time.monotonic() - last_line_at[0] > _SILENCE_S:
                process.kill()
                pytest.fail(f"no new line for {_SILENCE_S:g} s:\n{''.join(output['stdout'] + output['stderr'])}")
            raise NotYet("still running")

    poll(done, what="the command to end", deadline_s=_NO_TEST_S, interval_s=0.01)
    for reader in readers:
        reader.join()
    stdout, stderr = ("".join(output[name]) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(places.SHIPPED), "NO_COLOR": "1"} | extra
