"""The uploads of a final state, with the questions that the cases of the suite `ingest` ask about them."""

from __future__ import annotations

import itertools
import statistics
from functools import cached_property
from typing import TYPE_CHECKING

from harness.ingest.pipeline_file import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.judges.ingest_state import IngestState, Upload, UploadRow
    from harness.ingest.store_requests import StoreRequest

#: a demo is ready, and its sample is indexed, within, seconds
TWO_MINUTES_S = 120.0
#: delays that differ by less are equal: the resolution of a worker that sleeps, seconds, and its share of the delay
_SAME_S, _SAME_SHARE = 0.05, 0.1
#: delays that differ by more than noise and this differ on purpose, seconds
_DIFFERENT_S = 0.05
#: the spread of jitter, as a share of the delay: equal jitter and 25 % up and down spread by half of it
_LEAST_JITTER = 0.4
#: percent of the delays that are compared
_SHARE_COMPARED = 85
_LEAST_UPLOADS = 2


class Ingested:
    """The uploads of a final state, with the questions that cases ask."""

    def __init__(self, state: IngestState) -> None:
        self.state = state

    def row(self, upload: Upload) -> UploadRow | None:
        """Return what the pipeline says about an upload; None if it has no row."""
        return self.state.rows.get(upload.id)

    @cached_property
    def stored(self) -> list[Upload]:
        """The uploads whose file the store has confirmed."""
        return [upload for upload in self.state.uploads if upload.stored_s is not None]

    def ending(self, end: str) -> list[Upload]:
        """Return the stored uploads that have to end like this."""
        return [upload for upload in self.stored if upload.end == end]

    def status(self, upload: Upload) -> Status | None:
        row = self.row(upload)
        return row.status if row else None

    def unindexed(self, uploads: Iterable[Upload]) -> list[Upload]:
        return [upload for upload in uploads if self.status(upload) is not Status.INDEXED]

    @cached_property
    def indexed(self) -> list[tuple[Upload, UploadRow]]:
        """The uploads that the pipeline says are indexed, with their rows."""
        found = ((upload, self.row(upload)) for upload in self.state.uploads)
        return [(upload, row) for upload, row in found if row and row.status is Status.INDEXED]

    def attempts(self, upload: Upload) -> list[StoreRequest]:
        """Return the requests of the pipeline's programs for the contents of an object, in their order."""
        found = (request for request in self.state.requests if request.is_attempt and request.key == upload.key)
        return sorted(found, key=lambda request: request.at)

    def gaps(self, upload: Upload) -> list[float]:
        """Return the seconds between the end of a failed download and the beginning of the next one."""
        tried = self.attempts(upload)
        return [after.at - (before.at + before.seconds) for before, after in itertools.pairwise(tried)]

    @property
    def cap(self) -> int:
        return self.state.settings.attempts

    def nominal_s(self, number: int) -> float:
        """Return the delay after a failed download without jitter, by its number from 0."""
        return self.state.settings.nominal_s(number)

    @property
    def promises_growth(self) -> bool:
        """Whether delays of this pipeline grow, as far as its settings say."""
        return self.cap > _LEAST_UPLOADS and self.nominal_s(self.cap - 2) >= 2 * self.nominal_s(0)

    @property
    def shows_growth(self) -> bool:
        """Whether growth can be seen: by less than a poll, all delays may end at the same look of the worker."""
        return self.promises_growth and self.nominal_s(self.cap - 2) - self.nominal_s(0) > self.state.settings.poll_s

    @cached_property
    def latencies(self) -> list[float]:
        """The seconds from the confirmation of the store until an upload was seen as indexed."""
        return [
            max(0.0, upload.indexed_s - upload.stored_s)
            for upload in self.state.uploads
            if upload.indexed_s is not None and upload.stored_s is not None
        ]

    @property
    def allowed_s(self) -> float:
        """The promised latency; the store and the database themselves may be slow, and their time is added."""
        return self.state.settings.latency_p95_s + self.state.floor_s

    @property
    def is_late(self) -> bool:
        """Whether the latency exceeds the promise. On a slow machine, this shows nothing."""
        return percentile(self.latencies, 95) > self.allowed_s

    @property
    def is_too_late(self) -> bool:
        """Whether a deployment took too long. On a slow machine, this shows nothing."""
        return self.state.total_s > TWO_MINUTES_S


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the percentile of some values, by the nearest rank; 0 without a value."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0


def have_overlapped(requests: Iterable[StoreRequest]) -> bool:
    """Return whether complete downloads of two files were under way at the same time."""
    downloads = sorted((one for one in requests if one.is_download), key=lambda one: one.at)
    ended_s, key = -1.0, ""
    for one in downloads:
        if one.at < ended_s and one.key != key:
            return True
        if one.at + one.seconds > ended_s:
            ended_s, key = one.at + one.seconds, one.key
    return False


# --- jitter of retries -----------------------------------------------------------------------------------


def jitter_of(found: Ingested, compare: list[list[float]]) -> bool | None:
    """Return whether the delays of retries have jitter; None if this cannot be decided.

    A worker that looks for uploads seldom ends different delays at the same look, so equal ones say something only if
    the poll is short compared with them.

    :param compare: the delays of each upload.
    """
    between_s = found.state.settings.poll_s
    poll_s, longest_s = between_s * _SHARE_COMPARED / 100, found.nominal_s(found.cap - 2)
    # what all delays have in common, such as waiting for a free processor, is in the shorter ones, too
    shorter = (number for number in range(found.cap - 1) if found.nominal_s(number) < longest_s)
    noise_s = max(poll_s, min((_spread([gaps[number] for gaps in compare]) for number in shorter), default=0.0))
    delays = [max(gaps) for gaps in compare]
    jitter = has_jitter(delays, noise_s)
    # each delay contains up to one poll
    hidden = between_s > _LEAST_JITTER * (statistics.median(delays) - between_s)
    return None if jitter is False and hidden else jitter


def has_jitter(delays: list[float], noise_s: float) -> bool | None:
    """Return whether the delays of several uploads differ by more than a noise; None if this cannot be decided.

    The longest ones do not count: a few uploads always wait for something else.
    """
    if len(delays) < _LEAST_UPLOADS:
        return None
    spread = _spread(delays)
    if spread <= _SAME_S + _SAME_SHARE * statistics.median(delays):
        return False
    return True if spread > noise_s + _DIFFERENT_S else None


def _spread(delays: list[float]) -> float:
    return percentile(delays, _SHARE_COMPARED) - min(delays)


# --- text of others --------------------------------------------------------------------------------------


def leaked(found: Ingested) -> list[Upload]:
    """Return the uploads with a text that the pipeline does not extract from files of their kind.

    The same bytes were sent before, from another project, as a kind whose text is extracted. A file of the later kind
    with contents of its own shows whether its text is extracted, too.
    """
    senders: dict[str, list[Upload]] = {}
    for upload in found.state.uploads:
        senders.setdefault(upload.sha256, []).append(upload)
    own = {upload.content_type for upload, row in found.indexed if len(senders[upload.sha256]) == 1 and row.text}
    later = {upload.number for same in senders.values() for upload in same[1:]}
    return [
        upload
        for upload, row in found.indexed
        if upload.number in later and row.text and upload.content_type not in own
    ]
