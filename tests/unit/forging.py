"""A sealed run, and ways to edit it: with the hashes as they were, or with all of them computed again."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from harness.model import (
    Behaviour,
    Expectation,
    FeatureOutcome,
    MutationState,
    ObservedProof,
    Outcome,
    Proof,
    Result,
    Section,
    Status,
    TrailProof,
)
from harness.redaction import Redactor
from harness.store import RunStore
from harness.store.chain import (
    ROW_FILES,
    End,
    Seal,
    digest_of_record,
    digests,
    first_link,
    head_of,
    link_of,
    linked,
    sha256,
)
from tests.unit.made_up import mixed, planned, record

FEATURE = replace(planned("transaction", "pooling.listen"), section=Section.POOLING, feature="LISTEN and NOTIFY")
STARTED = "2026-01-01T00:00:01.000Z"


def feature_result() -> Result:
    """Return the result of a probe: the notifications are lost, as documented."""
    lost = Outcome(behaviour=Behaviour.LOST)
    return Result(
        target=FEATURE.target,
        check=FEATURE.check,
        status=Status.OK,
        expectations=(Expectation(name="outcome", expected="lost", observed="lost", held=True),),
        feature=FeatureOutcome(observed=lost, expected=(lost,), source="https://example.org/doc"),
    )


def sealed_run(reports: Path) -> Path:
    """Write a run that ended, with rows of every kind and a log, and return its folder."""
    folder = reports / "runs" / record().run_id
    for name, data in _sealed().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@functools.cache
def _sealed() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_sealed(Path(temporary))
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_sealed(reports: Path) -> Path:
    """Write the run of :func:`sealed_run` row by row; that function copies it."""
    written = record()
    written = replace(written, plan=(*written.plan, FEATURE), state="running", ended_at="")
    store = RunStore(reports, written, Redactor())
    for row in (*mixed(), feature_result()):
        store.append(replace(row, started_at=STARTED))
    for number, check in enumerate(("capture.insert", "actor.many-clients")):
        broken = Expectation(name="rows", expected="1", observed="0", held=False)
        store.append_proof(
            Proof(
                topology="direct",
                check=check,
                control=f"control-{number}",
                at="rows",
                proven=not number,
                applicable=True,
                reason="the check stayed green under its control" if number else "",
                broken=() if number else (broken,),
            )
        )
    store.append_trail_proof(
        TrailProof(
            topology="direct",
            name="capture-off",
            what="nothing is captured",
            tried=3,
            caught=("capture.insert",),
            missed=("capture.coverage",),
            unexpected=(),
        )
    )
    store.append_observed_proof(
        ObservedProof(
            topology="direct",
            name="actor.null",
            what="records no actor",
            state=MutationState.NOTICED,
            tried=1,
            check="capture.insert",
            at="rows",
        )
    )
    store.write_log("direct", "postgres", "LOG: ready\n")
    store.update(state="finished", ended_at="2026-01-01T00:00:09.000Z")
    store.close()
    return store.folder


def change_row(folder: Path, number: int, *, file: str = "results.jsonl", **fields: Any) -> None:
    """Change fields of the row in one line, which counts from 1; its link stays as it was."""
    path = folder / file
    lines = path.read_bytes().splitlines()
    line = lines[number - 1]
    row = msgspec.json.decode(line)
    del row["previous"]
    lines[number - 1] = linked(msgspec.json.encode(row | fields), link_of(line))
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def change_lines(folder: Path, order: list[int], *, file: str = "results.jsonl") -> None:
    """Write lines in another order; each number counts from 1, and may be missing or there twice."""
    path = folder / file
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(lines[number - 1] + b"\n" for number in order))


def invent_row(folder: Path, row: dict[str, Any], *, file: str = "results.jsonl") -> None:
    """Add a row at the end of a file, with the right link."""
    path = folder / file
    last = path.read_bytes().splitlines()[-1]
    with path.open("ab") as rows:
        rows.write(linked(msgspec.json.encode(row), sha256(last)) + b"\n")


def change_record(folder: Path, *keys: str | int, value: Any) -> None:
    """Set one value of `run.json`, by the keys that lead to it."""
    path = folder / "run.json"
    raw = msgspec.json.decode(path.read_bytes())
    at = raw
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_bytes(msgspec.json.format(msgspec.json.encode(raw), indent=1))


def chain_again(folder: Path) -> None:
    """Compute every hash again, as somebody can who knows how the chain is made."""
    path = folder / "run.json"
    raw = msgspec.json.decode(path.read_bytes())
    head = head_of(raw)
    ends = {}
    for name in ROW_FILES:
        link, lines = first_link(head, name), []
        for line in (folder / name).read_bytes().splitlines():
            row = msgspec.json.decode(line)
            row.pop("previous", None)
            lines.append(linked(msgspec.json.encode(row), link))
            link = sha256(lines[-1])
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
        ends[name] = End(lines=len(lines), last=link)
    seal = Seal(head=head, closed=True, rows=ends, files=digests(folder))
    raw["seal"] = replace(seal, record=digest_of_record(raw, seal))
    path.write_bytes(msgspec.json.encode(raw))
