"""Rules about the text of a document: R11 about secrets, and R19 about test counts and versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.lint.secrets import shapes_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page
    from harness.lint.repository import Package

#: a number after one of these words is not a count
_NUMBERED = "".join(
    rf"(?<!\b{word}\s)" for word in ("postgresql", "postgres", "pgbouncer", "python", "otp", "section", "step", "line")
)
_COUNT = re.compile(
    rf"(?i)(?<![\w.#:/-]){_NUMBERED}(?:\d[\d,]*\s+(?:\w+\s+){{0,2}}?tests?\b(?!\s+(?:per|a|each|environments?|clients?|users?)\b)"
    r"|\d[\d,]*\s*/\s*\d[\d,]*\s+(?:tests?\s+|checks?\s+)?(?:passed|passing|green|ok)\b"
    r"|(?:all\s+)?\d[\d,]*\s+(?:tests?|checks?|specs?|examples?|assertions?|scenarios?)\s+(?:\w+\s+)?(?:pass(?:ed|ing|es)?|green|ok)\b)"
)
_LITERAL = (
    r"[`*_\s\"'(,:@=]{0,6}(?P<how>~>|>=|<=|==|\^|~|>|<)?\s*v?(?P<version>\d+(?:\.\d+){1,3}(?:-[\w.]+)?)(?![\w.]*\w)"
)


def r11_no_secrets(page: Page) -> Iterator[LintFinding]:
    """The file contains no secret, connection string or internal network address."""
    tables = {number for table in page.document.adoption_tables for number in range(table.line, table.last_line + 1)}
    for number, line in enumerate(page.document.lines, 1):
        for shape in shapes_in(line):
            report = page.error if shape.always or number in tables else page.warning
            yield report(
                number,
                "R11",
                f"the line contains {shape.name}",
                "remove it, and a working secret also from the history; keep a redacted line and a link",
            )


def r19_no_stale_counts(page: Page) -> Iterator[LintFinding]:
    """A test count is not evidence, and a version that is named for a package is its current version."""
    for line, text, in_table in _texts(page):
        report = page.error if in_table else page.warning
        if match := _COUNT.search(text):
            yield report(
                line,
                "R19",
                f'a test count is cited as evidence: "{" ".join(match[0].split())}"',
                "name the command or the test instead, because the count becomes outdated",
            )
        for package in page.repository.packages:
            for literal in _literals(text, package):
                yield report(
                    line,
                    "R19",
                    f"{package.name} {literal} is named, but {package.manifest} has {package.version}",
                    f"repeat the run with {package.version} and update the version",
                )


def _texts(page: Page) -> Iterator[tuple[int, str, bool]]:
    """Return each text of a document: its line, the text, and whether it is a row of an adoption table."""
    for table in page.document.adoption_tables:
        for row in table.rows:
            yield row.line, " ".join(cell.text for cell in row.cells), True
    for prose in page.document.prose:
        yield prose.line, prose.text, False


def _literals(text: str, package: Package) -> Iterator[str]:
    """Return the versions that are named next to a package and disagree with its current version."""
    for match in re.finditer(rf"(?i)(?<![\w/-]){re.escape(package.name)}(?![\w-]){_LITERAL}", text):
        if not _fits(match["version"], match["how"] or "", package.version):
            yield f"{match['how'] or ''} {match['version']}".strip()


def _fits(literal: str, how: str, version: str) -> bool:
    """Say whether a version, or a constraint such as `~> 0.4`, agrees with the package's current version.

    :param how: the operator of the constraint; "" for a version.
    """
    if how in {">=", "<=", ">", "<"}:
        return True
    parts = literal.split(".")
    if how in {"~>", "~", "^"}:
        parts = parts[:-1] if how != "^" else parts[:1] if parts[0] != "0" else parts[:2]
    return version.partition("+")[0].split(".")[: len(parts)] == parts
