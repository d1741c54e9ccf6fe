"""The trial of a job engine: a sound course has no mistake, and each single mistake is named with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.judges.job_state import Effect
from harness.cli.jobs import verdict
from harness.job_engines.loading import shipped as shipped_engines
from harness.suites.jobs.mistakes import Mistake, Seen, mistakes_in
from harness.suites.jobs.shadowed import namesakes, shadowed
from harness.suites.jobs.states import WORDS, StateQueryError, states_in
from harness.suites.jobs.trial import Trial, tried_job
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

    from harness.job_engines.loading import JobEngine

KEYS = (1, 2, 3)


def effect(key: int, phase: str, seconds: float = 0.0, worker: str = "A") -> Effect:
    return Effect(seconds=seconds, key=key, phase=phase, worker=worker, attempt=1, job=f"job-{key}")


def without(*dropped: tuple[int, str]) -> tuple[Effect, ...]:
    return tuple(one for one in SOUND.effects if (one.key, one.phase) not in dropped)


SOUND = Seen(
    keys=KEYS,
    worker="A",
    effects=tuple(effect(key, phase, key) for phase in ("enqueued", "begin", "done") for key in KEYS),
    states=dict.fromkeys(KEYS, "done"),
)


@pytest.mark.parametrize("states", [SOUND.states, {}, {1: "done"}])
def test_a_sound_course_has_no_mistake(states: dict[int, str]) -> None:
    assert mistakes_in(replace(SOUND, states=states)) == ()


@each_row(
    ("changes", "found"),
    [
        ({"install_failed": "42601: no (exit code 1)"}, "the command `install` failed: 42601: no (exit code 1)"),
        ({"exits": ("exit code 1 after 0.1 s: no",)}, "the worker exited once, which nothing asked for: exit code 1"),
        ({"exits": ("a", "b")}, "the worker exited 2 times, which nothing asked for: b"),
        ({"ignored_sigterm_s": 5.0}, "the worker did not end within 5 s of SIGTERM"),
        ({"effects": without((2, "enqueued"))}, "`enqueue` did not report job 2 as enqueued"),
        ({"effects": without((2, "begin"), (2, "done"))}, "job 2 never began"),
        ({"effects": without(*((key, phase) for key in KEYS for phase in ("begin", "done")))}, "jobs 1, 2, 3 never"),
        ({"effects": (*SOUND.effects, effect(0, "begin"), effect(0, "done"))}, "job 0, which nobody enqueued"),
        ({"effects": without((3, "done")), "states": {}}, "job 3 began, and did not report an end"),
        ({"effects": (*SOUND.effects, effect(3, "failed"))}, "job 3 reported a failed attempt"),
        ({"effects": (*SOUND.effects, effect(3, "done"))}, "job 3 was done more than once, without a fault"),
        ({"lost_payloads": (1, 2)}, "jobs 1, 2 began without the payload"),
        ({"effects": (*without((1, "begin")), effect(1, "begin", worker=""))}, "jobs began on the worker '', expected"),
        ({"output": "ERROR: invalid input syntax for type integer: x"}, "a key that is not an integer"),
        ({"state_error": "sql.state returns 2 columns"}, "sql.state returns 2 columns"),
        ({"states": {**SOUND.states, 9: "done"}}, "sql.state returns job 9, which nobody enqueued"),
        ({"states": {**SOUND.states, 2: "running"}}, "sql.state returns 'running' for job 2, which reported done"),
    ],
)
def test_each_mistake_is_named_and_nothing_else(changes: dict[str, Any], found: str) -> None:
    [mistake] = mistakes_in(replace(SOUND, **changes))
    assert found in mistake.what
    assert mistake.hint


def test_after_an_enqueue_that_failed_only_the_reported_jobs_are_awaited() -> None:
    effects = without(*((3, phase) for phase in ("enqueued", "begin", "done")))
    [mistake] = mistakes_in(replace(SOUND, effects=effects, enqueue_failed="42P01: no (exit code 1)"))
    assert mistake.what == "the command `enqueue` failed: 42P01: no (exit code 1)"


@pytest.mark.parametrize(
    ("failed", "of_install"),
    [("42P01: no table", True), ("3F000: no schema", True), ("42601: no", False), ("no (exit code 1)", False)],
)
def test_an_installation_without_its_commit_is_named_where_a_job_cannot_be_enqueued(
    failed: str, of_install: bool
) -> None:
    [mistake] = mistakes_in(replace(SOUND, enqueue_failed=failed))
    assert ("commit in `install` what it creates" in mistake.hint) is of_install


def test_after_a_failed_installation_nothing_else_is_a_mistake() -> None:
    seen = Seen(keys=KEYS, worker="A", install_failed="42601: no (exit code 1)")
    [mistake] = mistakes_in(seen)
    assert mistake.what == "the command `install` failed: 42601: no (exit code 1)"


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("AttributeError: partially initialized module 'signal' has no attribute 'SIGTERM'", "signal"),
        ("AttributeError: module 'signal' has no attribute 'SIGTERM'", "signal"),
        ("AttributeError: module 'signal' has no attribute 'x' (consider renaming '/mine/signal.py')", "signal"),
        ("ImportError: cannot import name 'Oban' from partially initialized module 'oban' (most likely …)", "oban"),
        ("ImportError: cannot import name 'perform' from 'effects' (/mine/effects.py)", "effects"),
        ("ModuleNotFoundError: No module named 'oban.schema'; 'oban' is not a package", "oban"),
    ],
)
def test_a_program_that_hides_a_module_is_the_one_mistake(printed: str, name: str, tmp_path: Path) -> None:
    engine = engine_in(tmp_path, name)
    for field in ("output", "output_of_commands"):
        seen = Seen(
            keys=KEYS,
            worker="A",
            exits=("exit code 1 after 0.1 s",) * 3,
            install_failed="no" if field == "output_of_commands" else "",
            namesakes=namesakes(engine),
        )
        [mistake] = mistakes_in(replace(seen, **{field: printed}))
        assert f"{tmp_path}/{name}.py hides the module `{name}`" in mistake.what
        assert "-P" in mistake.hint


@pytest.mark.parametrize("name", ["mine", "worker"])
def test_a_mistake_in_a_module_of_the_target_is_not_a_hidden_module(name: str, tmp_path: Path) -> None:
    assert namesakes(engine_in(tmp_path, name)) == {}


def test_an_error_of_a_module_of_python_itself_is_not_a_hidden_module() -> None:
    assert shadowed("AttributeError: module 'signal' has no attribute 'x'", {}) == ()
    assert shadowed("AttributeError: module 'signal' has no attribute 'x'", {"oban": "/mine/oban.py"}) == ()
    assert shadowed("ImportError: partially initialized module 'mine' has no …", {"oban": "/mine/oban.py"}) == ()


def test_a_module_that_python_itself_could_not_load_is_named_by_the_file_that_kept_it_from_loading() -> None:
    files = {"oban": "/mine/oban.py", "signal": "/mine/signal.py"}
    printed = (
        "AttributeError: partially initialized module 'subprocess' from '/lib/subprocess.py' has no attribute 'PIPE'"
    )
    assert shadowed(f'  File "/mine/signal.py", line 9, in <module>\n{printed}', files) == ("signal",)
    assert shadowed(printed, files) == ("oban", "signal")
    assert shadowed(printed, {}) == ()


@given(st.text())
def test_any_output_is_read(output: str) -> None:
    assert shadowed(output, {"signal": "/mine/signal.py"}) in {(), ("signal",)}


def engine_in(folder: Path, name: str) -> JobEngine:
    """Return a target with one program of this name."""
    (folder / f"{name}.py").touch()
    shipped = next(engine for engine in shipped_engines() if engine.name == "oban")
    return replace(shipped, folder=folder)


@pytest.mark.parametrize(
    ("done", "number", "behind_a_pooler", "expected"),
    [
        (10, 0, False, "10 of 10 jobs were done, and nothing is wrong"),
        (10, 1, False, "10 of 10 jobs were done, but the target has 1 mistake"),
        (10, 2, True, "10 of 10 jobs were done, but 2 things are wrong"),
        (0, 2, False, "0 of 10 jobs were done: the target has 2 mistakes"),
        (9, 1, True, "9 of 10 jobs were done: 1 thing is wrong"),
        (9, 0, False, "9 of 10 jobs were done, and no mistake of the target was recognised"),
    ],
)
def test_the_verdict_has_the_jobs_and_the_mistakes(
    done: int, number: int, behind_a_pooler: bool, expected: str
) -> None:
    trial = Trial(mistakes=(Mistake(what="a", hint="b"),) * number, done=done, output={})
    assert verdict(trial, behind_a_pooler=behind_a_pooler) == expected


# --- the query of states -----------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 99), st.sampled_from(WORDS)), st.booleans())
def test_keys_and_words_are_taken_as_they_are(states: dict[int, str], as_text: bool) -> None:
    assert states_in([(str(key) if as_text else key, state) for key, state in states.items()]) == states


@given(st.one_of(st.none(), st.text(), st.integers(), st.binary()).filter(lambda word: word not in WORDS))
def test_every_other_word_is_rejected(word: object) -> None:
    with pytest.raises(StateQueryError, match="expected one of waiting, running"):
        states_in([(1, word)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1,), "returns 1 columns, expected key and state"),
        ((1, "done", 3), "returns 3 columns"),
        ((None, "done"), "returns the key None, expected an integer"),
        (("job-1", "done"), "returns the key 'job-1', expected an integer"),
    ],
)
def test_rows_of_another_shape_are_rejected(row: tuple[object, ...], message: str) -> None:
    with pytest.raises(StateQueryError, match=message):
        states_in([row])


# --- the lines of jobs -------------------------------------------------------------------------------------


def test_a_job_shows_when_it_was_enqueued_begun_and_done() -> None:
    effects = (
        effect(1, "enqueued", 1.0),
        effect(2, "enqueued", 1.5),
        effect(2, "begin", 2.0),
        effect(2, "done", 2.25),
        effect(2, "begin", 4.0, worker="B"),
    )
    job = tried_job(2, effects, {2: "done"})
    assert (job.enqueued_s, job.begun_s, job.done_s) == (0.5, 0.5, 0.75)
    assert (job.worker, job.attempt, job.state) == ("B", 1, "done")


@pytest.mark.parametrize(
    ("key", "effects", "states", "state"),
    [(1, SOUND.effects, {}, "deleted"), (4, SOUND.effects, {}, "unknown"), (4, (), {4: "waiting"}, "waiting")],
)
def test_a_job_without_a_row_was_deleted_if_it_was_done(
    key: int, effects: tuple[Effect, ...], states: dict[int, str], state: str
) -> None:
    assert tried_job(key, effects, states).state == state
