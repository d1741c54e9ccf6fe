"""Reading the rows of one run: the chain is followed line by line, and the rules refuse what contradicts them."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, TypeVar

import msgspec

from harness.errors import StoreError
from harness.model import ObservedProof, Proof, Result, TrailProof
from harness.store.chain import LATER_FILES, RECORD, End, Seal, first_link, link_of, sha256
from harness.store.files import regular_file
from harness.store.integrity import more_of
from harness.store.rules import RowRules, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.model import RunRecord

T = TypeVar("T", Result, Proof, TrailProof, ObservedProof)

_LARGEST_ROWS = 1 << 30
_LONGEST_LINE = 16 << 20
#: what decoding raises for bytes that somebody else wrote: digits without end, deep nesting, invalid UTF-8
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)


class RowReader:
    """Reads the files of rows of one run, follows the chain of each, and applies the rules."""

    def __init__(self, folder: Path, record: RunRecord, seal: Seal, head: str) -> None:
        """Start with the first file.

        :param head: of the run's identity as it is on disk; "" for a run without a chain.
        """
        self.rules = RowRules(record, chained=bool(head))
        self.breaks: list[str] = []
        self.refusals = 0
        self.torn = 0
        #: by file and cause: the first row's line and sentence, and the number of rows
        self._refused: dict[tuple[str, str], tuple[int, str, int]] = {}
        self._folder = folder
        self._seal = seal
        self._head = head

    def read(self, name: str, kind: type[T], contradiction: Callable[[T], str]) -> tuple[T, ...]:
        """Return the rows of one file that are not refused.

        :param contradiction: returns what contradicts the rules in a row.
        """
        rows: dict[tuple[str, ...], tuple[int, T] | None] = {}
        decoder = msgspec.json.Decoder(kind)
        for number, line in self._lines(name):
            try:
                row = decoder.decode(line)
            except UNDECODABLE as error:
                self._refuse(name, number, f"not a row: {short(error)}", "not a row")
                continue
            key = key_of(row)
            if sentence := contradiction(row):
                cause = _without(sentence, key)
                self._refuse(name, number, sentence, cause)
                if first := rows.get(key):  # neither of two rows counts
                    self._refuse(name, first[0], sentence, cause)
                    rows[key] = None
            else:
                self.rules.accept(row)
                rows[key] = (number, row)
        return tuple(kept[1] for kept in rows.values() if kept)

    def _refuse(self, name: str, number: int, sentence: str, cause: str) -> None:
        self.refusals += 1
        first, said, rows = self._refused.get((name, cause), (number, sentence, 0))
        self._refused[name, cause] = (first, said, rows + 1)

    @property
    def refused(self) -> tuple[str, ...]:
        """One sentence for each cause, about its first row, with the number of further rows."""
        return tuple(
            f"{name}:{first}: {sentence}{more_of(rows - 1, 'row')}"
            for (name, _), (first, sentence, rows) in self._refused.items()
        )

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of each complete line, and compare the chain."""
        path = self._folder / name
        link, number = first_link(self._head, name), 0
        broken = False
        try:
            with regular_file(path, _LARGEST_ROWS) as file:
                for number, line in enumerate(self._complete(file), 1):
                    if self._head and not broken and link_of(line) != link:
                        broken = True
                        before = f"line {number - 1}" if number > 1 else "the plan and identity in run.json"
                        self.breaks.append(
                            f"{name}:{number}: it does not follow from {before}: "
                            "a line was changed, removed, added or moved"
                        )
                    link = sha256(line)
                    yield number, line
        except FileNotFoundError:
            if self._seal.closed and (name in self._seal.rows or name not in LATER_FILES):
                self.breaks.append(f"{name}: it is missing")
            return
        except (OSError, StoreError) as error:
            self.breaks.append(f"{name}: it cannot be read: {getattr(error, 'what', error)}")
            return
        if self._seal.closed and not broken:
            self._compare_end(name, End(lines=number, last=link))

    def _complete(self, file: IO[bytes]) -> Iterator[bytes]:
        while line := file.readline(_LONGEST_LINE):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == _LONGEST_LINE or self._seal.closed:
                yield line + b" "  # the hash of an incomplete line never fits
            else:
                self.torn += 1

    def _compare_end(self, name: str, found: End) -> None:
        expected = self._seal.rows.get(name)
        if expected is None:
            self.breaks.append(f"{RECORD}: the seal does not cover {name}")
        elif found.lines != expected.lines:
            self.breaks.append(f"{name}:{found.lines}: it has {found.lines} lines, expected {expected.lines}")
        elif found.last != expected.last:
            self.breaks.append(f"{name}:{found.lines}: the last line was changed")


def _without(sentence: str, key: tuple[str, ...]) -> str:
    """Return what a sentence says about any row, without the names of this one."""
    for part in sorted(filter(None, key), key=len, reverse=True):  # a topology's name may be part of a check's
        sentence = sentence.replace(part, "…")
    return sentence


def short(error: BaseException) -> str:
    """Return the message of an error, in a length that fits into a sentence."""
    return (str(error) or type(error).__name__)[:200]
