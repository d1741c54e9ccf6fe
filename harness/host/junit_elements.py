"""The elements of JUnit XML, read in one pass: suites that hold suites, cases, and what happened to each."""

from __future__ import annotations

import math
from xml.parsers import expat

from msgspec import Struct

from harness.errors import ConfigError

MOST_FAILED_NAMES = 10
_DEEPEST = 100
_LONGEST_NAME = 200

_SUITES = ("testsuites", "testsuite")
#: what a case may say of itself in its status or result, without an element for it
_SAID = {"failed": "failures", "failure": "failures", "fail": "failures", "error": "errors", "errored": "errors"}
#: surefire's elements for a case that passed only when it was repeated
_FLAKY = ("flakyFailure", "flakyError")


class Counted(Struct, frozen=True, kw_only=True):
    """What the cases say; a case counts once, as the worst that happened to it."""

    tests: int
    failures: int
    errors: int
    skipped: int
    #: at most ten, as "Class.test", in the order of the file
    failed: tuple[str, ...]
    seconds: float
    #: one sentence each for what a reader of the counts should know
    notes: tuple[str, ...] = ()
    #: failures that a suite counts and none of its cases shows
    untold: int = 0
    #: what the first suite declares that counts more tests than it holds, or has a count that is none
    unbelieved: str = ""


class _Suite:
    """An open `testsuite` or `testsuites`: what it declares, and what its cases have come to so far."""

    def __init__(self, name: str, declared: dict[str, str]) -> None:
        self.name = name
        self.declared = declared
        self.counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        self.cases_s = 0.0
        self.suites_s = 0.0
        #: of elements that stand in the suite itself, where its set-up broke
        self.own: str = ""

    @property
    def seconds(self) -> float:
        """What it declares, else what its suites and cases add up to."""
        declared = _seconds(self.declared.get("time", ""))
        return self.suites_s + self.cases_s if declared is None else declared


