"""Output for the pages of a CI service: a job summary of bounded size, and annotations of GitHub Actions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.report.issue_groups import accepted_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.report.issue_groups import IssueGroup

#: the most bytes of a summary; GitHub rejects one of more than 1 MiB, and some jobs have several
MOST_BYTES = 200 * 1024
#: the most annotations; GitHub shows ten of each kind for a step, and drops the others silently
MOST_ANNOTATIONS = 10
#: the most characters of one annotation
_LONGEST = 1000

_HEADING = re.compile(r"^(?=## )", re.MULTILINE)
#: a code span, which stays, or a link to another file of the report, which a summary does not have
_LINK = re.compile(
    r"(?P<code>(?<!`)(?P<fence>`+)(?!`).*?(?<!`)(?P=fence)(?!`))|\[(?P<label>(?:[^\]\\]|\\.)*)\]\((?!https?:)[^)\s]*\)"
)


# --- the summary -------------------------------------------------------------------------------------------


def summary(markdown: str, most_bytes: int = MOST_BYTES) -> str:
    """Return a report of bounded size: sections that do not fit are left out, and the end names them.

    :param markdown: the report; its sections begin with `## `.
    :param most_bytes: of the result, in UTF-8.
    """
    first, *sections = _HEADING.split(_LINK.sub(_unlinked, markdown))
    names = [_name(section) for section in sections]
    room = most_bytes - _size(_left_out(["the end of the first section", *names])) - len("\n\n")
    kept = [_cut(first, room)]
    room -= _size(kept[0])
    missing = [] if kept[0] == first else ["the end of the first section"]
    for name, section in zip(names, sections, strict=True):
        if _size(section) <= room:
            kept.append(section)
            room -= _size(section)
        else:
            missing.append(name)
    text = "".join(kept)
    return _cut(f"{text.rstrip()}\n\n{_left_out(missing)}" if missing else text, most_bytes)


def _unlinked(found: re.Match[str]) -> str:
    return found["code"] or found["label"]


def _name(section: str) -> str:
    return section.partition("\n")[0].removeprefix("## ")


def _left_out(names: Sequence[str]) -> str:
    return f"**Left out, because a job summary is small:** {'; '.join(names)}. `report.md` has all of it.\n"


def _size(text: str) -> int:
    return len(text.encode())


def _cut(text: str, most_bytes: int) -> str:
    """Return whole lines from the beginning of a text."""
    if _size(text) <= most_bytes:
        return text
    kept = text.encode()[: max(most_bytes, 0)].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1]


# --- annotations -------------------------------------------------------------------------------------------


def workflow_commands(groups: Sequence[IssueGroup]) -> Iterator[str]:
    """Yield workflow commands of GitHub Actions: an error for each group of new Issues, ten at most, and one notice."""
    new, accepted = [group for group in groups if not group.accepted], [group for group in groups if group.accepted]
    shown = new if len(new) <= MOST_ANNOTATIONS else new[: MOST_ANNOTATIONS - 1]
    for group in shown:
        yield _command(
            "error", f"Issue {group.severity} {group.checks[0]}", f"{group.text}. Reproduce: {group.command}"
        )
    if others := new[len(shown) :]:
        checks = ", ".join(group.checks[0] for group in others)
        yield _command("error", f"{len(others)} more groups of Issues", f"{checks}: issues.md has each of them")
    if accepted:
        number = sum(group.number for group in accepted)
        checks = ", ".join(check for group in accepted for check in group.checks)
        yield _command("notice", f"{number} {accepted_kinds(accepted)} Issue{'s' if number > 1 else ''}", checks)


def _command(kind: str, title: str, message: str) -> str:
    title = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_data(message)}"


def _data(text: str) -> str:
    """Return a text that cannot end its command: what follows a line end would be a command of its own."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    return "".join(_ESCAPES.get(character, character) for character in text)


_ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
