"""Write which check noticed each faulty variant, so that `harness mutants` tries it first: python -m tests.noticed FILE.

FILE is the mutants-of-trails.json of a run with all variants; several may be given, the best last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import harness
from harness.mutants.variants import noticed_by, variants

NOTICED = Path(harness.__file__).parent / "mutants" / "trails" / "noticed.json"


def main(files: list[str]) -> None:
    """Merge the checks of some runs into the file of the package."""
    checks = dict(noticed_by())
    for file in files:
        for found in json.loads(Path(file).read_text(encoding="utf-8"))["variants"]:
            if found["check"]:
                checks[f"{found['trail']}/{found['name']}"] = found["check"]
    names = {variant.full_name for variant in variants()}
    kept = {name: checks[name] for name in sorted(checks) if name in names}
    NOTICED.write_text(f"{json.dumps(kept, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
