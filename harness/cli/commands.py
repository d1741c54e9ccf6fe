"""All commands. Each is imported when it is looked up, so that a process loads only what its command needs."""

from __future__ import annotations

from harness.cli.parser import Entry

_EVIDENCE, _SYSTEMS, _MACHINE = "Evidence", "Your own systems", "This machine"

COMMANDS = (
    Entry("verify", "harness.cli.verify:verify", _EVIDENCE, "Run checks in topologies, and fill the tables."),
    Entry(
        "prove",
        "harness.cli.prove:prove",
        _EVIDENCE,
        "Run every check under each of its controls: each must turn to Issue.",
    ),
    Entry("report", "harness.cli.report:report", _EVIDENCE, "Fill the tables from evidence."),
    Entry("diff", "harness.cli.diff:diff", _EVIDENCE, "Print what changed between two runs, and the likely cause."),
    Entry(
        "judge",
        "harness.cli.judge:judge",
        _EVIDENCE,
        "Judge the stored histories of a run again, and compare with its rows.",
    ),
    Entry(
        "decide",
        "harness.cli.decide:decide",
        _EVIDENCE,
        "Say whether the evidence allows the rollout of a workflow, and what is missing.",
    ),
    Entry("up", "harness.cli.up:up", _SYSTEMS, "Keep a topology running until Ctrl-C, for experiments."),
    Entry("exec", "harness.cli.exec:exec_behind", _SYSTEMS, "Run a command behind a topology."),
    Entry(
        "identify",
        "harness.cli.identify:identify",
        _SYSTEMS,
        "Find out which pooler and server a connection string leads to.",
    ),
    Entry(
        "lint",
        "harness.cli.lint:lint_documents",
        _SYSTEMS,
        "Judge filled adoption tables by the rules of honest evidence.",
    ),
    Entry("audit", "harness.cli.audit:audit", _SYSTEMS, "Use the reference audit layer in a database of your own."),
    Entry("list", "harness.cli.listing:list_names", _MACHINE, "List topologies, suites, checks and audit targets."),
    Entry(
        "matrix",
        "harness.cli.listing:matrix",
        _MACHINE,
        "Print the CI matrix as JSON: one job per topology, or per combination of versions.",
    ),
    Entry(
        "doctor", "harness.cli.machine:doctor", _MACHINE, "Show what this machine can run, and what prevents the rest."
    ),
    Entry("images", "harness.cli.machine:images", _MACHINE, "Pull or build the images that topologies need."),
    Entry("reap", "harness.cli.machine:reap", _MACHINE, "Remove the servers and files that killed runs left behind."),
    Entry(
        "completion",
        "harness.cli.completion:completion",
        _MACHINE,
        "Print the completion script of a shell; without the name of one, say how to enable it.",
    ),
)
