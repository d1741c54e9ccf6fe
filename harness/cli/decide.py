"""`decide`: whether the evidence lets a workflow be rolled out. The answer on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.cli.filling import report_of
from harness.cli.planning import evidence_here
from harness.cli.recap import EXIT_ISSUE
from harness.config import nearest
from harness.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from harness.cli.context import Context


def decide(context: Context, arguments: Namespace) -> int:
    """Say of each workflow whether the evidence decides for it; exit 1 where one is not decided for yet."""
    settings = context.settings
    known = {each.name for each in settings.workflows}
    if not known:
        raise UsageError("there is no workflow to decide on", hint="declare one in harness.toml: [[workflows]]")
    for name in arguments.workflows:
        if name not in known:
            raise UsageError(f"there is no workflow {name!r}", hint=nearest(name, known))
    data = report_of(evidence_here(settings), settings)
    chosen = [each for each in data.decisions if not arguments.workflows or each.workflow in arguments.workflows]
    for each in chosen:
        sys.stdout.write(f"{each.workflow} on {each.release}: {each.answer}\n")
        for conjunct in each.conjuncts:
            sys.stdout.write(f"  {'holds  ' if conjunct.held else 'missing'}  {conjunct.name}\n")
            for sentence in conjunct.missing:
                sys.stdout.write(f"           {context.redactor(sentence)}\n")
    return 0 if all(each.answer == "yes" for each in chosen) else EXIT_ISSUE
