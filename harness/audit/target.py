"""The audit trail under test: how it is installed, attached to tables, and read.

Suites never name the trail's objects; they ask the target. The default target is the reference layer. Any other trail
is described by a TOML file, whose keys `target_file.py` documents. A feature that it does not claim is not judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import asdict, replace

from harness.audit.changes import Change
from harness.audit.placeholders import TABLE_NAMES, fill, role_names, table_names, uses
from harness.audit.statements import explained
from harness.audit.target_file import Recorded, TrailFeature, TrailLimit
from harness.audit.text_values import IMAGE
from harness.audit.trail_statements import TrailStatements
from harness.audit.trial import Trial
from harness.database import Client, Side, quote_identifier, quote_literal, raised_for, run_files
from harness.errors import ConfigError
from harness.model import KnownIssue

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AuditTarget", "Change"]


class AuditTarget(TrailStatements, frozen=True, kw_only=True):
    """How an audit trail is installed, attached and read."""

    name: str
    summary: str
    #: a digest of the file and of the SQL that installs the trail
    fingerprint: str
    install: tuple[Path, ...]
    #: whether a superuser installs it
    needs_superuser: bool = False
    #: tables of the trail as SQL identifiers: those of the target file, then those that a query found
    tables: tuple[str, ...]
    claims: frozenset[TrailFeature]
    omits: frozenset[Recorded] = frozenset()
    reattach: bool = False
    switches: tuple[str, ...] = ()
    documentation: str
    limits: tuple[TrailLimit, ...] = ()
    accepted: tuple[KnownIssue, ...] = ()
    #: the application's role, once it is known
    role: str = ""
    #: what a trial of the trail found; None where none was made
    trial: Trial | None = None
    #: the columns that `changes` returns; None before it was tried
    columns: frozenset[str] | None = None

    @property
    def identity(self) -> str:
        """Return the key of evidence about this target: its name and fingerprint."""
        return f"{self.name} {self.fingerprint}"

    @property
    def is_reference(self) -> bool:
        return TrailFeature.LIBRARY in self.claims

    # --- what it records ------------------------------------------------------------------------------

    def lacking(self, property_: Recorded) -> str | None:
        """Return in one sentence why the trail lacks a property; None when it has it, or nobody tried yet."""
        if property_ in self.omits:
            return property_.omitted
        if property_ is Recorded.IMAGE and not any(map(self.records, (Recorded.INSERTS, Recorded.UPDATES))):
            return self.lacking(Recorded.INSERTS)  # no change has a row after it
        if property_ is Recorded.UNDECLARED and not self.records(Recorded.ACTOR):
            return self.lacking(Recorded.ACTOR)
        if property_ is Recorded.TIME:
            return property_.omitted if self.columns is not None and "captured_at" not in self.columns else None
        return self.trial.lacking(property_) if self.trial else None

    @property
    def texts(self) -> frozenset[str]:
        # images with types say what the types are, so texts in the keys are other values
        known = self.trial.texts if self.trial else frozenset()
        return known if IMAGE in known or not self.records(Recorded.IMAGE) else frozenset()

    def records(self, property_: Recorded) -> bool:
        """Return whether the trail has a property, as far as it is known."""
        return self.lacking(property_) is None

    def records_operation(self, operation: str) -> bool:
        """Return whether the trail records an operation: insert, update, delete or truncate.

        :raises ValueError: for another operation.
        """
        if operation == "truncate":
            return TrailFeature.TRUNCATE in self.claims
        return self.records(Recorded(f"{operation}s"))

    @property
    def may_write_undeclared(self) -> bool:
        """Whether a write without an actor succeeds, as far as it is known."""
        return not self.actor.required and not (self.trial and Recorded.UNDECLARED in self.trial.missing)

    def limit_of(self, check: str) -> TrailLimit | None:
        """Return the documented limit that a check may observe; None if the target file has none for it."""
        return next((limit for limit in self.limits if limit.check == check), None)

    def place_of(self, limit: TrailLimit) -> str:
        """Return where a limit is documented."""
        return f"{self.documentation}{limit.where}" if limit.where.startswith("#") else limit.where

    # --- installing -----------------------------------------------------------------------------------

    def require_installable(self) -> None:
        """Verify that the harness can install the target; a target without SQL files must be installed already.

        :raises ConfigError: when no SQL files are named.
        """
        if not self.install:
            raise ConfigError(
                "install: the target names no SQL files, and none were given",
                where=self.where,
                hint="give --audit-sql FILE for each file that installs the trail, in order",
            )

    def install_in(self, owner: Client) -> None:
        """Install the trail.

        :param owner: a connection of the owner of the audited tables, or of a superuser where the target needs one.
        :raises DatabaseError: with file, line and SQLSTATE.
        """
        run_files(owner, self.install)

    def of_roles(self, role: str, owner: str) -> AuditTarget:
        """Return the target with the roles in its statements.

        :param role: the application's role.
        :param owner: the role that owns the audited tables.
        """
        names = role_names(role, owner)
        filled = {key: fill(value, names) for key, value in asdict(self.statements).items()}
        return replace(
            self,
            role=role,
            statements=replace(self.statements, **filled),
            switches=tuple(fill(switch, names) for switch in self.switches),
            actor=replace(self.actor, declare=fill(self.actor.declare, names)),
        )

    def with_found_tables(self, client: Client) -> AuditTarget:
        """Return the target with the tables where its rows are now: those of the file, and those that its query finds.

        :raises DatabaseError: when the query does not run, or returns wrong columns.
        """
        if not self.statements.tables:
            return self
        rows = self._names(client, "tables")
        found = [f"{quote_identifier(row['schema'])}.{quote_identifier(row['name'])}" for row in rows]
        plain = {quoted.replace('"', ""): quoted for quoted in found}
        return replace(
            self, tables=tuple(dict.fromkeys((*(plain.get(name, name) for name in self.tables), *plain.values())))
        )

    # --- attaching ------------------------------------------------------------------------------------

    @raised_for(Side.TARGET)
    def attach(self, owner: Client, table: str, *, changed_from: bool = False) -> None:
        """Attach capture to a table, and grant the application role its rights once more.

        :param table: as an SQL identifier, quoted and qualified where needed.
        :param changed_from: keep prior values, where the target can.
        :raises SqlError: of the server.
        """
        name = "attach_with_changed_from" if changed_from and self.statements.attach_with_changed_from else "attach"
        with self._within_deadline(owner, name):
            owner.run(fill(getattr(self.statements, name), table_names(table)))
        self._grant_again(owner, table)

    @raised_for(Side.TARGET)
    def attach_redacted(
        self, owner: Client, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str = "[REDACTED]"
    ) -> None:
        """Attach capture to a table with prior values and redacted columns."""
        statement = self.redacting(table, exclude=exclude, mask=mask, placeholder=placeholder)
        with self._within_deadline(owner, "attach_redacted"):
            owner.run(statement)
        self._grant_again(owner, table)

    def redacting(self, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str) -> str:
        """Return the statement that attaches capture to a table with redacted columns; "" without redaction."""
        rules = {"exclude": _array(exclude), "mask": _array(mask), "placeholder": quote_literal(placeholder)}
        return fill(self.statements.attach_redacted, table_names(table), rules)

    @raised_for(Side.TARGET)
    def detach(self, owner: Client, table: str) -> None:
        with self._within_deadline(owner, "detach"):
            owner.run(fill(self.statements.detach, table_names(table)))

    @property
    def grants_each_table(self) -> bool:
        """Whether the statement `grant` is about one audited table."""
        return uses(self.statements.grant, TABLE_NAMES)

    def grant(self, owner: Client, table: str = "") -> None:
        """Grant the application role the rights that the trail needs.

        :param table: an audited table as an SQL identifier; "" for a grant that is about no table.
        :raises DatabaseError: when the statement does not run.
        """
        if self.statements.grant and (table or not self.grants_each_table):
            with explained("grant", self.at("grant")), self._within_deadline(owner, "grant"):
                owner.run(fill(self.statements.grant, table_names(table) if table else {}))

    def _grant_again(self, owner: Client, table: str) -> None:
        # what a superuser installed, only the superuser can grant
        if self.role and (self.grants_each_table or not self.needs_superuser):
            self.grant(owner, table)


def _array(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(quote_literal, values))}]::text[]"
