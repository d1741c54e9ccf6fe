"""Measure start-up, capture, whole runs and growth, each compared with a bound, another tool or another commit.

A slow machine is not a defect: a figure over its bound is marked OVER, and the exit code stays 0. It is 1 only when a
part could not be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec import Struct

from harness.errors import HarnessError
from tests.bench import capture, growth, jobs, pooling, soak, startup, trail
from tests.bench.figures import Table
from tests.bench.setting import Scale, Setting, machine
from tests.bench.trees import checked_out, this_tree

if TYPE_CHECKING:
    from collections.abc import Sequence


class Part(Struct, frozen=True, kw_only=True):
    """One benchmark, at its usual scale and at the smallest scale that still exercises all of its code."""

    name: str
    summary: str
    measure: Callable[[Setting, Scale], Iterator[Table]]
    usual: Scale
    quick: Scale
    #: whether --beside can measure another commit with it
    compares: bool = False


# in quick mode, parts with the same command share its run: growth-checks chooses the first checks of the suite capture
_TWO_CHECKS = ("--check=capture.insert", "--check=capture.update")
_ONE_CHECK = _TWO_CHECKS[:1]
_QUICK_JOB = Scale(topologies=("direct",), selection=_ONE_CHECK)

PARTS = (
    Part(
        name="startup",
        summary="starting topologies, compared with the raw Docker SDK, testcontainers and Compose",
        measure=startup.measure,
        usual=Scale(rounds=5),
        quick=Scale(topologies=("transaction",)),
    ),
    Part(
        name="capture",
        summary="capture of changes, compared with the contract's plain trigger",
        measure=capture.measure,
        usual=Scale(rounds=30, rows=100_000, topologies=("direct",)),
        quick=Scale(rows=200, topologies=("direct",)),
        compares=True,
    ),
    Part(
        name="trail",
        summary="export and purge of the trail, compared with COPY and one DELETE",
        measure=trail.measure,
        usual=Scale(rows=1_000_000, topologies=("direct",)),
        quick=Scale(rows=2_000, topologies=("direct",)),
    ),
    Part(
        name="soak",
        summary="judging every row of a load, and the rate of a judged load compared with the same load unjudged",
        measure=soak.measure,
        usual=Scale(rounds=5, rows=1_000_000, topologies=("transaction",)),
        quick=Scale(rows=2_000, topologies=("direct",)),
    ),
    Part(
        name="pooling",
        summary="recognition of a chain from outside, and the pooling suite",
        measure=pooling.measure,
        usual=Scale(rounds=3),
        quick=Scale(rows=1, topologies=("direct",)),
    ),
    Part(
        name="growth-topologies",
        summary="the same few checks on 1, 2, 4 and 8 topologies",
        measure=growth.measure_topologies,
        usual=Scale(rounds=3),
        quick=Scale(topologies=("direct",), selection=_ONE_CHECK),
    ),
    Part(
        name="growth-checks",
        summary="every other check of two suites, and all of them",
        measure=growth.measure_checks,
        usual=Scale(rounds=3, topologies=("transaction",)),
        quick=Scale(rows=2, topologies=("direct",)),
    ),
    Part(
        name="evidence",
        summary="merging 100 run folders, and rendering the report of 8 and of 100 topologies",
        measure=growth.measure_evidence,
        usual=Scale(rounds=3, rows=100, topologies=("direct", "transaction")),
        quick=Scale(rows=3, topologies=("direct",), selection=_TWO_CHECKS),
    ),
    *(
        Part(
            name=job.title.partition(":")[0],
            summary=job.title.partition(": ")[2],
            measure=partial(jobs.measure_job, job),
            usual=Scale(topologies=topologies),
            quick=_QUICK_JOB,
            compares=True,
        )
        for job, topologies in (
            (jobs.ONE, ("transaction",)),
            (jobs.THREE, ("direct", "session", "transaction")),
            (jobs.RUN, ()),
            (jobs.PROVE, ()),
        )
    ),
)


def _parser() -> argparse.ArgumentParser:
    width = max(len(part.name) for part in PARTS)
    listed = "\n".join(
        f"  {part.name:<{width}}  {part.summary}{' [--beside]' if part.compares else ''}" for part in PARTS
    )
    parser = argparse.ArgumentParser(
        prog="nox -s bench --",
        description=__doc__,
        epilog=f"parts (default: all); [--beside] marks those that can measure another commit:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "docker", "native"),
        default="auto",
        help="engine that runs the servers (default: auto)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="check that every part works: one round, one topology, few rows"
    )
    parser.add_argument("--beside", metavar="REV", help="also measure this commit, in turns, and print the ratio")
    parser.add_argument("--markdown", action="store_true", help="print the tables in the format of docs/performance.md")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="number of rounds of every part")
    parser.add_argument(
        "--rows", type=_positive, metavar="N", help="number of rows, checks or copied run folders of every part"
    )
    parser.add_argument(
        "--topology", action="append", metavar="NAME", help="measure only this topology; may be repeated"
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="part to measure, such as startup (default: all); listed below"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}, expected 1 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    known = {part.name: part for part in PARTS}
    for name in arguments.parts:
        if name not in known:
            parser.error(f"unknown part {name!r}; choose from {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(arguments.parts)] or list(PARTS)
    signal.signal(signal.SIGTERM, _terminated)
    # a shell script that starts a process in the background lets it ignore SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.ExitStack() as stack:
            trees = [this_tree()]
            if arguments.beside:
                chosen = [part for part in chosen if part.compares]
                if not chosen:
                    parser.error("--beside: none of these parts compares commits; choose parts marked [--beside]")
                trees.append(stack.enter_context(checked_out(arguments.beside)))
            setting = Setting(arguments.engine, tuple(trees), quick=arguments.quick)
            stack.callback(setting.close)
            return _measure(setting, chosen, arguments)
    except HarnessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def _measure(setting: Setting, parts: Sequence[Part], arguments: argparse.Namespace) -> int:
    heading = machine(setting.engine)
    print(f"Measured on {heading}.\n" if arguments.markdown else heading, flush=True)
    if arguments.quick:
        print("Quick: these figures show only that the benchmarks work.", flush=True)
    failed = 0
    for part in parts:
        scale = part.quick if arguments.quick else part.usual
        overrides = {"rounds": arguments.rounds, "rows": arguments.rows, "topologies": tuple(arguments.topology or ())}
        scale = msgspec.structs.replace(scale, **{name: value for name, value in overrides.items() if value})
        try:
            for table in part.measure(setting, scale):
                shown = table.without_verdicts() if arguments.quick else table
                print(shown.markdown() if arguments.markdown else shown.plain(), flush=True)
        except HarnessError as error:  # the other parts can still be measured
            print(f"bench: {part.name}: {error}", file=sys.stderr, flush=True)
            failed = 1
    return failed


def _terminated(_number: int, _frame: object) -> NoReturn:
    # SystemExit runs the cleanup: checkouts are removed and servers are torn down
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
