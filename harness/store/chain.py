"""The hash chain of a run: an edit of any row, of the plan or of a log breaks it.

- The *head* is a hash of the identity of the run: its id, plan, code, command line and audit target, as `run.json` has
  them from the first write on.
- Each line of a file of rows ends with the key `previous`: the hash of the line before it. The first line has a hash of
  the head and of the file's name.
- The *seal* of `run.json` has a digest of the record from the first write on. When the run ends it also has the number
  of lines and the last hash of each file of rows, and the digests of logs and artifacts.

Every hash is SHA-256 in hex. A line is hashed as its bytes on disk, without the line feed; a record as JSON with sorted
keys and no blanks. The hashes have no key: whoever writes all of them again leaves no trace, unless a signature covers
`run.json` (:mod:`harness.store.statement`).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.store.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: the first schema version whose runs are chained
CHAINED_SINCE = 2
RECORD = "run.json"
RESULTS = "results.jsonl"
PROOFS = "proofs.jsonl"
TRAIL = "trail.jsonl"
OBSERVED = "observed.jsonl"
ROW_FILES = (RESULTS, PROOFS, TRAIL, OBSERVED)
#: runs that were written before it have none
LATER_FILES = (OBSERVED,)
#: the fields of `run.json` that never change during a run
IDENTITY = (
    "schema_version",
    "run_id",
    "started_at",
    "argv",
    "provenance",
    "evidence_class",
    "engine",
    "engine_version",
    "audit_target",
    "plan",
    "under",
)
_HEX_LENGTH = 64
_BEFORE = b',"previous":"'
_AFTER = b'"}'


class End(Struct, frozen=True, kw_only=True):
    """The end of the chain of one file."""

    lines: int
    #: the hash of the last line
    last: str


class Seal(Struct, frozen=True, kw_only=True):
    """The key `seal` of `run.json`."""

    #: the hash of the run's identity
    head: str = ""
    #: whether the run ended, so that the fields below cover all of its files
    closed: bool = False
    #: by the name of the file of rows
    rows: dict[str, End] = {}
    #: digests of all other files, such as logs, by their path in the run folder
    files: dict[str, str] = {}
    #: the digest of `run.json` without this field
    record: str = ""


def canonical(value: object) -> bytes:
    """Encode a value in the one way that is hashed.

    :raises ValueError: for a value that JSON cannot hold.
    """
    try:
        return msgspec.json.encode(value, order="sorted")
    except (msgspec.MsgspecError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def head_of(record: Mapping[str, Any]) -> str:
    """Return the hash of a run's identity."""
    return sha256(canonical({name: record.get(name) for name in IDENTITY}))


def digest_of_record(record: Mapping[str, Any], seal: Seal) -> str:
    """Return the digest of `run.json`: of its fields, and of the seal's other fields."""
    fields = {name: value for name, value in record.items() if name != "seal"}
    return sha256(canonical({**fields, "seal": msgspec.structs.replace(seal, record="")}))


def first_link(head: str, name: str) -> str:
    """Return the hash that the first line of a file of rows carries."""
    return sha256(f"{head} {name}".encode())


def linked(row: bytes, previous: str) -> bytes:
    """Return the line of a row, which is an encoded JSON object, without the line feed."""
    return row[:-1] + _BEFORE + previous.encode() + _AFTER


def link_of(line: bytes) -> str:
    """Return the hash that a line carries; "" for a line that the store has not written in this form."""
    end = len(line) - len(_AFTER)
    start = end - _HEX_LENGTH
    if start < len(_BEFORE) or line[end:] != _AFTER or line[start - len(_BEFORE) : start] != _BEFORE:
        return ""
    return line[start:end].decode("ascii", "replace")


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a run folder other than its record and rows, by their path in it.

    Names that begin with a dot are left out: no reader uses them. What is not a regular file has the digest "".
    """
    return {name: sha256_of(folder / name) for name in sorted(_others(folder, ""))}


def _others(folder: Path, inside: str) -> Iterator[str]:
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.name.startswith(".") or name in {RECORD, *ROW_FILES}:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _others(folder, f"{name}/")
            else:
                yield name