class _Case:
    """An open `testcase`, and the worst that it has met so far."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.seconds = _seconds(attributes.get("time", "")) or 0.0
        self.flaky = False
        said = {attributes.get(each, "").strip().lower() for each in ("status", "result")}
        self.outcomes = {outcome for word, outcome in _SAID.items() if word in said}
        # GoogleTest's way of saying that a case was not run
        if attributes.get("status") in {"notrun", "disabled"}:
            self.outcomes.add("skipped")

    @property
    def outcome(self) -> str:
        return next((each for each in ("failures", "errors", "skipped") if each in self.outcomes), "")


class ElementReader:
    """Counts in one pass over the XML; holds the open elements and nothing else."""

    _OUTCOMES = {"failure": "failures", "error": "errors", "skipped": "skipped"}  # noqa: RUF012 -- read only

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: list[str] = []
        self._suites: list[_Suite] = []
        self._case: _Case | None = None
        self._root: _Suite | None = None
        self._failed: list[str] = []
        self._notes: list[str] = []
        self._flaky = 0
        self._untold = 0
        self._unbelieved = ""
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def feed(self, chunk: bytes, *, last: bool = False) -> None:
        try:
            self._parser.Parse(chunk, last)
        except expat.ExpatError as error:
            empty = self._parser.CurrentByteIndex <= 0 and not self._open and last
            what = "it is empty" if empty else f"it is not complete XML: {expat.ErrorString(error.code)}"
            raise self._error(what, line=error.lineno, hint="let the tests that write it run to their end") from None
        except (LookupError, ValueError) as error:  # an encoding that there is not
            raise self._error(f"it is not readable as XML: {error}") from None

    def end(self) -> None:
        self.feed(b"", last=True)

    def counted(self) -> Counted:
        """Return what the cases came to, when all of it was fed."""
        root = self._root
        if root is None:  # the parser accepts no document without a root element
            raise self._error("there is no testsuites or testsuite in it")
        if self._flaky:
            self._notes.append(f"{self._flaky} tests passed only when they were repeated")
        return Counted(
            **root.counts,
            failed=tuple(self._failed),
            seconds=round(root.seconds, 3),
            notes=tuple(dict.fromkeys(self._notes)),
            untold=self._untold,
            unbelieved=self._unbelieved,
        )

    def _error(self, what: str, *, line: int | None = None, hint: str = "") -> ConfigError:
        at = self._parser.CurrentLineNumber if line is None else line
        return ConfigError(what, where=f"{self._where}:{at}", hint=hint)

    def _refuse_doctype(self, name: str, *_: object) -> None:
        raise self._error(
            f"it declares a document type ({_short(name)}), which JUnit XML has no need of and entities hide in",
            hint="let the test runner write it anew",
        )

    def _start(self, qualified: str, attributes: dict[str, str]) -> None:
        name = qualified.rpartition(":")[2]
        if not self._open and name not in _SUITES:
            raise self._error(f"its root element is {_short(name)}, and testsuites or testsuite was needed")
        if len(self._open) >= _DEEPEST:
            raise self._error(f"its elements are nested more than {_DEEPEST} deep")
        inside = self._open[-1] if self._open else ""
        self._open.append(name)
        if name in _SUITES and self._case is None:
            self._suites.append(_Suite(_short(attributes.get("name", "")), attributes))
        elif name == "testcase" and self._case is None:
            self._case = _Case(self._case_name(attributes), attributes)
        elif inside == "testcase" and self._case is not None:
            self._meet(self._case, name)
        elif inside in _SUITES and name in {"failure", "error"}:
            self._suites[-1].own = self._OUTCOMES[name]

    def _meet(self, case: _Case, name: str) -> None:
        if name in _FLAKY:
            case.flaky = True
        elif name in self._OUTCOMES:
            case.outcomes.add(self._OUTCOMES[name])

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
        self._flaky += case.flaky and not outcome
        if outcome:
            suite.counts[outcome] += 1
        if outcome in {"failures", "errors"}:
            self._name_failed(case.name)

    def _close_suite(self, suite: _Suite) -> None:
        if suite.own:
            # a suite that broke outside of its cases is no pass, whatever those say
            suite.counts[suite.own] += 1
            suite.counts["tests"] += 1
            self._name_failed(suite.name or "a suite without a name")
        self._compare_counts(suite)
        if self._suites:
            outer = self._suites[-1]
            for key, value in suite.counts.items():
                outer.counts[key] += value
            outer.suites_s += suite.seconds
        else:
            self._root = suite

    def _name_failed(self, name: str) -> None:
        if len(self._failed) < MOST_FAILED_NAMES:
            self._failed.append(name)

    def _compare_counts(self, suite: _Suite) -> None:
        """Note counts that the cases do not bear out."""
        declared = {key: _count(suite.declared[key]) for key in suite.counts if key in suite.declared}
        wrong = [
            f"{key} {_short(suite.declared[key])} where its cases show {suite.counts[key]}"
            for key, value in declared.items()
            if value != suite.counts[key]
        ]
        if wrong:
            sentence = f"the suite {suite.name or 'without a name'} declares {', '.join(wrong)}"
            self._notes.append(sentence)
            # tests that are counted and not shown may have failed, unless the suite says that none did: pytest counts
            # subtests that it does not show (https://github.com/pytest-dev/pytest-subtests/issues/209)
            more = (declared.get("tests") or 0) > suite.counts["tests"]
            unreadable = any(each is None and suite.declared[key].strip() for key, each in declared.items())
            if unreadable or (more and {declared.get("failures"), declared.get("errors")} != {0}):
                self._unbelieved = self._unbelieved or sentence
        bad = sum(declared.get(key) or 0 for key in ("failures", "errors"))
        # an outer suite counts what its inner ones do, so the largest difference is all of it
        self._untold = max(self._untold, bad - suite.counts["failures"] - suite.counts["errors"])


def _count(value: str) -> int | None:
    """Read a count; None for one that is negative or no number."""
    digits = value.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < len("1000000000") else None


def _seconds(value: str) -> float | None:
    """Read a duration; surefire writes thousands with a comma."""
    try:
        seconds = float(value.replace(",", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"
