"""The labs of a run that are up: each is removed once, after its logs are stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.events import LabStopped, Notice

if TYPE_CHECKING:
    from harness.events import Listener
    from harness.lab.lab import Lab
    from harness.store import RunStore

#: how long an interrupted run waits for a check that ends its load and judges it
_LOAD_ENDS_S = 90.0


class OpenLabs:
    """Labs that are up. Threads share it."""

    def __init__(self, store: RunStore, listener: Listener) -> None:
        self._store = store
        self._notify = listener
        self._labs: list[Lab] = []
        self._lock = Lock()

    def add(self, lab: Lab) -> None:
        """Take over a lab: `close_all` removes it as well."""
        with self._lock:
            self._labs.append(lab)

    def tear_down(self, lab: Lab) -> None:
        """Store the logs, then remove the lab. Errors here are reported and never mask an earlier one."""
        with self._lock:
            if lab not in self._labs:
                return
            self._labs.remove(lab)
        if lab.under_load.acquire(timeout=_LOAD_ENDS_S):
            lab.under_load.release()
        try:
            self._store_logs(lab)
        except HarnessError as error:
            self._notify(Notice(str(error)))
        try:
            lab.close()
        except HarnessError as error:
            self._notify(Notice(str(error)))
        if not lab.log_suffix:  # the first lab of the topology stands for it
            self._notify(LabStopped(lab.topology.name))

    def _store_logs(self, lab: Lab) -> None:
        for service, text in lab.logs().items():
            self._store.write_log(lab.topology.name, f"{service}{lab.log_suffix}", text)
        for (check, name), text in lab.artifacts.items():
            self._store.write_artifact(lab.topology.name, check, name, text)

    def close_all(self) -> None:
        """Remove all labs, at the same time."""
        with self._lock:
            labs = list(self._labs)
        with ThreadPoolExecutor(max(1, len(labs))) as pool:
            list(pool.map(self.tear_down, labs))
