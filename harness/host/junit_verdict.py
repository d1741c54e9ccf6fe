"""Reads the JUnit XML of a test suite as evidence: it counts the cases, and does not rely on declared totals.

pytest, mix's formatters, gotestsum, surefire and jest share little more than the names of the elements: the root is
`testsuites` or `testsuite`, suites may be nested, and totals may be missing or wrong. A document type is rejected, and
with it all entities: a file can neither make the parser fetch something nor exhaust its memory.
"""

from __future__ import annotations

import stat
from pathlib import PurePath
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness.errors import ConfigError
from harness.host.junit_elements import MOST_FAILED_NAMES, Counted, ElementReader, named
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

LARGEST_BYTES = 50 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
#: a file's modification time comes from the kernel's tick, which may be slightly behind the clock of the writer
_TICK_S = 0.01
_EXAMPLE = "for example reports/**/*.xml"


class SuiteVerdict(Struct, frozen=True, kw_only=True):
    """The status of a test suite, and the reason, in one sentence."""

    status: Status
    reason: str


class JUnitResult(Counted, frozen=True, kw_only=True):
    """The counted cases of one file, or of several files together."""

    @property
    def verdict(self) -> SuiteVerdict:
        """Judge the counts: a suite in which no test passed is Not run, never OK.

        A test that passed only on a retry failed here before, so it is an Issue.
        """
        if reason := self._against_it or self._retried:
            return SuiteVerdict(status=Status.ISSUE, reason=reason)
        others = [f"{self.skipped} skipped"] if self.skipped else []
        others += [f"{self.warned} with a warning in place of a result"] if self.warned else []
        if self.passed:
            return SuiteVerdict(status=Status.OK, reason=", ".join((f"{self.passed} tests passed", *others)))
        if not self.tests:
            return SuiteVerdict(status=Status.NOT_RUN, reason="the file contains no test")
        if self.skipped == self.tests:
            return SuiteVerdict(status=Status.NOT_RUN, reason=f"all tests were skipped ({self.tests})")
        return SuiteVerdict(status=Status.NOT_RUN, reason=f"no test passed: {', '.join(others)}")

    @property
    def only_retried(self) -> bool:
        """Whether nothing but a retry speaks against the suite."""
        return bool(self.retried) and not self._against_it

    @property
    def _against_it(self) -> str:
        """What speaks against the suite, in one sentence; "" for nothing."""
        if bad := self.failures + self.errors:
            return f"{bad} of {self.tests} tests failed: {named(self.failed, bad)}"
        if self.unlisted_failures:
            return f"a suite declares {self.unlisted_failures} failures that none of its cases shows"
        return f"inconsistent counts: {self.inconsistency}" if self.inconsistency and self.tests else ""

    @property
    def _retried(self) -> str:
        if not self.retried:
            return ""
        return f"{self.retried} of {self.tests} tests passed only on a retry: {named(self.retried_names, self.retried)}"

    @property
    def passed(self) -> int:
        """The number of cases with a result that is neither bad nor missing."""
        return self.tests - self.failures - self.errors - self.skipped - self.warned


def read_junit(path: Path) -> JUnitResult:
    """Read one file.

    :raises ConfigError: with file and line, when the file cannot be read, is larger than 50 MB, is not complete XML,
        declares a document type, or has another root element.
    """
    _require_readable(path)
    reader = ElementReader(str(path))
    try:
        with path.open("rb") as file:
            read, size = 0, _CHUNK_BYTES
            while chunk := file.read(size):
                read += len(chunk)
                if read > LARGEST_BYTES:  # the file may have grown since its size was checked
                    raise _too_large(path)
                # the parser begins a long tag or comment anew with each chunk, so chunks grow until it ends
                size = _CHUNK_BYTES if reader.feed(chunk) else 2 * size
            reader.end()
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    return JUnitResult(**msgspec.structs.asdict(reader.counted()))


def add_up(results: Iterable[JUnitResult]) -> JUnitResult:
    """Return the sum of several results; surefire, for example, writes one file for each class."""
    results = tuple(results)
    return JUnitResult(
        tests=sum(result.tests for result in results),
        failures=sum(result.failures for result in results),
        errors=sum(result.errors for result in results),
        skipped=sum(result.skipped for result in results),
        warned=sum(result.warned for result in results),
        retried=sum(result.retried for result in results),
        retried_names=tuple(name for result in results for name in result.retried_names)[:MOST_FAILED_NAMES],
        failed=tuple(name for result in results for name in result.failed)[:MOST_FAILED_NAMES],
        without_right=sum(result.without_right for result in results),
        missing_right=next((result.missing_right for result in results if result.missing_right), ""),
        seconds=sum(result.seconds for result in results),
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        unlisted_failures=sum(result.unlisted_failures for result in results),
        inconsistency=next((result.inconsistency for result in results if result.inconsistency), ""),
    )


def require_patterns(patterns: Iterable[str]) -> None:
    """Reject glob patterns that cannot match below a folder, before a command runs.

    :raises ConfigError: for a pattern that is absolute, empty, or leaves the folder.
    """
    for pattern in patterns:
        if not pattern.strip() or PurePath(pattern).is_absolute() or ".." in pattern.replace("\\", "/").split("/"):
            raise ConfigError(
                f"invalid file pattern {pattern!r}, expected a glob below the command's folder", hint=_EXAMPLE
            )


def find_junit(patterns: Sequence[str], root: Path, since: float) -> list[Path]:
    """Return the files below a folder that match a glob and were written since a point in time.

    Files of an earlier run are left out, as are links to files outside of the folder.

    :param since: seconds since the epoch.
    :raises ConfigError: for a pattern that is absolute, empty, or leaves the folder.
    """
    require_patterns(patterns)
    top = root.resolve()
    found = {path for pattern in patterns for path in _matching(pattern, root)}
    return sorted(path for path in found if _written_since(path, since - _TICK_S) and _is_inside(top, path))


def _matching(pattern: str, root: Path) -> Iterator[Path]:
    try:
        yield from root.glob(pattern)
    except ValueError as error:
        raise ConfigError(f"invalid file pattern {pattern!r}: {error}", where=str(root), hint=_EXAMPLE) from None


def _is_inside(top: Path, path: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(top)
    except (OSError, RuntimeError):  # links in a circle
        return False


def _written_since(path: Path, since: float) -> bool:
    try:
        seen = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_mtime >= since


def _require_readable(path: Path) -> None:
    try:
        seen = path.stat()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        hint = "run the tests that write it"
        raise ConfigError(f"the file cannot be read: {why}", where=str(path), hint=hint) from None
    if not stat.S_ISREG(seen.st_mode):
        raise ConfigError("found another type of file, expected a regular file", where=str(path))
    if seen.st_size > LARGEST_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> ConfigError:
    return ConfigError(
        f"the file is larger than {LARGEST_BYTES // 1024 // 1024} MB, the largest size that is read",
        where=str(path),
        hint="configure the test runner to leave the tests' output out of the file",
    )
