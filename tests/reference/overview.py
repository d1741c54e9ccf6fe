"""The first page of the reference: where the rest is, exit codes, capabilities and Nox sessions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from harness import places
from harness.cli.exit_codes import MEANINGS
from harness.lab.topologies import load_topologies
from harness.report.escape import code
from harness.suites.catalogue import catalogue
from tests.reference.markdown import page, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.registry import Capability

_PAGES = """
- [Commands](reference/commands.md): every command with its arguments, options, examples and exit codes
- [Checks](reference/checks.md): every check with its claim, severity, needs and controls
- [Files](reference/files.md): every key of topology files, `harness.toml`, audit targets, image recipes and documented
  behaviour
"""


def document() -> str:
    return page(
        "Reference",
        _PAGES.strip(),
        "## Exit codes",
        table(("Exit code", "Meaning"), [(value, prose(text)) for value, text in MEANINGS]),
        "Commands that have other exit codes list them: [Commands](reference/commands.md).",
        "## Capabilities",
        "Checks and controls name the capabilities that they need of a topology. In a topology that lacks one, the "
        "check is\nN/A with the sentence of that capability.",
        table(("Capability", "Reason of N/A", "Checks that need it"), _capability_rows()),
        "## Nox sessions",
        "Arguments after `--` go to the command of the session: `nox -s topology-transaction -- --check capture.insert`.",
        table(("Session", "What it does"), [(code(name), prose(text)) for name, text in _sessions()]),
    )


def _capability_rows() -> Iterator[tuple[str, str, str]]:
    found = catalogue()
    capabilities: dict[str, Capability] = {}
    for needs in (*(check.needs for check in found.checks), *(control.needs for control in found.controls)):
        capabilities |= {need.name: need for need in needs}
    for name, capability in capabilities.items():
        count = sum(name in [need.name for need in check.needs] for check in found.checks)
        yield prose(name), prose(capability.lacking), str(count or "controls only")


def _sessions() -> Iterator[tuple[str, str]]:
    """Yield the name and the summary of each session that `nox -l` lists, in its order.

    The file is read, not imported: the tests do not need Nox.
    """
    tree = ast.parse((places.PACKAGE.parent / "noxfile.py").read_text(encoding="utf-8"))
    for node in tree.body:
        match node:
            case ast.FunctionDef() if "nox.session" in map(ast.unparse, node.decorator_list):
                yield node.name, ast.get_docstring(node) or ""
            case ast.FunctionDef(decorator_list=[ast.Call(keywords=[ast.keyword("name", ast.Constant(str(name)))])]):
                yield name, ast.get_docstring(node) or ""
            case ast.For(target=ast.Name(id="topology")):
                for topology in load_topologies().values():
                    yield f"topology-{topology.name}", f"{topology.summary[:1].upper()}{topology.summary[1:]}."
