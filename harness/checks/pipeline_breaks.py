"""What a control changes of an ingest pipeline under test, or of what the harness reads about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.judges.ingest_state import IngestState


class PipelineBreaks:
    """The breaks of one check; without a control, none of them changes anything."""

    def __init__(self) -> None:
        #: replaces variables in the environment of its programs
        self.environment: dict[str, str] = {}
        #: begins the command of the API and of each worker: a program that gets the command as its arguments
        self.wrap: tuple[str, ...] = ()
        #: gets the running pipeline before the final state is read
        self.at_end: Callable[[Any], None] = lambda _run: None
        #: replaces the final state
        self.state: Callable[[IngestState], IngestState] = lambda state: state
