"""Rules about what the text itself may hold: R11, secrets, and R19, counts and versions that go stale."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.lint.secrets import shapes_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page
    from harness.lint.repository import Package

#: a number behind one of these counts nothing
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
    """No secret, connection string or address inside a network stands in the file."""
    tables = {number for table in page.document.ours() for number in range(table.line, table.last_line + 1)}
    for number, line in enumerate(page.document.lines, 1):
        for shape in shapes_in(line):
            tell = page.error if shape.always or number in tables else page.warning
            yield tell(
                number,
                "R11",
                f"the line holds {shape.name}",
                "take it out, also of the history where it is a secret that works; keep a redacted line and a link",
            )


def r19_no_stale_counts(page: Page) -> Iterator[LintFinding]:
    """Counts of tests are no proof, and versions named are those of the package."""
    for number, text, in_table in _said(page):
        tell = page.error if in_table else page.warning
        if match := _COUNT.search(text):
            yield tell(
                number,
                "R19",
                f'a count of tests is cited, "{" ".join(match[0].split())}"',
                "name the command or the test that shows it; the count goes stale",
            )
        for package in page.repository.packages:
            for literal in _literals(text, package):
                yield tell(
                    number,
                    "R19",
                    f"{package.name} {literal} is named, and {package.manifest} has {package.version}",
                    f"run it again with {package.version} and write that",
                )


def _said(page: Page) -> Iterator[tuple[int, str, bool]]:
    """Return what the document says, with its line, and whether that is in one of our tables."""
    for table in page.document.ours():
        for row in table.rows:
            yield row.line, " ".join(cell.text for cell in row.cells), True
    for prose in page.document.prose:
        yield prose.line, prose.text, False


def _literals(text: str, package: Package) -> Iterator[str]:
    """Return the versions that stand beside a package's name and are not its own."""
    for match in re.finditer(rf"(?i)(?<![\w/-]){re.escape(package.name)}(?![\w-]){_LITERAL}", text):
        if not _fits(match["version"], match["how"] or "", package.version):
            yield f"{match['how'] or ''} {match['version']}".strip()


def _fits(literal: str, how: str, version: str) -> bool:
    """Say whether a version, or a constraint on it, agrees with the package's own."""
    if how in {">=", "<=", ">", "<"}:
        return True
    parts = literal.split(".")
    if how in {"~>", "~", "^"}:
        parts = parts[:-1] if how != "^" else parts[:1] if parts[0] != "0" else parts[:2]
    return version.partition("+")[0].split(".")[: len(parts)] == parts
