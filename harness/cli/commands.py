"""All commands. Each is imported when it is looked up, so that a process loads only what its command needs.

Section and summary of a command are where it is declared; the help text of the program reads them from there.
"""

from __future__ import annotations

from harness.cli.parser import Entry

#: in the order of the help text
COMMANDS = (
    Entry("verify", "harness.cli.verify:verify"),
    Entry("prove", "harness.cli.prove:prove"),
    Entry("report", "harness.cli.report:report"),
    Entry("diff", "harness.cli.diff:diff"),
    Entry("judge", "harness.cli.judge:judge"),
    Entry("decide", "harness.cli.decide:decide"),
    Entry("mutants", "harness.cli.mutants:mutants"),
    Entry("up", "harness.cli.up:up"),
    Entry("jobs", "harness.cli.jobs:jobs"),
    Entry("target", "harness.cli.target:target"),
    Entry("ingest", "harness.cli.ingest:ingest"),
    Entry("exec", "harness.cli.exec:exec_behind"),
    Entry("identify", "harness.cli.identify:identify"),
    Entry("lint", "harness.cli.lint:lint_documents"),
    Entry("gates", "harness.cli.gates:judge_repository"),
    Entry("audit", "harness.cli.audit:audit"),
    Entry("list", "harness.cli.listing:list_names"),
    Entry("matrix", "harness.cli.listing:matrix"),
    Entry("doctor", "harness.cli.machine:doctor"),
    Entry("images", "harness.cli.machine:images"),
    Entry("reap", "harness.cli.machine:reap"),
    Entry("completion", "harness.cli.completion:completion"),
)
