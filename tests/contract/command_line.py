"""The harness as a user starts it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from harness import places

if TYPE_CHECKING:
    from pathlib import Path


def harness(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(places.SHIPPED), "NO_COLOR": "1", **extra}
