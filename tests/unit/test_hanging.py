"""Locks in words, and ids that are a number and nothing else."""

from __future__ import annotations

import hashlib

import pytest

from harness.checks.hanging import lock_in_words
from harness.suites.capture.transactions import stands_for

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


@pytest.mark.parametrize(
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
