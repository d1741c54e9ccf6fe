"""The files of a report, in the order in which `report.md` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from harness.report.tables import Report


class Document(Struct, frozen=True):
    """One file.

    :param name: its name; a Markdown document has a template of that name.
    :param contents: what it contains, without a full stop.
    :param field: the field of the report that it needs; without one, the file is always written.
    """

    name: str
    contents: str
    field: str = ""

    def belongs_to(self, report: Report) -> bool:
        """Return whether the report has anything that this document shows."""
        return not self.field or bool(getattr(report, self.field))


SUMMARY = Document("report.md", "for a reviewer: verdicts, Issues, differences, STG-01 and STG-02")

MARKDOWN = (
    Document("stg-01-topology.md", "which environments were verified, and whether they match production"),
    Document("stg-02-paths.md", "the audited paths, over HTTP and by jobs"),
    Document("checklist.md", "the checklist walkthrough: nineteen items, each answered by checks or by people"),
    Document("issues.md", "each Issue by priority, then the documented limits that were observed"),
    Document("feature-map.md", "what each pooler does to PostgreSQL features, and which driver settings are safe"),
    Document("matrix.md", "every check in every topology, whether it was proven able to fail, and its evidence"),
    Document("resilience.md", "acknowledged writes under each fault, jobs, and judged work under load", "has_load"),
    Document("job-engines.md", "which job engine works behind which pooler, and what to do instead", "job_engines"),
    Document("ingest.md", "which properties the ingest pipeline under test has, with what was measured", "ingest"),
    Document("readiness.md", "readiness areas and decisions that harness.toml declares", "declares_readiness"),
    Document("repetition.md", "three consecutive runs, flaky rows, and checks in quarantine", "has_repetition"),
    Document("parity.md", "other test suites that ran behind a topology", "parity"),
    Document("migrations.md", "what a project's migrations leave behind each topology", "migrations"),
    Document("changes.md", "what changed since another run, and the likely cause", "changes"),
    Document("preflight.md", "the distribution preflight of a library", "preflight"),
)

MACHINES = (
    Document("report.html", "all of it in one page, with the evidence of each cell"),
    Document("junit.xml", "for CI systems that show test results"),
    Document("ctrf.json", "the same tests in the Common Test Report Format"),
    Document("report.json", "the whole report as data"),
)


def documents(report: Report) -> tuple[Document, ...]:
    """Return the files that belong to a report, besides `report.md`."""
    return tuple(document for document in (*MARKDOWN, *MACHINES) if document.belongs_to(report))
