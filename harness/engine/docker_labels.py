"""The labels of containers, networks and images. They name the owner, so that leftovers can be found."""

from __future__ import annotations

from harness.engine.owner import Owner

LABEL_TOOL = "pooler-harness"
LABEL_RUN = "pooler-harness.run"
LABEL_TOPOLOGY = "pooler-harness.topology"
LABEL_CREATED = "pooler-harness.created"
LABEL_KEPT = "pooler-harness.kept"
LABEL_VERSION = "pooler-harness.version"
#: the id of a build; set while it is unfinished, empty in the finished image
LABEL_BUILD = "pooler-harness.build"
LABEL_HOST = "pooler-harness.owner.host"
LABEL_PID = "pooler-harness.owner.pid"
LABEL_STARTED = "pooler-harness.owner.started"


def is_leftover(labels: dict[str, str]) -> bool:
    """Return whether the owner that these labels name is gone. Kept objects are exempt."""
    if LABEL_KEPT in labels:
        return False
    try:
        owner = Owner(
            run_id=labels.get(LABEL_RUN) or labels[LABEL_BUILD],
            host=labels[LABEL_HOST],
            pid=int(labels[LABEL_PID]),
            started=int(labels[LABEL_STARTED]),
        )
    except (KeyError, ValueError):
        return False
    return owner.is_gone()
