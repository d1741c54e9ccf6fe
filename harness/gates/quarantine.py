"""The row about flaky tests: each one in quarantine has an id, an issue, a date, an owner and an expiry."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.rows import GateRow, Place, judged
from harness.gates.yaml_nodes import LARGEST, Node, read_yaml
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gates.tree import Tree

_NAMED = re.compile(
    r"(?:\.github/|\.ci/|tests?/|spec/)?(?:quarantined?|flaky)(?:[-_]tests?)?\.(?:toml|ya?ml|json)", re.IGNORECASE
)
#: what an entry needs, and the keys that say it
FIELDS = {
    "id": ("id", "test", "check", "name", "nodeid"),
    "issue link": ("issue", "link", "url", "ticket"),
    "date": ("since", "date", "added", "quarantined", "on"),
    "owner": ("owner", "assignee"),
    "expiry": ("expires", "expiry", "until", "expires_on"),
}
_LINK = re.compile(r"https?://\S+|[\w.-]+/[\w.-]+[#!]\d+|#\d+|[A-Z][A-Z0-9]+-\d+")
_NOBODY = frozenset({"todo", "tbd", "n/a", "none", "nobody", "someone", "-", "?"})
#: marks of flaky tests in code, at the beginning of a line
_MARK = re.compile(
    r"\s*(?:@pytest\.mark\.(?:flaky|quarantined?)\b|@flaky\b|@Flaky\b|@tag :(?:flaky|quarantined?)\b"
    r"|@Tag\(\"(?:flaky|quarantined?)\"\)|jest\.retryTimes\(|this\.retries\(|#\[ignore = \"flaky)"
)
_TEST_FILE = re.compile(
    r"(?:.*/)?(?:tests?|spec|__tests__)/.*|(?:.*[._/-])?(?:test|spec)[._-].*|.*[._-](?:test|spec)\.\w+"
)
_CODE = (".py", ".js", ".ts", ".tsx", ".jsx", ".exs", ".rb", ".java", ".kt", ".rs", ".go", ".php", ".cs")
#: without any of these, a file has no mark
_WORDS = ("flaky", "Flaky", "quarantine", "retryTimes", "retries")
#: the name of the test below a mark
_TEST = re.compile(r"\b(?:def|fn|fun|func|test|it|void)\b\W*[\"']?(\w[^\"'(]*\w)")
_ISSUE = re.compile(r"https?://\S+|(?<!\w)#\d+|[A-Z]{2,}-\d+")
_MANY = 50


class Entry(Struct, frozen=True):
    """An entry, with the values that it gives."""

    path: str
    line: int
    values: dict[str, str]

    def value(self, field: str) -> str:
        return next((self.values[key].strip() for key in FIELDS[field] if self.values.get(key, "").strip()), "")


def quarantine_row(tree: Tree, declared: Sequence[str], today: date) -> GateRow:
    """Judge each entry, and each mark in a test that no entry names."""
    gate = "quarantine.entries"
    names = [name for name in tree.files if _NAMED.fullmatch(name)]
    if declared:
        names = sorted({name for pattern in declared for name in tree.matching(pattern)})
    broken: list[Place] = [
        Place(pattern, 0, "declared, but no file matches") for pattern in declared if not tree.matching(pattern)
    ]
    entries: list[Entry] = []
    for name in [*names, *(["harness.toml"] if "harness.toml" in tree.files and "harness.toml" not in names else [])]:
        found = _entries(tree, name)
        if isinstance(found, str):
            broken.append(Place(name, 0, found))
        else:
            entries += found
    for entry in entries:
        broken += [Place(entry.path, entry.line, problem) for problem in _problems(entry, today)]
    broken += _marks(tree, entries)
    if not entries and not broken:
        return GateRow(gate=gate, status=Status.NA, reason="no entry in quarantine, and no test is marked as flaky")
    return judged(
        gate,
        broken=broken[:_MANY],
        shown=[Place(entry.path, entry.line, entry.value("id")) for entry in entries][:_MANY],
        ok=f"{len(entries)} entries, each with {', '.join(FIELDS)}",
        fix="give each entry an id, an issue link, a date, an owner and an expiry; remove it when the test is reliable",
    )


def _problems(entry: Entry, today: date) -> list[str]:
    named = entry.value("id") or "the entry"
    missing = [field for field in FIELDS if not entry.value(field)]
    problems = [f"{named}: without {', '.join(missing)}"] if missing else []
    if (link := entry.value("issue link")) and not _LINK.fullmatch(link):
        problems.append(f"{named}: {link!r} is not a link to an issue")
    if entry.value("owner").lower() in _NOBODY:
        problems.append(f"{named}: {entry.value('owner')} is not an owner")
    days: dict[str, date] = {}
    for field in ("date", "expiry"):
        if value := entry.value(field):
            try:
                days[field] = date.fromisoformat(value[:10])
            except ValueError:
                problems.append(f"{named}: invalid {field} {value!r}, expected YYYY-MM-DD")
    if "date" in days and days["date"] > today:
        problems.append(f"{named}: the date {days['date']} is in the future")
    if "expiry" in days and days["expiry"] < today:
        problems.append(f"{named}: expired on {days['expiry']}")
    if len(days) == len(("date", "expiry")) and days["expiry"] <= days["date"]:
        problems.append(f"{named}: it expires on {days['expiry']}, before it begins")
    return problems


def _entries(tree: Tree, name: str) -> list[Entry] | str:
    """Return the entries of a file, or why it cannot be read."""
    text = tree.text(name, LARGEST)
    if text is None:
        return "it cannot be read: missing, a link that leads out, too large, or binary"
    if name.endswith(".toml"):
        return _of_toml(name, text)
    root = read_yaml(text)
    if isinstance(root, str):
        return root
    if root.is_table:
        keys = ("quarantine", "quarantined", "entries", "tests", "flaky")
        root = next((root[key] for key in keys if root[key].exists), Node())
        if not root.is_list:
            return "no list of entries, expected one below `quarantine`"
    return [Entry(name, node.line, {key: value.text for key, value in node.items()} or {"id": node.text})
            for node in root.entries()]  # fmt: skip


def _of_toml(name: str, text: str) -> list[Entry] | str:
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return f"invalid TOML: {str(error)[:100]}"
    keys = ("quarantine",) if name == "harness.toml" else ("quarantine", "quarantined", "entries", "tests", "flaky")
    key = next((key for key in keys if isinstance(data.get(key), list)), "")
    lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(rf"(?m)^\s*\[\[\s*{key}\s*\]\]", text)]
    found = data.get(key, [])
    return [
        Entry(name, lines[number] if number < len(lines) else 0, {str(k): str(v) for k, v in entry.items()})
        for number, entry in enumerate(found)
        if isinstance(entry, dict)
    ]


def _marks(tree: Tree, entries: Sequence[Entry]) -> list[Place]:
    """Return the marks of flaky tests that neither link to an issue nor are in an entry."""
    ids = {entry.value("id") for entry in entries}
    found: list[Place] = []
    for name in tree.files:
        if (
            not name.endswith(_CODE)
            or not _TEST_FILE.fullmatch(name)
            or name in ids
            or (text := tree.text(name)) is None
        ):
            continue
        if not any(word in text for word in _WORDS):
            continue
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if not _MARK.match(line):
                continue
            around = " ".join(lines[max(0, number - 2) : number + 3])
            test = _TEST.search(" ".join(lines[number + 1 : number + 5]))
            is_listed = test is not None and any(re.search(rf"\b{re.escape(test[1])}\Z", known) for known in ids)
            if not is_listed and not _ISSUE.search(around):
                found.append(Place(name, number + 1, f"{line.strip()[:80]}: without a link to an issue"))
    return found
