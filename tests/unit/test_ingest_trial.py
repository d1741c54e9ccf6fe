"""The end of a trial of a pipeline, in one sentence."""

from __future__ import annotations

import pytest

from harness.cli.ingest import verdict
from harness.suites.ingest.trial import Trial


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (Trial(indexed_s=0.4213), "the upload was indexed after 0.42 s, and nothing is wrong"),
        (Trial(indexed_s=0.0, wrong=("a",)), "the upload was indexed after 0.00 s, but 1 thing is wrong"),
        (Trial(wrong=("a", "b")), "the upload was not indexed: 2 things are wrong"),
    ],
)
def test_the_end_of_a_trial_says_what_became_of_the_upload(trial: Trial, words: str) -> None:
    assert verdict(trial) == words
