"""The cases of the suite `ingest`: the situations that a pipeline is brought into."""

from __future__ import annotations

from enum import StrEnum


class IngestCase(StrEnum):
    """A situation; the ids of checks hold its value, so it stays the same."""

    END_TO_END = "end-to-end"
    LATENCY = "latency"
    THREE_RUNS = "three-runs"
    RETRIES = "retries"
    STORE_FAILS = "store-fails"
    DATABASE_FAILS = "database-fails"
    PERMANENT_FAILURE = "permanent-failure"
    LATE_UPLOAD = "late-upload"
    KILLED_WORKER = "killed-worker"
    DUPLICATES = "duplicates"
    OTHER_METADATA = "other-metadata"
    TWO_WORKERS = "two-workers"
    CORRUPT_DOWNLOAD = "corrupt-download"
    STOPS = "stops"
    READINESS = "readiness"
    LOGS = "logs"
    CORRELATION = "correlation"
    METRICS = "metrics"
    FAILURES = "failures"
    ADDRESS = "address"
    AUDITED = "audited"
