"""The in-toto statement about a set of runs, for a signature that covers what the chain alone cannot.

Format: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The subjects are `run.json` and
`results.jsonl` of each run, by digest; the seal in `run.json` covers all other files of the run. The statement is not
signed here: a CI service does that, for example GitHub's action `actions/attest`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, field

from harness.errors import ConfigError, StoreError
from harness.store.chain import RECORD, RESULTS
from harness.store.files import regular_file, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.store.reading import StoredRun

#: the type of the predicate, which docs/evidence.md describes; the project has no web address that could resolve
PREDICATE_TYPE = "urn:pooler-harness:run-evidence:v1"
_SUBJECTS = (RECORD, RESULTS)
_LARGEST = 64 << 20


class Subject(Struct, frozen=True, kw_only=True):
    """One file that the statement is about."""

    #: `<run id>/<file>`
    name: str
    #: by algorithm: `sha256`
    digest: dict[str, str]


class RunSummary(Struct, frozen=True, kw_only=True, rename="camel"):
    """One run, in the predicate."""

    run_id: str
    started_at: str
    ended_at: str
    state: str
    #: the verdict of the reader: `whole`, `unfinished` or `not chained`
    integrity: str
    evidence_class: str
    engine: str
    audit_target: str
    tool_version: str
    commit: str
    dirty: bool
    fingerprint: str
    #: the control that its checks ran under; empty for evidence
    under: str
    #: planned rows by status
    rows: dict[str, int]


class Predicate(Struct, frozen=True, kw_only=True):
    """The predicate: what the runs say, in short."""

    runs: tuple[RunSummary, ...]


class Statement(Struct, frozen=True, kw_only=True, rename="camel"):
    """An in-toto Statement of version 1."""

    type_: Literal["https://in-toto.io/Statement/v1"] = field(default="https://in-toto.io/Statement/v1", name="_type")
    subject: tuple[Subject, ...]
    predicate_type: str = PREDICATE_TYPE
    predicate: Predicate


def statement_of(runs: Iterable[StoredRun]) -> str:
    """Return the statement about runs as JSON, without a signature.

    :raises StoreError: for a run that was edited, and when there is none.
    """
    runs = tuple(runs)
    if not runs:
        raise StoreError("a statement needs at least one run", hint="harness verify makes one")
    for run in runs:
        if run.integrity.reasons:
            raise StoreError(
                f"the run was edited: {run.integrity.reasons[0]}",
                where=str(run.folder),
                hint="harness report --verify names all differences; leave out this folder",
            )
    by_id = {run.record.run_id: run for run in runs}  # a run that was copied counts once
    statement = Statement(
        subject=tuple(
            Subject(name=f"{run_id}/{name}", digest={"sha256": sha256_of(run.folder / name)})
            for run_id, run in by_id.items()
            for name in _SUBJECTS
        ),
        predicate=Predicate(runs=tuple(map(_summary, by_id.values()))),
    )
    return msgspec.json.format(msgspec.json.encode(statement), indent=1).decode() + "\n"


def compare(statement: Path, runs: Iterable[StoredRun]) -> tuple[str, ...]:
    """Return one sentence for each difference between runs and the statement about them.

    The signature of the statement is not verified here.

    :raises ConfigError: for a file that is not such a statement.
    """
    subjects = {subject.name: subject.digest.get("sha256", "") for subject in _read(statement).subject}
    found = {f"{run.record.run_id}/{name}": sha256_of(run.folder / name) for run in runs for name in _SUBJECTS}
    return tuple(
        f"{name}: it is not in the statement"
        if name not in subjects
        else f"{name}: it is in the statement, and missing here"
        if name not in found
        else f"{name}: it differs from the statement"
        for name in sorted(subjects.keys() | found.keys())
        if not subjects.get(name) or subjects[name] != found.get(name)
    )


def _read(path: Path) -> Statement:
    hint = "harness report --write-statement FILE writes one"
    try:
        with regular_file(path, _LARGEST) as file:
            statement = msgspec.json.decode(file.read(), type=Statement)
    except StoreError as error:
        raise ConfigError(error.what, where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"the statement cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"not a statement about runs: {str(error)[:200]}", where=str(path), hint=hint) from None
    if statement.predicate_type != PREDICATE_TYPE:
        raise ConfigError(
            f"found a statement of type {statement.predicate_type[:100]!r}, expected {PREDICATE_TYPE}", where=str(path)
        )
    return statement


def _summary(run: StoredRun) -> RunSummary:
    record = run.record
    return RunSummary(
        run_id=record.run_id,
        started_at=record.started_at,
        ended_at=record.ended_at,
        state=record.state,
        integrity=run.integrity.verdict,
        evidence_class=record.evidence_class,
        engine=record.engine,
        audit_target=record.audit_target,
        tool_version=record.provenance.tool_version,
        commit=record.provenance.commit,
        dirty=record.provenance.dirty,
        fingerprint=record.provenance.fingerprint,
        under=record.under,
        rows=dict(Counter(str(result.status) for result in run.answers())),
    )
