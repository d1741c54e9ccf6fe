"""Reads the elements of JUnit XML in one pass: nested suites, their cases, and the outcome of each case."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar
from xml.parsers import expat

from msgspec import Struct

from harness.errors import ConfigError
from harness.host.missing_right import lacked_superuser

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_FAILED_NAMES = 10
_DEEPEST = 100
_LONGEST_NAME = 200
#: what is read of the texts of one failed case
_MOST_CHARACTERS = 100_000

#: worst first
_OUTCOMES = ("failures", "errors", "warned", "skipped")
_SUITES = ("testsuites", "testsuite")
_BAD = frozenset({"failure", "error"})
#: outcomes that a case may declare in its attributes `status` or `result`, without an element
_DECLARED_OUTCOMES = {
    "failed": "failures",
    "failure": "failures",
    "fail": "failures",
    "error": "errors",
    "errored": "errors",
    # GoogleTest and others mark a case that was not run in this way
    **dict.fromkeys(("notrun", "disabled", "suppressed", "skipped", "ignored", "pending", "excluded"), "skipped"),
}
#: surefire's elements for the failed attempts of a case that was run again
_RETRIED = ("flakyFailure", "flakyError", "rerunFailure", "rerunError")


class Counted(Struct, frozen=True, kw_only=True):
    """The counted cases. Each case counts once, with its worst outcome."""

    tests: int
    failures: int
    errors: int
    skipped: int
    #: cases with a warning in place of a result, such as PHPUnit's for a class without a test
    warned: int = 0
    #: cases that passed only when they were run again
    retried: int = 0
    #: at most ten of them
    retried_names: tuple[str, ...] = ()
    #: at most ten failed cases, as "Class.test", in the order of the file
    failed: tuple[str, ...]
    #: failed cases whose texts show that a login is not a superuser, and the first line that shows it
    without_right: int = 0
    missing_right: str = ""
    seconds: float
    #: sentences that a reader of the counts should know
    notes: tuple[str, ...] = ()
    #: failures that a suite declares and none of its cases shows
    unlisted_failures: int = 0
    #: describes the first suite that declares more tests than it holds, or a total that is not a number; "" without one
    inconsistency: str = ""


class _Suite:
    """An open `testsuite` or `testsuites`: its declared totals, and the counts of its cases so far."""

    def __init__(self, name: str, declared: dict[str, str]) -> None:
        self.name = name
        self.declared = declared
        self.counts = {"tests": 0, "failures": 0, "errors": 0, "warned": 0, "skipped": 0}
        self.cases_s = 0.0
        self.suites_s = 0.0
        #: outcome of the suite itself, whose setup may fail; "" without one
        self.own: str = ""

    @property
    def seconds(self) -> float:
        """The declared duration, or the sum of its suites and cases."""
        declared = _seconds(self.declared.get("time", ""))
        return self.suites_s + self.cases_s if declared is None else declared


class _Case:
    """An open `testcase`, and its outcomes so far."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.seconds = _seconds(attributes.get("time", "")) or 0.0
        self.retried = False
        self._texts: list[str] = []
        self._left = _MOST_CHARACTERS
        declared = {attributes.get(name, "").strip().lower() for name in ("status", "result")}
        self.outcomes = {outcome for word, outcome in _DECLARED_OUTCOMES.items() if word in declared}

    @property
    def outcome(self) -> str:
        """The worst outcome; "" for a case that passed."""
        return next((outcome for outcome in _OUTCOMES if outcome in self.outcomes), "")

    def say(self, text: str) -> None:
        """Add a part of what the case says about its failure."""
        self._texts.append(text[: self._left])
        self._left -= len(self._texts[-1])

    @property
    def missing_right(self) -> str:
        """The line of its failure that shows a missing right of a superuser; "" without one."""
        return lacked_superuser("".join(self._texts))


