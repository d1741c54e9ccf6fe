"""Files of the store: written completely or not at all, and read only when they are regular and of a sane size."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from typing import IO, TYPE_CHECKING

from harness.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK_BYTES = 1 << 20


#: where evidence may be written instead
_REPORTS = "another folder with --reports DIR"


def write_atomically(path: Path, text: str, *, instead: str = _REPORTS) -> None:
    """Write a file so that a reader sees either the old text or the new one, and never a part.

    :param instead: what the user can name in its place.
    :raises StoreError: when the folder is not writable, or the disk is full.
    """
    if not path.name:
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), instead)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error, instead) from None


def write_together(folder: Path, files: Iterable[tuple[str, Iterable[str]]]) -> list[Path]:
    """Write files into a folder, and replace the old ones once all new ones are complete.

    :param files: the name of each file, and its text in pieces, so that no whole text has to be in memory.
    :return: the paths of the files.
    :raises StoreError: when the folder is not writable, or the disk is full; all old files are unchanged then.
    """
    suffix = f"{os.getpid()}.{secrets.token_hex(3)}"
    written: dict[Path, Path] = {}
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, pieces in files:
            path = folder / name
            written[path] = folder / f".{name}.{suffix}"
            with written[path].open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(pieces)
        for path, temporary in written.items():
            temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return list(written)


#: the rendered files have about 3 MiB, and each is written a second time before it replaces the old one
LEAST_FREE = 8 * 2**20


def require_writable(reports: Path) -> None:
    """Check that evidence can be written, before any server starts.

    :raises StoreError: when the folder is not writable, or the disk is almost full.
    """
    probe = reports / "runs" / f".probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir(parents=True)
        disk = shutil.disk_usage(probe)
        if disk.total > 0 and disk.free < LEAST_FREE:  # some network file systems report no sizes
            raise StoreError(
                f"the disk is almost full: {disk.free // 1024} KiB are free, and a run with its report needs "
                f"{LEAST_FREE // 2**20} MiB",
                where=str(reports),
                hint="free some space, or name another folder with --reports DIR",
            )
        (probe / "byte").write_bytes(b"x" * 65536)
    except OSError as error:
        raise cannot_write(reports, error) from None
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def cannot_write(path: Path, error: OSError, instead: str = _REPORTS) -> StoreError:
    """Return the error for evidence that the system does not let us write."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StoreError(
        f"the evidence cannot be written: {error.strerror or error}",
        where=str(path),
        hint=f"{'free some space, or ' if full else ''}name {instead}",
    )


@contextlib.contextmanager
def regular_file(path: Path, largest: int) -> Iterator[IO[bytes]]:
    """Open a regular file for reading. A FIFO, a device or a folder is an error, and never blocks.

    :param largest: the most bytes that the file may have.
    :raises StoreError: for another type of file, and for one that is larger.
    :raises FileNotFoundError: when there is none.
    :raises OSError: when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) or seen.st_size > largest:
        os.close(descriptor)
        if stat.S_ISREG(seen.st_mode):
            what = f"the file is larger than {largest >> 20} MB, the largest size that is read"
        else:
            what = "found another type of file, expected a regular file"
        raise StoreError(what, where=str(path))
    with os.fdopen(descriptor, "rb", _CHUNK_BYTES) as file:
        yield file


def sha256_of(path: Path) -> str:
    """Return the digest of a regular file, in hex; "" for another type of file, or one that cannot be read."""
    digest = hashlib.sha256()
    try:
        with regular_file(path, 1 << 50) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except (OSError, StoreError):
        return ""
    return digest.hexdigest()
