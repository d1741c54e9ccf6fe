"""A bare Debian system, made with debootstrap where no registry answers.

It is made in a folder of the cache that names its owner, so that `harness reap` can remove what a killed build left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.engine.build_failures import failure, wait_for
from harness.engine.owner import Owner
from harness.errors import ImageUnavailableError, TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

#: apt's own default; HARNESS_DEBIAN_MIRROR names another
_MIRROR = "http://deb.debian.org/debian"

#: Written before the first package is unpacked. An image is complete or it is thrown away, so dpkg need not fsync;
#: nobody reads manuals in it. Debian's own slim images are configured alike.
_CONFIGURATION = {
    "etc/dpkg/dpkg.cfg.d/pooler-harness": (
        "force-unsafe-io\n"
        "path-exclude=/usr/share/doc/*\n"
        "path-exclude=/usr/share/info/*\n"
        "path-exclude=/usr/share/locale/*\n"
        "path-exclude=/usr/share/man/*\n"
    ),
    "etc/apt/apt.conf.d/pooler-harness": 'Acquire::Languages "none";\n',
}
#: debootstrap unpacks the essential packages itself, without dpkg's configuration
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
#: in the environment of debootstrap and of all that it starts, with the id of the build
_MARK = "POOLER_HARNESS_BUILD"
_END_S = 10.0


def fingerprint() -> str:
    """Return a hash of what a bare system is made of, other than its suite."""
    made_of = json.dumps([_CONFIGURATION, _LEFT_OUT])
    return hashlib.sha256(made_of.encode()).hexdigest()[:12]


@contextlib.contextmanager
def bare_system(
    suite: str, owner: Owner, cancelled: Event, slot: contextlib.AbstractContextManager[None]
) -> Iterator[Path]:
    """Make a bare Debian system and yield its root folder, which is removed at the end.

    :param suite: Debian's code name of a release, such as `trixie`.
    :param owner: the process that the folder belongs to.
    :param cancelled: ends the work early when set.
    :param slot: held while debootstrap runs.
    :raises ImageUnavailableError: when debootstrap cannot run or fails.
    """
    debootstrap = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if debootstrap is None or os.geteuid() != 0:
        missing = "debootstrap is not installed" if debootstrap is None else "debootstrap needs root"
        raise ImageUnavailableError(
            f"no image of Debian {suite} is here and none can be made: {missing}",
            hint="apt-get install debootstrap and run as root, or load images: docker load < images.tar",
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
                path.chmod(0o755)  # whatever this process's umask is
        except OSError as error:
            raise failure(f"no Debian {suite} can be made in {folder}", str(error), otherwise=str(error)) from None
        with slot:
            _debootstrap(debootstrap, suite, folder, owner, cancelled)
        yield root
    finally:
        remove(folder)


def archive(root: Path) -> Iterator[bytes]:
    """Yield the tar archive of a system, without what no image needs.

    :raises ImageUnavailableError: when the system cannot be read to its end.
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
        printed = process.stderr.read().decode(errors="replace")
    if process.returncode != 0:
        raise failure(f"the archive of {root} could not be written", printed)


def reap() -> list[str]:
    """Remove systems whose owner on this host is gone, end their debootstrap, and return what was removed."""
    removed = []
    for folder in sorted(_builds().iterdir()):
        try:
            owner = msgspec.json.decode((folder / "owner.json").read_bytes(), type=Owner)
        except (OSError, msgspec.MsgspecError):
            continue
        if not owner.is_gone():
            continue
        if ended := _end_programs(owner):
            removed.append(f"{len(ended)} processes of debootstrap in {folder}")
        if remove(folder):
            removed.append(f"folder {folder}")
    return removed


def remove(folder: Path) -> bool:
    """Unmount what is mounted below a folder, remove it, and return whether it is gone."""
    for mount in reversed(_mounts_below(folder)):
        subprocess.run(  # noqa: S603
            ["umount", "--lazy", str(mount)],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    if _mounts_below(folder):  # it may be this machine's own /proc or /dev
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _debootstrap(program: str, suite: str, folder: Path, owner: Owner, cancelled: Event) -> None:
    mirror = os.environ.get("HARNESS_DEBIAN_MIRROR", _MIRROR)
    root, log = folder / "root", folder / "printed"
    scripts = Path(os.environ.get("DEBOOTSTRAP_DIR", "/usr/share/debootstrap")) / "scripts"
    # a debootstrap that is older than the suite has no script of that name; every later suite is made like sid
    script = ["sid"] if (scripts / "sid").exists() and not (scripts / suite).exists() else []
    included = ["--include=ca-certificates"] if mirror.startswith("https:") else []  # apt in the image needs them, too
    with log.open("wb") as printed:
        # a session of its own: Ctrl-C at the terminal is for the harness, which then ends it
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
                raise NotYet("it runs")
            return code

        code = wait_for(ended, what=f"the build of Debian {suite}", cancelled=cancelled)
    finally:
        if process.poll() is None:
            _end_programs(owner)
            process.wait()
    if code != 0:
        said = "".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in (root / "debootstrap/debootstrap.log", log)
            if path.is_file()
        )
        reason = next((line[3:] for line in reversed(said.splitlines()) if line.startswith("E: ")), f"exit code {code}")
        raise failure(f"debootstrap could not make Debian {suite} from {mirror}", said, otherwise=reason)


def _end_programs(owner: Owner) -> set[int]:
    """End debootstrap and all that it started, and return their pids.

    A shell forks while its processes are being listed, so they are listed until none is left.
    """
    mark = f"{_MARK}={owner.run_id}".encode()
    ended: set[int] = set()

    def gone() -> None:
        left = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    left.add(int(path.parent.name))
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
