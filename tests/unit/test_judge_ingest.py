"""The judge of ingest pipelines: each mutation of a sound final state breaks the expectation that names it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.judges import ingest as judged
from harness.checks.judges.ingest_state import ProgramExit, without_ends
from harness.checks.judges.ingest_uploads import Ingested, has_jitter, have_overlapped, jitter_of
from harness.checks.judging import reason_of
from harness.ingest.cases import IngestCase
from harness.ingest.pipeline_file import Settings, Status
from harness.suites.ingest.conclusion import undecided
from tests.tables import each_row
from tests.unit.ingested import WORKS, broken, download, judge, retried, row, state, upload, words

if TYPE_CHECKING:
    from harness.checks.judges.ingest_state import IngestState
    from harness.ingest.store_requests import StoreRequest

#: delays of retries of 16 uploads: they double, and differ between uploads
_JITTERED = [tuple(0.2 * 2**number * (1 + 0.5 * (of % 8) / 7) for number in range(3)) for of in range(16)]


def _retries(delays: list[tuple[float, ...]]) -> IngestState:
    uploads = [upload(number, end="any") for number in range(1, len(delays) + 1)]
    requests = tuple(one for of, gaps in zip(uploads, delays, strict=True) for one in retried(of, *gaps))
    return state(IngestCase.RETRIES, *uploads, requests=requests)


def _failing(attempts: int = 4) -> IngestState:
    failed, healthy = upload(1, end="failed"), upload(2)
    requests = (*retried(failed, *(0.2 * 2**n for n in range(attempts - 1))), download(healthy, 2.2))
    return state(IngestCase.PERMANENT_FAILURE, failed, healthy, requests=requests)


def _transient(case: IngestCase = IngestCase.STORE_FAILS) -> IngestState:
    uploads = upload(1), upload(2)
    requests = tuple(one for of in uploads for one in (*retried(of, 0.2), download(of, 4.0)))
    return state(case, *uploads, requests=requests)


_SOUND = {
    **{case: state(case) for case in IngestCase},
    IngestCase.RETRIES: _retries(_JITTERED),
    IngestCase.STORE_FAILS: _transient(),
    IngestCase.CORRUPT_DOWNLOAD: _transient(IngestCase.CORRUPT_DOWNLOAD),
    IngestCase.PERMANENT_FAILURE: _failing(),
}


@each_row("case", IngestCase)
def test_a_sound_pipeline_breaks_nothing(case: IngestCase) -> None:
    assert broken(_SOUND[case]) == set()
    assert words(_SOUND[case]) == WORKS


def _with_row(found: IngestState, **changes: object) -> IngestState:
    first = found.uploads[0].id
    return replace(found, rows=found.rows | {first: replace(found.rows[first], **changes)})


def _with_upload(found: IngestState, **changes: object) -> IngestState:
    return replace(found, uploads=(replace(found.uploads[0], **changes), *found.uploads[1:]))


@each_row("case", IngestCase)
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"others_lost": 1}, judged.OTHERS),
        ({"uploads_lost": 2}, judged.OBJECTS),
        ({"given_up": ("A",)}, judged.LOOPS),
        ({"requests": (replace(download(upload(1), 9.0), method="DELETE", changes_others=True),)}, judged.OUTSIDE),
    ],
)
def test_every_case_looks_at_what_a_pipeline_must_not_touch(
    case: IngestCase, changes: dict[str, object], name: str
) -> None:
    assert name in broken(replace(_SOUND[case], **changes))


@each_row("case", [case for case in judged._CASES if case is not IngestCase.RETRIES])
def test_every_case_compares_checksums_and_times(case: IngestCase) -> None:
    index = next(n for n, one in enumerate(_SOUND[case].uploads) if one.end == "indexed")
    of = _SOUND[case].uploads[index]
    for changes, name in (({"checksum": "0" * 64}, judged.CHECKSUM), ({"indexed_at": None}, judged.INDEXED_AT)):
        found = replace(_SOUND[case], rows=_SOUND[case].rows | {of.id: replace(row(of), **changes)})
        assert broken(found) == {name}
        # a pipeline without the column is not judged by it
        assert broken(replace(found, columns=("id", "key", "status"))) == set()


_STUCK = {
    IngestCase.KILLED_WORKER: judged.STUCK,
    IngestCase.PERMANENT_FAILURE: judged.HELD_UP,
}


@each_row("case", [case for case in judged._CASES if case is not IngestCase.RETRIES])
def test_an_upload_that_is_not_indexed_is_found(case: IngestCase) -> None:
    of = next(one for one in _SOUND[case].uploads if one.end == "indexed")
    found = replace(_SOUND[case], rows=_SOUND[case].rows | {of.id: row(of, Status.PROCESSING)})
    assert broken(found) == {_STUCK.get(case, judged.NOT_INDEXED)}


@each_row("case", IngestCase)
def test_a_case_that_ended_early_says_nothing_about_the_ends_of_uploads(case: IngestCase) -> None:
    found = _SOUND[case]
    rows = {of.id: row(of, Status.PROCESSING) for of in found.uploads}
    early = replace(found, uploads=without_ends(found.uploads), rows=rows, requests=())
    assert broken(early) == set()
    # a wrong result stays wrong, whatever happened after it
    of = found.uploads[-1]
    wrong = replace(row(of, Status.INDEXED), checksum="0" * 64)
    assert broken(replace(early, rows=rows | {of.id: wrong}, others_lost=1)) == {judged.CHECKSUM, judged.OTHERS}


@each_row("case", [case for case in judged._CASES if case is not IngestCase.DATABASE_FAILS])
def test_a_refused_upload_is_found(case: IngestCase) -> None:
    found = _with_upload(_SOUND[case], error="the API answered 500, expected 201", stored_s=None)
    assert judged.REFUSED in broken(found)


@pytest.mark.parametrize(
    "case",
    [
        IngestCase.THREE_RUNS,
        IngestCase.STORE_FAILS,
        IngestCase.DATABASE_FAILS,
        IngestCase.LATE_UPLOAD,
        IngestCase.KILLED_WORKER,
        IngestCase.STOPS,
    ],
)
def test_an_upload_that_was_failed_in_between_is_found(case: IngestCase) -> None:
    found = _with_upload(_SOUND[case], seen=(Status.PENDING, Status.FAILED, Status.INDEXED))
    assert broken(found) == {judged.FAILED}


def test_a_deployment_has_two_minutes() -> None:
    found = _SOUND[IngestCase.END_TO_END]
    assert broken(replace(found, total_s=121.0)) == {judged.IN_TIME}
    # a machine that paused shows nothing about time
    assert broken(replace(found, total_s=121.0, pause_s=10.0)) == set()
    assert [Ingested(replace(found, total_s=seconds)).is_too_late for seconds in (120.0, 121.0)] == [False, True]
    assert broken(replace(found, not_migrated="exit code 1")) == {judged.MIGRATED}


def test_latency_is_compared_with_the_promise_and_with_the_machine() -> None:
    late = _with_upload(_SOUND[IngestCase.LATENCY], indexed_s=2.0 + 6.0)
    assert broken(late) == {judged.LATE}
    assert broken(replace(late, floor_s=1.5)) == set()
    # the suite then requires a responsive machine, so that the case is Not run
    assert broken(replace(late, pause_s=3.0)) == set()
    assert Ingested(replace(late, pause_s=3.0)).is_late
    assert not Ingested(replace(late, floor_s=1.5)).is_late


@pytest.mark.parametrize("case", [IngestCase.END_TO_END, IngestCase.TWO_WORKERS, IngestCase.LATE_UPLOAD])
def test_an_exit_without_a_fault_is_found(case: IngestCase) -> None:
    exited = replace(_SOUND[case], exits=(ProgramExit(program="A", code=1, seconds=3.0),))
    assert broken(exited) == {judged.EXITS}


def test_a_program_that_exits_again_and_again_is_the_cause_of_what_is_not_indexed() -> None:
    found = state(IngestCase.DUPLICATES)
    exited = ProgramExit(program="A", code=1, seconds=3.0, last="KeyError: 'LEASE'")
    pending = {one.id: row(one, Status.PENDING) for one in found.uploads}
    looping = replace(found, rows=pending, exits=(exited,) * 13, given_up=("A",))
    said = "programs that exit again and again: expected 0, observed 1 (A, exit code 1: KeyError: 'LEASE')"
    assert reason_of([one for one in judge(looping) if one.broken]) == said


def test_the_states_of_uploads_are_in_the_reason() -> None:
    found = state(IngestCase.KILLED_WORKER)
    rows = {found.uploads[0].id: row(found.uploads[0], Status.PROCESSING)}
    [stuck] = (one for one in judge(replace(found, rows=rows)) if one.name == judged.STUCK)
    assert stuck.observed == "2 (processing, without a row)"
    [over] = (one for one in judge(_retries([(*gaps, 1.6) for gaps in _JITTERED])) if one.name == judged.ATTEMPTS)
    assert over.observed == f"{len(_JITTERED)} (up to 5 downloads, and the cap is 4)"


def test_the_first_refusal_is_in_the_reason() -> None:
    found = state(IngestCase.DUPLICATES)
    refused = tuple(replace(one, stored_s=None, error=f"the API answered 50{one.number}") for one in found.uploads)
    [first] = (one for one in judge(replace(found, uploads=refused)) if one.name == judged.REFUSED)
    assert (first.expected, first.observed) == ("0", "2 (the API answered 501)")


def test_a_database_that_fails_may_end_programs_and_refuse_requests_meanwhile() -> None:
    found = replace(_SOUND[IngestCase.DATABASE_FAILS], exits=(ProgramExit(program="A", code=1, seconds=3.0),))
    assert broken(found) == set()


# --- retries ---------------------------------------------------------------------------------------------


def test_more_downloads_than_the_cap_are_found() -> None:
    assert judged.ATTEMPTS in broken(_retries([(*gaps, 1.6) for gaps in _JITTERED]))
    assert judged.ATTEMPTS in broken(_failing(attempts=5))


@pytest.mark.parametrize(
    ("operation", "names"),
    [("tagging", set()), ("attributes", set()), ("versionId", {judged.ATTEMPTS}), ("partNumber", {judged.ATTEMPTS})],
)
def test_only_requests_for_the_contents_of_a_file_are_attempts(operation: str, names: set[str]) -> None:
    found = _failing()
    another = replace(found.requests[0], operation=operation)
    assert broken(replace(found, requests=(*found.requests, another))) == names


def test_a_single_download_is_no_retry() -> None:
    once = _retries([() for _ in _JITTERED])
    assert broken(once) == set()  # its worker may come to it later
    failed = {one.id: row(one, Status.FAILED) for one in once.uploads}
    assert broken(replace(once, rows=failed)) == {judged.RETRIED}


@pytest.mark.parametrize("cap", [1, 2])
def test_few_attempts_have_no_growth(cap: int) -> None:
    found = _retries([gaps[: cap - 1] for gaps in _JITTERED])
    found = replace(found, settings=replace(found.settings, attempts=cap))
    assert broken(found) == set()


def test_delays_that_do_not_grow_are_found() -> None:
    constant = [tuple(0.2 * (1 + of / 16) for _ in range(3)) for of in range(16)]
    assert broken(_retries(constant)) == {judged.GROWTH}


def test_delays_beyond_the_longest_are_found() -> None:
    assert judged.LONGEST in broken(_retries([(*gaps[:2], 60.0 + of) for of, gaps in enumerate(_JITTERED)]))


def test_equal_delays_are_found_also_next_to_the_resolution_of_a_sleep() -> None:
    assert broken(_retries([(0.2, 0.4, 0.8 + of / 1000) for of in range(16)])) == {judged.JITTER}


def test_delays_say_nothing_on_a_machine_that_paused() -> None:
    assert broken(replace(_retries([(0.2, 0.4, 0.8)] * 16), pause_s=5.0)) == set()


def test_few_uploads_say_nothing_about_delays() -> None:
    assert broken(_retries([(0.2, 0.4, 0.8)] * (judged.FEWEST_RETRIED - 1))) == set()


@given(st.lists(st.floats(0.01, 100), min_size=2), st.floats(0.01, 60))
def test_jitter_is_never_what_noise_explains(delays: list[float], noise_s: float) -> None:
    shown = has_jitter(delays, noise_s)
    assert shown is not True or max(delays) - min(delays) > noise_s
    assert has_jitter([delays[0]] * len(delays), noise_s) is False


def test_what_all_delays_have_in_common_is_no_jitter() -> None:
    noise = [0.3 * (of % 8) / 7 for of in range(16)]
    found = _retries([tuple(0.2 * 2**number + more for number in range(3)) for more in noise])
    assert broken(found) == set()
    gaps = [Ingested(found).gaps(of) for of in found.uploads]
    assert jitter_of(Ingested(found), gaps) is None
    assert jitter_of(Ingested(found), [list(delays) for delays in _JITTERED]) is True


def test_a_poll_hides_growth_and_jitter() -> None:
    uploads = [upload(number, end="any") for number in range(1, 17)]
    requests = tuple(one for of in uploads for one in retried(of, 2.0, 2.01))
    settings = Settings(attempts=3, shortest_delay_s=0.5, longest_delay_s=2.0, poll_s=2.0)
    hidden = replace(state(IngestCase.RETRIES, *uploads, requests=requests), settings=settings)
    assert broken(hidden) == set()
    found = Ingested(hidden)
    assert (found.promises_growth, found.shows_growth) == (True, False)
    # a worker that looks often would have shown both
    assert broken(replace(hidden, settings=replace(settings, poll_s=0.2))) == {judged.GROWTH, judged.JITTER}


def test_a_few_uploads_that_wait_for_something_else_show_no_jitter() -> None:
    assert has_jitter([0.8] * 22 + [3.1, 3.2], 0.2) is False


def test_an_upload_that_fails_has_to_be_failed_after_the_cap_and_not_before() -> None:
    found = _failing()
    assert broken(_with_row(found, status=Status.PENDING)) == {judged.NOT_FAILED}
    assert broken(_failing(attempts=2)) == {judged.FEWER}


@pytest.mark.parametrize("case", [IngestCase.STORE_FAILS, IngestCase.CORRUPT_DOWNLOAD])
def test_a_download_that_failed_has_to_be_repeated(case: IngestCase) -> None:
    found = _SOUND[case]
    once = tuple(one for one in found.requests if one.status == 200)
    assert broken(replace(found, requests=once)) == {judged.RETRIED}


def test_a_wrong_checksum_is_the_reason_of_a_download_that_was_not_repeated() -> None:
    found = _with_row(_SOUND[IngestCase.CORRUPT_DOWNLOAD], checksum="0" * 64)
    once = replace(found, requests=tuple(one for one in found.requests if one.status == 200))
    expectations = [one for one in judge(once) if one.broken]
    assert [one.name for one in expectations] == [judged.RETRIED, judged.CHECKSUM]
    assert reason_of(expectations).startswith(judged.CHECKSUM)


# --- several workers and projects ------------------------------------------------------------------------


def test_a_file_that_is_downloaded_twice_is_found() -> None:
    found = _SOUND[IngestCase.TWO_WORKERS]
    again = download(found.uploads[0], 5.0)
    assert broken(replace(found, requests=(*found.requests, again))) == {judged.TWICE}
    # a download that failed, and two halves of a file, are one download
    assert broken(replace(found, requests=(*found.requests, replace(again, ending="cut", sent=40)))) == set()
    half = replace(download(found.uploads[0], 2.2), sent=50, range="bytes=0-49", status=206)
    assert broken(replace(found, requests=(half, half, *found.requests[1:]))) == set()


def test_downloads_of_two_files_overlap() -> None:
    one, other = upload(1), upload(2)
    long = replace(download(one, 1.0), seconds=3.0)
    assert have_overlapped([long, download(other, 2.0)])
    assert have_overlapped([download(other, 3.5), download(one, 0.5), long])
    assert not have_overlapped([long, download(other, 4.0)])
    # two parts of the same file, and a download that was given up
    assert not have_overlapped([long, download(one, 2.0)])
    assert not have_overlapped([replace(long, ending="client-gone"), download(other, 2.0)])
    assert not have_overlapped([])


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(1, 5)), max_size=8))
def test_overlaps_are_those_of_all_pairs(spans: list[tuple[int, int, int]]) -> None:
    found = [replace(download(upload(of), float(at)), seconds=float(seconds)) for of, at, seconds in spans]
    pairs = any(
        a.key != b.key and a.at < b.at + b.seconds and b.at < a.at + a.seconds
        for a, b in itertools.combinations(found, 2)
    )
    assert have_overlapped(found) is pairs


@pytest.mark.parametrize("column", ["project", "filename", "content_type"])
def test_metadata_of_another_upload_are_found(column: str) -> None:
    assert broken(_with_row(_SOUND[IngestCase.OTHER_METADATA], **{column: "another"})) == {judged.METADATA}


def test_text_of_another_project_is_found_only_where_its_own_kind_has_none() -> None:
    same, kind = "a" * 64, "application/octet-stream"
    first = upload(1, sha256=same, project="a")
    second = upload(2, sha256=same, project="b", kind=kind)
    own = upload(3, project="b", kind=kind)
    found = state(IngestCase.OTHER_METADATA, first, second, own)
    assert broken(found) == set()
    leaked = replace(found, rows=found.rows | {"u2": replace(row(second), text="text of project a")})
    assert broken(leaked) == {judged.LEAKED}
    extracts_all = replace(leaked, rows=leaked.rows | {"u3": replace(row(own), text="its own")})
    assert broken(extracts_all) == set()


def test_a_program_that_ignores_sigterm_is_found() -> None:
    found = replace(_SOUND[IngestCase.STOPS], ignored_sigterm=("A",))
    assert broken(found) == {judged.IGNORED}
    assert words(found) == "ignores SIGTERM: 1"


# --- requests that the harness refused, and a store that fails by itself --------------------------------------------------

_LISTED = replace(
    download(upload(1), 9.0),
    method="GET",
    key="",
    operation="list-type",
    status=403,
    refused="lists outside of the prefix",
)
_REMOVED = replace(_LISTED, method="DELETE", key="theirs", operation="", refused="is outside", changes_others=True)
_FULL = replace(_LISTED, method="PUT", status=507, refused="")
_GONE = replace(_LISTED, status=0, ending="no-store", refused="")


def _stuck(*requests: StoreRequest) -> IngestState:
    found = state(IngestCase.LATE_UPLOAD)
    first = found.uploads[0]
    stuck = found.rows | {first.id: row(first, Status.PROCESSING)}
    return replace(found, rows=stuck, requests=(*found.requests, *requests))


@pytest.mark.parametrize("request_", [_LISTED, _FULL, _GONE], ids=["refused", "full", "gone"])
def test_what_the_harness_or_the_store_may_have_caused_is_not_a_finding(request_: StoreRequest) -> None:
    assert broken(_stuck()) == {judged.NOT_INDEXED}
    assert broken(_stuck(request_)) == set()
    assert [one.name for one in judged.undecided_by(_stuck(request_))] == [judged.NOT_INDEXED]
    # what nothing of it can cause
    wrong = _with_row(state(IngestCase.LATE_UPLOAD), checksum="0" * 64)
    assert broken(replace(wrong, requests=(*wrong.requests, request_))) == {judged.CHECKSUM}


def test_a_refused_change_of_what_belongs_to_others_is_the_finding() -> None:
    assert broken(_stuck(_REMOVED)) == {judged.OUTSIDE}


@pytest.mark.parametrize(("request_", "names"), [(_LISTED, {judged.OBJECTS}), (_GONE, set())], ids=["refused", "gone"])
def test_a_store_that_fails_may_lose_objects(request_: StoreRequest, names: set[str]) -> None:
    assert broken(replace(_stuck(request_), uploads_lost=1)) == names


def test_a_refusal_changes_nothing_where_everything_holds() -> None:
    sound = state(IngestCase.LATE_UPLOAD)
    assert judged.undecided_by(replace(sound, requests=(*sound.requests, _LISTED, _GONE))) == ()


def test_an_injected_fault_is_not_a_failure_of_the_store() -> None:
    assert broken(_stuck(replace(_FULL, fault="unavailable"))) == {judged.NOT_INDEXED}


def test_the_reason_names_the_request_and_what_it_may_have_caused() -> None:
    said = undecided(_stuck(_LISTED, _LISTED, _GONE))
    assert said == (
        "the harness refused 2 requests, the first one GET /b?list-type (lists outside of the prefix), and the object store "
        "failed by itself at GET /b?list-type (no answer), which may be the cause of this: uploads that are not indexed "
        "(expected 0, observed 1 (processing))"
    )
    assert undecided(_stuck()) == ""


# --- a machine that is overloaded ------------------------------------------------------------------------


def test_what_a_program_does_not_do_in_time_on_an_overloaded_machine_is_no_finding() -> None:
    found = state(IngestCase.DUPLICATES)
    refused = tuple(replace(one, stored_s=None, error="the API answered 503, expected 201") for one in found.uploads)
    late = replace(found, uploads=refused, crowd=32.0)
    assert broken(late) == set()
    assert undecided(late).startswith("32 tasks wanted to run on each core of this machine, which may be the cause of ")
    assert broken(replace(late, crowd=11.0)) == {judged.REFUSED}


def test_a_claim_that_runs_out_on_an_overloaded_machine_is_no_finding() -> None:
    found = replace(_SOUND[IngestCase.TWO_WORKERS], crowd=32.0)
    again = replace(found, requests=(*found.requests, download(found.uploads[0], 5.0)))
    assert broken(again) == set()
    assert judged.TWICE in undecided(again)


@pytest.mark.parametrize("name", sorted({judged.CHECKSUM, judged.OTHERS}))
def test_an_overloaded_machine_hides_no_wrong_result(name: str) -> None:
    found = replace(state(IngestCase.DUPLICATES), crowd=32.0, others_lost=1)
    first = found.uploads[0].id
    rows = {key: replace(one, checksum="0") if key == first else one for key, one in found.rows.items()}
    assert name in broken(replace(found, rows=rows))
