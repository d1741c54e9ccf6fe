"""Scratch folders: working directories of job engines, and files of a run, removed also after a killed run."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.owner import Owner, this_host

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "pooler-harness-jobs-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Return an empty folder, which is removed at the end. Its name says which process it belongs to."""
    me = Owner.me("")
    prefix = f"{_PREFIX}{_this_host()}-{me.pid}-{me.started}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def reap_scratch_folders() -> list[str]:
    """Remove the folders of processes of this host that are gone; return one line for each folder."""
    removed = []
    start = f"{_PREFIX}{_this_host()}-"
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{start}*")):
        pid, started, *_ = (*folder.name.removeprefix(start).split("-"), "", "")
        if not (pid.isdecimal() and started.isdecimal()) or folder.is_symlink():
            continue
        if Owner(run_id="", host=this_host(), pid=int(pid), started=int(started)).is_gone():
            with contextlib.suppress(OSError):  # of another user
                shutil.rmtree(folder)
                removed.append(f"scratch folder {folder}")
    return removed


def _this_host() -> str:
    """Return a short name for the host and the pid namespace in which a pid is unique."""
    return hashlib.sha256(this_host().encode()).hexdigest()[:8]
