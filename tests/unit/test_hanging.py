"""Locks in words, and ids that are a number and nothing else."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.checks import hanging
from harness.checks.hanging import HangWatch, lock_in_words, was_held_up
from harness.suites.capture.transactions import stands_for
from tests.tables import each_row

_NUMBER = 4711


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (("relation", "ExclusiveLock", "log.changes", "", []), "the lock ExclusiveLock on the table log.changes"),
        (("advisory", "ExclusiveLock", None, "7, 8", []), "the advisory lock 7, 8"),
        (("transactionid", "ShareLock", "log.counter", "", ["posts"]), "a row of log.counter"),
        (("tuple", "ExclusiveLock", "log.counter", "", ["posts"]), "a row of log.counter"),
        (("transactionid", "ShareLock", None, "", ["log.a", "posts"]), "a key that it wrote, in one of log.a, posts"),
        (("virtualxid", "ShareLock", None, "", []), "a lock of the type virtualxid"),
    ],
)
def test_a_lock_is_named_by_its_object(lock: tuple[str, str, str | None, str, list[str]], words: str) -> None:
    assert lock_in_words(*lock) == words


@pytest.mark.parametrize(("now", "held_up"), [(1010.0, False), (1011.5, False), (1060.0, True)])
def test_a_harness_that_did_not_run_itself_is_held_up(
    monkeypatch: pytest.MonkeyPatch, now: float, *, held_up: bool
) -> None:
    monkeypatch.setattr(hanging, "time", SimpleNamespace(time=lambda: now))
    assert was_held_up(1000.0, 10.0) is held_up


def test_no_write_is_blamed_while_the_harness_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, looks = iter([True, True, False]), []

    def blame(_ctx: object) -> bool:
        looks.append("a look")
        return True

    monkeypatch.setattr(hanging, "HANGS_S", 0.0)
    monkeypatch.setattr(hanging, "was_held_up", lambda *_: next(answers))
    monkeypatch.setattr(hanging, "end_hung_write", blame)
    HangWatch()._look(cast("Any", SimpleNamespace(is_ended=False)))
    assert (list(answers), looks) == ([], ["a look"])


@each_row(
    ("identity", "is_bare"),
    [
        ("4711", True),
        ("00000000-0000-0000-0000-000000001267", True),
        ("1267", True),
        ("00000000-0000-1267-0000-000000000000", True),
        (hashlib.md5(b"4711", usedforsecurity=False).hexdigest(), True),
        (hashlib.sha256(b"4711").hexdigest()[:32], True),
        ("4712", False),
        ("0006438f-1267-8000-8000-000000001267", False),
        ("2026-01-01 4711", False),
        ("", False),
        ("f0", False),
    ],
)
def test_an_id_that_is_the_number_alone_is_recognised(identity: str, *, is_bare: bool) -> None:
    assert stands_for(identity, _NUMBER) is is_bare
