"""Print how many mutants of each module the unit tests kill. Run by `nox -s mutants`, after `mutmut run`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

#: of the mutants of each module
ENOUGH = 0.9

_MUTANT = re.compile(r"\s+(?P<module>[\w.]+)\.x\S*: (?P<result>.+)")


def counted(listing: str) -> dict[str, Counter[str]]:
    """Return how many mutants of each module had which result, from the output of `mutmut results --all true`."""
    counts: dict[str, Counter[str]] = {}
    for mutant in _MUTANT.finditer(listing):
        counts.setdefault(mutant["module"], Counter())[mutant["result"].strip()] += 1
    return counts


def main() -> int:
    command = ["mutmut", "results", "--all", "true"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = counted(listing)
    if not counts:
        print("no mutants: `nox -s mutants` makes them", file=sys.stderr)
        return 3
    for module, results in sorted(counts.items()):
        killed = results["killed"] + results["timeout"]
        share = killed / results.total()
        others = ", ".join(f"{count} {result}" for result, count in sorted(results.items()) if result != "killed")
        verdict = "" if share >= ENOUGH else f"  below {ENOUGH:.0%}"
        print(f"{module:<28} {killed} of {results.total()} killed ({share:.1%}){verdict}  {others}")
    return int(any(results["killed"] + results["timeout"] < ENOUGH * results.total() for results in counts.values()))


if __name__ == "__main__":
    raise SystemExit(main())
