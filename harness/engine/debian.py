"""A bare Debian system, made with debootstrap if no registry serves an image of Debian.

It is made in a folder of the cache. A file in that folder names the owner, so that `harness reap` can remove the
leftovers of a killed build.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.engine.build_failures import build_failure, wait_for
from harness.engine.made_once import named_by
from harness.engine.owner import Owner
from harness.engine.processes import pids
from harness.errors import ImageUnavailableError, TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

#: apt's default; HARNESS_DEBIAN_MIRROR overrides it
_MIRROR = "http://deb.debian.org/debian"

#: Written before the first package is unpacked. dpkg does not need fsync, because an incomplete image is discarded.
#: Manuals are left out. The configuration of Debian's slim images is similar.
_CONFIGURATION = {
    "etc/dpkg/dpkg.cfg.d/pooler-harness": (
        "force-unsafe-io\n"
        "path-exclude=/usr/share/doc/*\n"
        "path-exclude=/usr/share/info/*\n"
        "path-exclude=/usr/share/locale/*\n"
        "path-exclude=/usr/share/man/*\n"
    ),
    # the index of a suite that is not released yet expires after a week, and a mirror may be frozen at an older date
    "etc/apt/apt.conf.d/pooler-harness": 'Acquire::Languages "none";\nAcquire::Check-Valid-Until "false";\n',
}
#: left out of the archive, because debootstrap unpacks the essential packages without dpkg's configuration
_LEFT_OUT = (
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/apt/*",
    "./var/cache/debconf/*-old",
    "./var/lib/apt/lists/*",
    "./var/lib/dpkg/*-old",
    "./var/log/*",
    "./proc/*",
    "./sys/*",
)
_CHUNK = 1 << 20
#: an environment variable with the build's id, inherited by debootstrap and all its child processes
_MARK = "POOLER_HARNESS_BUILD"
_END_S = 10.0
#: a folder gets its owner at once; it is left over when it has none after this time
_NAMED_WITHIN_S = 600.0


def fingerprint() -> str:
    """Return a hash of the configuration of a bare system; the suite is not part of it."""
    return named_by(json.dumps([_CONFIGURATION, _LEFT_OUT]))


@contextlib.contextmanager
def bare_system(
    suite: str, owner: Owner, cancelled: Event, slot: contextlib.AbstractContextManager[None]
) -> Iterator[Path]:
    """Make a bare Debian system and yield its root folder; the folder is removed at the end.

    :param suite: the code name of a Debian release, such as `trixie`.
    :param owner: the process that owns the folder.
    :param cancelled: cancels debootstrap when set.
    :param slot: a build slot, held while debootstrap runs.
    :raises ImageUnavailableError: when debootstrap is missing, needs root or fails.
    """
    debootstrap = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if debootstrap is None or os.geteuid() != 0:
        reason = "debootstrap is not installed" if debootstrap is None else "debootstrap needs root"
        raise ImageUnavailableError(
            f"the image of Debian {suite} is missing and cannot be built: {reason}",
            hint=f"docker pull debian:{suite}-slim, or docker load < images.tar, or apt-get install debootstrap and "
            "run the command as root, or use --engine native",
        )
    folder = _builds() / f"{suite}-{owner.run_id}"
    try:
        try:
            folder.mkdir()
            (folder / "owner.json").write_bytes(msgspec.json.encode(owner))
            root = folder / "root"
            for name, text in _CONFIGURATION.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
                path.chmod(0o644)
            for path in (root, *root.rglob("*/")):
                path.chmod(0o755)  # regardless of this process's umask
        except OSError as error:
            reason = str(error)
            raise build_failure(f"Debian {suite} cannot be made in {folder}", reason, otherwise=reason) from None
        with slot:
            _debootstrap(debootstrap, suite, folder, owner, cancelled)
        yield root
    finally:
        remove(folder)


def archive(root: Path) -> Iterator[bytes]:
    """Yield the tar archive of a system in pieces, without caches, logs and manuals.

    :raises ImageUnavailableError: when tar fails.
    """
    command = ["tar", "--numeric-owner", "--anchored", *(f"--exclude={pattern}" for pattern in _LEFT_OUT)]
    with subprocess.Popen(  # noqa: S603
        [*command, "-C", str(root), "-cf", "-", "."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise AssertionError("both are pipes")
        try:
            while chunk := process.stdout.read(_CHUNK):
                yield chunk
        except GeneratorExit:
            process.kill()
            raise
        errors = process.stderr.read().decode(errors="replace")
    if process.returncode != 0:
        raise build_failure(f"the archive of {root} could not be written", errors)


def reap() -> list[str]:
    """End debootstraps and remove systems whose owner on this host is gone; return a description of each."""
    removed = []
    for folder in sorted(_builds().iterdir()):
        try:
            owner = msgspec.json.decode((folder / "owner.json").read_bytes(), type=Owner)
        except (OSError, msgspec.MsgspecError):
            if _was_never_used(folder) and remove(folder):
                removed.append(f"folder {folder}")
            continue
        if not owner.is_gone():
            continue
        if ended := _end_programs(owner):
            removed.append(f"{len(ended)} processes of debootstrap in {folder}")
        if remove(folder):
            removed.append(f"folder {folder}")
    return removed


def _was_never_used(folder: Path) -> bool:
    """Return whether a build was killed before it named the owner of its folder, some time ago."""
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _NAMED_WITHIN_S and {path.name for path in folder.iterdir()} <= {
            "owner.json"
        }
    return False


def remove(folder: Path) -> bool:
    """Unmount every mount below a folder and remove the folder; return whether it is gone."""
    for mount in reversed(_mounts_below(folder)):
        subprocess.run(  # noqa: S603
            ["umount", "--lazy", str(mount)],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    if _mounts_below(folder):  # a removal would reach into the mount, which may be this machine's /proc or /dev
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _debootstrap(program: str, suite: str, folder: Path, owner: Owner, cancelled: Event) -> None:
    mirror = os.environ.get("HARNESS_DEBIAN_MIRROR", _MIRROR)
    root, log = folder / "root", folder / "printed"
    scripts = Path(os.environ.get("DEBOOTSTRAP_DIR", "/usr/share/debootstrap")) / "scripts"
    # an old debootstrap has no script for a newer suite; the script of sid works for every newer suite
    script = ["sid"] if (scripts / "sid").exists() and not (scripts / suite).exists() else []
    included = ["--include=ca-certificates"] if mirror.startswith("https:") else []  # for apt in the image
    with log.open("wb") as printed:
        # a new session: Ctrl-C at the terminal reaches the harness only, which then ends debootstrap
        process = subprocess.Popen(  # noqa: S603 -- the suite comes from a recipe of this project
            [program, "--variant=minbase", *included, suite, str(root), mirror, *script],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C", _MARK: owner.run_id},
            start_new_session=True,
        )
    try:

        def ended() -> int:
            if (code := process.poll()) is None:
                raise NotYet("debootstrap is running")
            return code

        code = wait_for(ended, what=f"the build of Debian {suite}", cancelled=cancelled)
    finally:
        if process.poll() is None:
            _end_programs(owner)
            process.wait()
    if code != 0:
        output = "".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in (root / "debootstrap/debootstrap.log", log)
            if path.is_file()
        )
        errors = (line[3:] for line in reversed(output.splitlines()) if line.startswith("E: "))
        reason = next(errors, f"exit code {code}")
        raise build_failure(f"debootstrap could not make Debian {suite} from {mirror}", output, otherwise=reason)


def _end_programs(owner: Owner) -> set[int]:
    """End debootstrap and all its child processes, and return their pids.

    New processes may appear while the list is read, so the list is read until it is empty.
    """
    mark = f"{_MARK}={owner.run_id}".encode()
    ended: set[int] = set()

    def gone() -> None:
        left = set()
        for pid in pids():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    left.add(pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(left)
        if left:
            raise NotYet(f"processes {sorted(left)}")

    with contextlib.suppress(TimedOutError):
        poll(gone, what="debootstrap to end", deadline_s=_END_S)
    return ended


def _mounts_below(folder: Path) -> list[Path]:
    """Return the mount points below a folder, in the order in which they were mounted.

    Source: proc(5), field 5 of /proc/self/mountinfo, where a space is written as an octal escape.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    points = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split()[4]) for line in lines)
    return [Path(point) for point in points if Path(point).is_relative_to(folder.resolve())]


def _builds() -> Path:
    folder = places.cache() / "builds"
    folder.mkdir(exist_ok=True)
    return folder
