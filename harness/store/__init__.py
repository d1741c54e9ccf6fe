"""Evidence on disk: one folder per run, appended as it happens, readable after any crash.

    reports/runs/<utc>-<id>/
      run.json        the record: plan, provenance, topologies as they ran, and the seal; replaced atomically
      results.jsonl   one row per attempt of a planned check, appended
      proofs.jsonl    one row per control, when the run proved its checks
      trail.jsonl     one row per break of the trail, when the run proved its checks
      observed.jsonl  one row per mutation of the rows that checks read, when the run proved its checks
      logs/<topology>/<service>.log
      artifacts/<topology>/<check>/…   files that a check produced, such as JUnit XML
      histories/<topology>/<check>.jsonl   the operations of a check under load or faults; `.state.json`: the end

A killed run leaves complete rows and at most one incomplete line, which the reader drops. A planned row without a
result is then read as Not run. :mod:`harness.store.chain` describes how an edit is noticed, and
:mod:`harness.store.rules` which rows the reader refuses.
"""

from harness.store.files import require_writable, write_atomically, write_together
from harness.store.histories import (
    Journal,
    attempt_of,
    history_files,
    is_named,
    is_under_control,
    read_history,
    read_state,
)
from harness.store.integrity import Integrity, Verdict
from harness.store.reading import StoredRun, kept_runs, read_run, read_runs, run_folders_in
from harness.store.statement import PREDICATE_TYPE, compare, statement_of
from harness.store.writing import RunStore, new_run_id, utc_now

__all__ = [
    "PREDICATE_TYPE",
    "Integrity",
    "Journal",
    "RunStore",
    "StoredRun",
    "Verdict",
    "attempt_of",
    "compare",
    "history_files",
    "is_named",
    "is_under_control",
    "kept_runs",
    "new_run_id",
    "read_history",
    "read_run",
    "read_runs",
    "read_state",
    "require_writable",
    "run_folders_in",
    "statement_of",
    "utc_now",
    "write_atomically",
    "write_together",
]
