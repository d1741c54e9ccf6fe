"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness.cli import audit, decide, execute, identify, inspect, lint, verify
from harness.cli.context import Context
from harness.cli.settings import read_settings
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.engine.storage import LAB_MIB, NEEDED_MIB, ROOMY_MIB, StoragePolicy
from harness.errors import HarnessError, UsageError
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_JOBS = 64

_EXIT_CODES = """\
exit codes: 0 nothing but OK, N/A and known Issues; 1 an Issue; 2 usage or configuration; 3 nothing could be
verified, or a topology did not stand, or none of an environment's paths could be taken; 4 Not run rows under
--strict; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="harness",
        description="Proves whether an audit trail survives the pooler in front of PostgreSQL.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    listing = commands.add_parser("list", help="list topologies, suites, checks or audit targets")
    listing.add_argument("what", nargs="?", metavar="topologies|suites|checks|targets")
    listing.add_argument("--json", action="store_true", help="for machines")
    listing.set_defaults(run=inspect.list_things)

    for name, function, text in (
        ("verify", verify.verify, "run the checks of topologies (all when none is named)"),
        ("prove", verify.prove, "run every check under its controls: each must turn to Issue"),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument("topologies", nargs="*", metavar="TOPOLOGY")
        command.add_argument("--suite", action="append", default=[], help="only this suite; may be repeated")
        command.add_argument("--check", action="append", default=[], help="only this check; may be repeated")
        command.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
        if name == "verify":
            command.add_argument(
                "--environment",
                metavar="NAME",
                help="verify an environment of harness.toml instead: what is safe there",
            )
        _add_running(command)
        command.set_defaults(run=function)

    report = commands.add_parser("report", help="fill the tables from evidence", allow_abbrev=False)
    report.add_argument(
        "--from",
        dest="from_",
        nargs="+",
        default=[],
        metavar="DIR",
        help="run folders to merge, also from other machines",
    )
    report.add_argument(
        "--complete", action="store_true", help="first run the topologies that lack evidence for this code"
    )
    report.add_argument("--fresh", action="store_true", help="with --complete: run them all again")
    report.add_argument("--markdown", action="store_true", help="also print the report to stdout, for a CI job summary")
    report.add_argument(
        "--into",
        action="append",
        default=[],
        metavar="FILE",
        help="also fill the tables between their markers in a document of your own; may be repeated",
    )
    report.add_argument("--check", action="store_true", help="with --into: only say whether it is up to date")
    _add_running(report)
    report.set_defaults(run=verify.report)

    command = commands.add_parser(
        "decide", help="say whether a workflow may be rolled out, or what is missing", allow_abbrev=False
    )
    command.add_argument("workflows", nargs="*", metavar="WORKFLOW", help="of harness.toml; all when none is named")
    command.set_defaults(run=decide.decide)

    command = commands.add_parser("matrix", help="print the CI matrix as JSON", allow_abbrev=False)
    command.add_argument(
        "--set",
        dest="axis",
        action="append",
        metavar="PRODUCT=VERSION[,VERSION]",
        help="a job for each of these versions, such as postgres=15,17; may be repeated",
    )
    command.add_argument("--all", action="store_true", help="also the topologies that are there on demand")
    command.set_defaults(run=inspect.matrix)
    command = commands.add_parser("images", help="pull or build the images that topologies need")
    command.add_argument("topologies", nargs="*", metavar="TOPOLOGY")
    _add_images(command)
    command.set_defaults(run=inspect.images)
    command = commands.add_parser("doctor", help="say what this machine can run, and what is in the way")
    command.set_defaults(run=inspect.doctor)
    command = commands.add_parser("reap", help="remove what killed runs left")
    command.add_argument("--engine", choices=("auto", "docker", "native"))
    command.set_defaults(run=inspect.reap)

    _add_running(execute.add_command(commands))
    lint.add_command(commands)
    audit.add_commands(commands)
    identify.add_command(commands)

    for command in {id(each): each for each in commands.choices.values()}.values():
        command.add_argument("--reports", metavar="DIR", help="where evidence and reports lie (default: reports)")
        command.add_argument("--topologies-folder", metavar="DIR", help="where topology files lie")
    return parser


def _add_running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", choices=("auto", "docker", "native"), help="auto prefers Docker")
    command.add_argument(
        "--storage",
        choices=tuple(map(str, StoragePolicy)),
        help=f"where servers keep their data (default: auto: in memory, {LAB_MIB} to {ROOMY_MIB} MiB a topology, where "
        f"{NEEDED_MIB} MiB are available, else on disk); memory: there or not at all; disk: without fsync",
    )
    command.add_argument("--jobs", type=_positive, metavar="N", help="checks at a time in each topology")
    command.add_argument(
        "--audit-target",
        metavar="NAME|FILE.toml",
        help="the audit trail to judge (default: reference; `list targets` says which others there are)",
    )
    command.add_argument(
        "--audit-sql", action="append", metavar="FILE", help="SQL that installs the audit trail; may be repeated"
    )
    command.add_argument("--strict", action="store_true", help="exit 4 when a row is Not run")
    _add_images(command)


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", metavar="PRODUCT=VERSION", help="another version, such as postgres=15"
    )
    command.add_argument("--image", action="append", metavar="PRODUCT=REFERENCE", help="another image for a product")
    command.add_argument("--image-prefix", metavar="PREFIX", help="put before image names, for mirrors")
    command.add_argument(
        "--pull", choices=("missing", "never", "always"), help="when to pull images (default: missing)"
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"found {text!r}, needed a whole number from 1 to {_MOST_JOBS}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error for users is printed, never raised."""
    if sys.stdout is None:  # closed by the caller, as in `harness verify >&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- for as long as the process lives
    redactor = Redactor()
    terminal = Terminal(redactor)
    signals = Signals(terminal.say)
    try:
        signals.install()
        parsed = build_parser().parse_args(arguments)
        context = Context(read_settings(parsed), terminal, redactor, signals)
        code: int = parsed.run(context, parsed)
        sys.stdout.flush()
    except HarnessError as error:
        terminal.close()
        terminal.say(f"harness: {error}", "bold red")
        return error.exit_code
    except BrokenPipeError:
        # the reader of stdout left, as `harness list | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        terminal.close()
        terminal.say(f"harness: {error.filename or 'the output'}: {error.strerror or error}", "bold red")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HarnessError.exit_code
    except Exception:  # noqa: BLE001 -- a mistake of ours must not pass for an Issue that was found
        terminal.close()
        terminal.say("harness: this is a mistake of the harness itself, please report it\n" + traceback.format_exc())
        return HarnessError.exit_code
    finally:
        terminal.close()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
