"""JUnit XML that a host's own tests wrote, read as evidence: the cases are counted, not believed.

pytest, mix's formatters, gotestsum, surefire and jest agree on little more than the names of the elements: the root is
`testsuites` or `testsuite`, suites may hold suites, and counts may be missing or wrong. A document type is refused,
and with it every entity and everything that a file could make the parser fetch or blow up.
"""

from __future__ import annotations

import stat
from pathlib import PurePath
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness.errors import ConfigError
from harness.host.junit_elements import MOST_FAILED_NAMES, Counted, ElementReader
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

LARGEST_BYTES = 50 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
#: a file's time comes from the kernel's tick, which may lie a little before the clock that its writer read
_TICK_S = 0.01


class SuiteVerdict(Struct, frozen=True, kw_only=True):
    """What the tests of a file come to, and why, in one sentence."""

    status: Status
    reason: str


class JUnitResult(Counted, frozen=True, kw_only=True):
    """What the cases of one file say, or of several together."""

    @property
    def verdict(self) -> SuiteVerdict:
        """Judge the counts: nothing, or nothing but skips, is Not run and never a pass."""
        bad = self.failures + self.errors
        if bad:
            more = f", and {bad - len(self.failed)} more" if bad > len(self.failed) else ""
            reason = f"{bad} of {self.tests} tests failed: {', '.join(self.failed)}{more}"
            return SuiteVerdict(status=Status.ISSUE, reason=reason)
        if self.untold:
            reason = f"{self.untold} failures are counted by a suite, and none of its cases shows them"
            return SuiteVerdict(status=Status.ISSUE, reason=reason)
        if not self.tests:
            return SuiteVerdict(status=Status.NOT_RUN, reason="there is no test in it")
        if self.unbelieved:
            return SuiteVerdict(status=Status.ISSUE, reason=f"it cannot be believed: {self.unbelieved}")
        if self.skipped == self.tests:
            return SuiteVerdict(status=Status.NOT_RUN, reason=f"all of its tests were skipped ({self.tests})")
        skips = f", {self.skipped} skipped" if self.skipped else ""
        return SuiteVerdict(status=Status.OK, reason=f"{self.tests - self.skipped} tests passed{skips}")


def read_junit(path: Path) -> JUnitResult:
    """Read one file.

    :raises ConfigError: with file and line, where it cannot be read, is larger than 50 MB, is not complete XML,
        declares a document type, or is XML of another kind.
    """
    _refuse_unreadable(path)
    reader = ElementReader(str(path))
    try:
        with path.open("rb") as file:
            read = 0
            while chunk := file.read(_CHUNK_BYTES):
                read += len(chunk)
                if read > LARGEST_BYTES:  # it may have grown since it was looked at
                    raise _too_large(path)
                reader.feed(chunk)
            reader.end()
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}", where=str(path)) from None
    return JUnitResult(**msgspec.structs.asdict(reader.counted()))


def add_up(results: Iterable[JUnitResult]) -> JUnitResult:
    """Add the results of several files up to one; surefire writes a file for each class."""
    results = tuple(results)
    return JUnitResult(
        tests=sum(each.tests for each in results),
        failures=sum(each.failures for each in results),
        errors=sum(each.errors for each in results),
        skipped=sum(each.skipped for each in results),
        failed=tuple(name for each in results for name in each.failed)[:MOST_FAILED_NAMES],
        seconds=sum(each.seconds for each in results),
        notes=tuple(dict.fromkeys(note for each in results for note in each.notes)),
        untold=sum(each.untold for each in results),
        unbelieved=next((each.unbelieved for each in results if each.unbelieved), ""),
    )


def require_patterns(patterns: Iterable[str]) -> None:
    """Refuse what can match nothing below a folder, before anything is run.

    :raises ConfigError: for a pattern that is absolute, empty, or leaves the folder.
    """
    for each in patterns:
        if not each.strip() or PurePath(each).is_absolute() or ".." in each.replace("\\", "/").split("/"):
            raise ConfigError(
                f"{each!r} is no pattern of files below the command's folder", hint="one such as reports/**/*.xml"
            )


def find_junit(patterns: Sequence[str], root: Path, since: float) -> list[Path]:
    """Return the files below a folder that match a glob and were written since a time, in seconds of the epoch.

    What lies there from an earlier run is left out, and so is what a link leads to outside of the folder.

    :raises ConfigError: for a pattern that is absolute, empty, or leaves the folder.
    """
    require_patterns(patterns)
    top = root.resolve()
    found = {path for pattern in patterns for path in _matching(pattern, root)}
    return sorted(path for path in found if _written_since(path, since - _TICK_S) and _lies_in(top, path))


def _matching(pattern: str, root: Path) -> Iterator[Path]:
    try:
        yield from root.glob(pattern)
    except ValueError as error:
        raise ConfigError(
            f"{pattern!r} is no pattern of files: {error}", where=str(root), hint="one such as reports/**/*.xml"
        ) from None


def _lies_in(top: Path, path: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(top)
    except (OSError, RuntimeError):  # links that lead in a circle
        return False


def _written_since(path: Path, since: float) -> bool:
    try:
        seen = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_mtime >= since


def _refuse_unreadable(path: Path) -> None:
    try:
        seen = path.stat()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"it cannot be read: {why}", where=str(path), hint="run the tests that write it") from None
    if not stat.S_ISREG(seen.st_mode):
        raise ConfigError("it is no regular file, and JUnit XML is read from one", where=str(path))
    if seen.st_size > LARGEST_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> ConfigError:
    return ConfigError(
        f"it is larger than {LARGEST_BYTES // 1024 // 1024} MB, which is as much as is read",
        where=str(path),
        hint="leave the tests' output out of it",
    )
