"""`mutants`: its lines, its exit code, and the rates of variants that were written without the checks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.broken_trails import Judged, JudgedTrail, JudgedVariant, Outcome
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.mutants import is_wrong, lines_of
from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from harness.model import Topology


def variant(name: str, outcome: Outcome, *, blind: bool = False, survives: str = "", reason: str = "") -> JudgedVariant:
    return JudgedVariant(
        topology="direct",
        trail="row-json",
        name=name,
        kind="values",
        fault="It is wrong.",
        blind=blind,
        survives=survives,
        outcome=outcome,
        check="capture.insert" if outcome is Outcome.NOTICED else "",
        reason=reason,
    )


SOUND = JudgedTrail(topology="direct", trail="row-json", ok=70, issues={}, not_run={})
NOTICED = variant("cut", Outcome.NOTICED, blind=True)
SURVIVOR = variant("late", Outcome.SURVIVED, reason="none of 70 checks turned to Issue")
KNOWN = variant("slow", Outcome.SURVIVED, survives="no check measures time")
UNUSABLE = variant("broken", Outcome.UNUSABLE, reason="42601 syntax error")


def test_survivors_are_named_and_blind_variants_are_counted_apart() -> None:
    assert lines_of(Judged(sound=(SOUND,), variants=(NOTICED, SURVIVOR, KNOWN))) == [
        "SURVIVED direct: row-json/late (values): It is wrong. (none of 70 checks turned to Issue)",
        "SURVIVED direct: row-json/slow (values): It is wrong. (known: no check measures time)",
        "direct: noticed 1 of 3 (33.3 %); written without the checks: 1 of 1 (100.0 %)",
    ]


def test_an_unusable_variant_counts_in_no_rate() -> None:
    assert lines_of(Judged(variants=(SURVIVOR, UNUSABLE)))[1:] == [
        "UNUSABLE direct: row-json/broken (values): It is wrong. (42601 syntax error)",
        "direct: noticed 0 of 1 (0.0 %); written without the checks: none",
    ]


def test_an_issue_of_a_sound_trail_is_named() -> None:
    judged = Judged(sound=(JudgedTrail(topology="direct", trail="row-json", ok=1, issues={"a.b": "c"}, not_run={}),))
    assert lines_of(judged) == ["ISSUE direct: row-json is sound, and a.b says: c"]
    assert is_wrong(judged)


def test_a_survivor_is_wrong_unless_it_is_known() -> None:
    assert is_wrong(Judged(variants=(SURVIVOR,)))
    assert is_wrong(Judged(variants=(UNUSABLE,)))
    assert not is_wrong(Judged(sound=(SOUND,), variants=(NOTICED, KNOWN)))


def test_a_known_survivor_that_is_noticed_is_noted() -> None:
    noticed = variant("slow", Outcome.NOTICED, survives="no check measures time")
    assert lines_of(Judged(variants=(noticed,)))[0] == (
        "NOTE direct: row-json/slow is noticed by capture.insert, and its entry says that it survives"
    )


class Judging:
    """Notices one variant, without servers."""

    def __init__(self, *given: Any, **_: object) -> None:
        notify: Callable[..., None] = given[3]
        self._notify = notify

    def judge(self, _variants: object) -> None:
        """Judge the sound trail and the variant."""
        self._notify(SOUND)
        self._notify(NOTICED)


def test_findings_are_kept_when_a_later_topology_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    able = ["direct"]

    @contextlib.contextmanager
    def standing(_invocation: object, topology: Topology, *_: Any) -> Iterator[None]:
        if topology.name not in able:
            raise EngineUnavailableError("there are no servers")
        yield

    monkeypatch.setattr("harness.cli.mutants.standing", standing)
    monkeypatch.setattr("harness.cli.mutants.BrokenTrails", Judging)
    command = ["mutants", "direct", "transaction", "--reports", str(tmp_path)]
    for _ in range(2):  # nothing is found at the second time
        assert main(command) == ExitCode.NOTHING_VERIFIED
        found = msgspec.json.decode((tmp_path / "mutants-of-trails.json").read_bytes(), type=Judged)
        assert (found.sound, found.variants) == ((SOUND,), (NOTICED,))
        able.clear()
    shown = capsys.readouterr()
    assert shown.out == "direct: noticed 1 of 1 (100.0 %); written without the checks: 1 of 1 (100.0 %)\n"
    assert "direct: sound row-json: ok=70 issue=0 not_run=0" in shown.err


def test_a_folder_that_cannot_be_written_is_found_before_any_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("harness.cli.mutants.standing")
    (tmp_path / "file").touch()
    assert main(["mutants", "direct", "--reports", str(tmp_path / "file" / "reports")]) == ExitCode.NOTHING_VERIFIED
    assert "the evidence cannot be written" in capsys.readouterr().err