class ElementReader:
    """Counts cases in one pass over the XML. Only the open elements are in memory."""

    _OUTCOME_OF: ClassVar = {
        "failure": "failures",
        "error": "errors",
        "warning": "warned",
        "skipped": "skipped",
        "disabled": "skipped",
        "ignored": "skipped",
    }

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: list[str] = []
        self._suites: list[_Suite] = []
        self._case: _Case | None = None
        self._root: _Suite | None = None
        self._failed: list[str] = []
        self._notes: list[str] = []
        self._warned: list[str] = []
        self._retried: list[str] = []
        self._retries = 0
        self._without_right = 0
        self._missing_right = ""
        self._unlisted_failures = 0
        self._inconsistency = ""
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._reject_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.buffer_text = True

    def feed(self, chunk: bytes, *, last: bool = False) -> bool:
        """Parse the next chunk.

        :return: whether the parser went on; it does not before a tag, comment or the like is complete.
        :raises ConfigError: with file and line, for XML that is incomplete or not JUnit XML.
        """
        before = self._parser.CurrentByteIndex
        try:
            self._parser.Parse(chunk, last)
        except expat.ExpatError as error:
            empty = self._parser.CurrentByteIndex <= 0 and not self._open and last
            what = "the file is empty" if empty else f"found incomplete XML: {expat.ErrorString(error.code)}"
            raise self._error(what, line=error.lineno, hint="let the tests run to the end before reading it") from None
        except (LookupError, ValueError) as error:  # an unknown encoding
            raise self._error(f"found unreadable XML: {error}") from None
        return self._parser.CurrentByteIndex != before

    def end(self) -> None:
        """Require that the document is complete.

        :raises ConfigError: when it is not.
        """
        self.feed(b"", last=True)

    def counted(self) -> Counted:
        """Return the counts; call :meth:`end` before."""
        root = self._root
        if root is None:  # the parser rejects a document without a root element
            raise self._error("found no testsuites or testsuite element")
        notes = list(self._notes)
        if self._retries:
            notes.append(f"passed only on a retry: {named(self._retried, self._retries)}")
        if warned := root.counts["warned"]:
            notes.append(f"a warning in place of a result: {named(self._warned, warned)}")
        return Counted(
            **root.counts,
            retried=self._retries,
            retried_names=tuple(self._retried),
            failed=tuple(self._failed),
            without_right=self._without_right,
            missing_right=self._missing_right,
            seconds=round(root.seconds, 3),
            notes=tuple(dict.fromkeys(notes)),
            unlisted_failures=self._unlisted_failures,
            inconsistency=self._inconsistency,
        )

    def _error(self, what: str, *, line: int | None = None, hint: str = "") -> ConfigError:
        at = self._parser.CurrentLineNumber if line is None else line
        return ConfigError(what, where=f"{self._where}:{at}", hint=hint)

    def _reject_doctype(self, name: str, *_: object) -> None:
        raise self._error(
            f"found a document type ({_short(name)}), which JUnit XML does not need and which may define entities",
            hint="let the test runner write the file again",
        )

    def _start(self, qualified: str, attributes: dict[str, str]) -> None:
        name = qualified.rpartition(":")[2]
        if not self._open and name not in _SUITES:
            raise self._error(f"found the root element {_short(name)}, expected testsuites or testsuite")
        if len(self._open) >= _DEEPEST:
            raise self._error(f"found elements nested more than {_DEEPEST} deep")
        inside = self._open[-1] if self._open else ""
        self._open.append(name)
        if name in _SUITES and self._case is None:
            self._suites.append(_Suite(_short(attributes.get("name", "")), attributes))
        elif name == "testcase" and self._case is None:
            self._case = _Case(self._case_name(attributes), attributes)
        elif inside == "testcase" and self._case is not None:
            self._meet(self._case, name)
            if name in _BAD:
                self._case.say(f"{attributes.get('message', '')}\n")
        elif inside in _SUITES and name in _BAD:
            self._suites[-1].own = self._OUTCOME_OF[name]

    def _text(self, text: str) -> None:
        if self._case is not None and self._open[-1] in _BAD:
            self._case.say(text)

    def _meet(self, case: _Case, name: str) -> None:
        if name in _RETRIED:
            case.retried = True
        elif name in self._OUTCOME_OF:
            case.outcomes.add(self._OUTCOME_OF[name])

    def _case_name(self, attributes: dict[str, str]) -> str:
        group = attributes.get("classname") or (self._suites[-1].name if self._suites else "")
        return _short(".".join(filter(None, (group, attributes.get("name", ""))))) or "a test without a name"

    def _end(self, _qualified: str) -> None:
        name = self._open.pop()
        if name == "testcase" and self._case is not None and "testcase" not in self._open:
            self._close_case(self._case)
            self._case = None
        elif name in _SUITES and self._case is None:
            self._close_suite(self._suites.pop())

    def _close_case(self, case: _Case) -> None:
        suite = self._suites[-1]
        suite.counts["tests"] += 1
        suite.cases_s += case.seconds
        outcome = case.outcome
        if outcome:
            suite.counts[outcome] += 1
        if outcome in {"failures", "errors"}:
            _add_name(self._failed, case.name)
            if line := case.missing_right:
                self._without_right += 1
                self._missing_right = self._missing_right or line
        elif outcome == "warned":
            _add_name(self._warned, case.name)
        elif case.retried and not outcome:
            self._retries += 1
            _add_name(self._retried, case.name)

    def _close_suite(self, suite: _Suite) -> None:
        if suite.own:
            # a suite that failed outside of its cases does not pass, even if all cases passed
            suite.counts[suite.own] += 1
            suite.counts["tests"] += 1
            _add_name(self._failed, suite.name or "a suite without a name")
        self._compare_counts(suite)
        if self._suites:
            outer = self._suites[-1]
            for key, value in suite.counts.items():
                outer.counts[key] += value
            outer.suites_s += suite.seconds
        else:
            self._root = suite

    def _compare_counts(self, suite: _Suite) -> None:
        """Record declared totals that differ from the counted cases."""
        declared = {key: _count(suite.declared[key]) for key in suite.counts if key in suite.declared}
        wrong = [
            f"{key}={_short(suite.declared[key])}, but its cases show {suite.counts[key]}"
            for key, value in declared.items()
            if value != suite.counts[key]
        ]
        if wrong:
            sentence = f"the suite {suite.name or 'without a name'} declares {'; '.join(wrong)}"
            self._notes.append(sentence)
            # tests that are declared and not listed may have failed, unless the suite declares no failure: pytest
            # counts subtests that it does not list (https://github.com/pytest-dev/pytest-subtests/issues/209)
            more = (declared.get("tests") or 0) > suite.counts["tests"]
            unreadable = any(total is None and suite.declared[key].strip() for key, total in declared.items())
            if unreadable or (more and {declared.get("failures"), declared.get("errors")} != {0}):
                self._inconsistency = self._inconsistency or sentence
        bad = sum(declared.get(key) or 0 for key in ("failures", "errors"))
        # the totals of an outer suite include those of its inner suites, so the largest difference covers all of them
        unlisted = bad - suite.counts["failures"] - suite.counts["errors"]
        self._unlisted_failures = max(self._unlisted_failures, unlisted)


def named(names: Sequence[str], total: int) -> str:
    """Return some names, and how many more there are."""
    return ", ".join(names) + (f", and {total - len(names)} more" if total > len(names) else "")


def _add_name(names: list[str], name: str) -> None:
    if len(names) < MOST_FAILED_NAMES:
        names.append(name)


def _count(value: str) -> int | None:
    """Read a total; None for a text that is not a whole number of at least 0."""
    digits = value.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < len("1000000000") else None


def _seconds(value: str) -> float | None:
    """Read a duration in seconds; surefire separates thousands with a comma."""
    try:
        seconds = float(value.replace(",", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"
