"""`audit purge` and `audit export`: the rows of the trail."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from msgspec.structs import asdict

from harness.audit.export import FORMATS, export
from harness.audit.reading import Filter, count_matching
from harness.audit.retention import Policy, purge
from harness.cli import completion, options
from harness.cli.audit_database import connected, dry_run_option, dsn_variable, print_lines
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.output import data_stream
from harness.cli.parser import OneOf, WholeNumber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.export import Format


@command(
    "purge",
    examples=("harness audit purge --keep-days 90 --dry-run", "harness audit purge --keep-days 90"),
)
@options.option(
    "--keep-days",
    type=WholeNumber(),
    required=True,
    metavar="N",
    section="Retention",
    help="age of what is kept, in days",
)
@options.option(
    "--batch-size",
    type=WholeNumber(),
    default=1000,
    metavar="N",
    section="Retention",
    help="rows per transaction (default: 1000)",
)
@options.option(
    "--max-batches",
    type=WholeNumber(),
    default=10_000,
    metavar="N",
    section="Retention",
    help="transactions at most (default: 10000)",
)
@dsn_variable
@dry_run_option
def purge_trail(
    invocation: Invocation, *, keep_days: int, batch_size: int, max_batches: int, dsn_variable: str, dry_run: bool
) -> int:
    """Delete what is older than the policy keeps."""

    class SayProgress(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            invocation.terminal.say(record.getMessage())

    logger = logging.getLogger("harness.audit.purge")
    logger.setLevel(logging.INFO)
    logger.addHandler(SayProgress())
    with connected(dsn_variable) as client:
        purged = purge(
            client,
            Policy(enabled=True, keep_days=keep_days),
            batch_size=batch_size,
            max_batches=max_batches,
            dry_run=dry_run,
        )
    print_lines(f"{name}={value}" for name, value in asdict(purged).items())
    return ExitCode.OK


@command(
    "export",
    examples=(
        "harness audit export --format ndjson --max-rows 0 --output trail.ndjson",
        "harness audit export --table posts --format csv",
    ),
)
@options.option("--format", "kind", type=OneOf(FORMATS), default="json", section="Output", help="default: json")
@options.option(
    "--output",
    "-o",
    metavar="FILE",
    section="Output",
    shell_complete=completion.file_names,
    help="the file appears once it is complete (default: stdout)",
)
@options.option(
    "--max-rows",
    type=WholeNumber(),
    default=10_000,
    metavar="N",
    section="Output",
    help="rows at most, 0 for all (default: 10000)",
)
@options.option("--table", metavar="NAME", section="Filter", help="changes of this table; the stored name, unquoted")
@options.option("--correlation-id", metavar="ID", section="Filter", help="changes with this correlation id")
@options.option(
    "--since-snapshot", metavar="TEXT", section="Filter", help="changes that an earlier export could not see"
)
@dsn_variable
@options.option("--dry-run", is_flag=True, section="Database", help="print how many changes match, write nothing")
def export_trail(
    invocation: Invocation,
    *,
    kind: str,
    output: str | None,
    max_rows: int,
    table: str | None,
    correlation_id: str | None,
    since_snapshot: str | None,
    dsn_variable: str,
    dry_run: bool,
) -> int:
    """Write the trail as CSV, JSON or NDJSON."""
    given = {"table": table, "correlation_id": correlation_id, "since_snapshot": since_snapshot}
    with connected(dsn_variable) as client:
        which = Filter.from_map({name: value for name, value in given.items() if value is not None})
        if dry_run:
            print_lines([f"matching_rows={count_matching(client, which)}"])
            return ExitCode.OK
        file_format, most = cast("Format", kind), max_rows or None
        if output:
            with _written_at_once(Path(output)) as sink:
                exported = export(client, sink, file_format, which, max_rows=most)
        else:
            exported = export(client, data_stream(), file_format, which, max_rows=most)
    cut = f"; CUT at --max-rows {max_rows}" if exported.truncated else ""
    invocation.terminal.say(f"{exported.returned_count} changes exported{cut}; snapshot {exported.snapshot}")
    return ExitCode.OK


@contextmanager
def _written_at_once(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that appears under its name once it is complete.

    A device or a pipe is written to directly; a folder raises :class:`IsADirectoryError`.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="") as sink:
            yield sink
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by the owner only
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as sink:
            yield sink
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    Path(name).replace(path)
