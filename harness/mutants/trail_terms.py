"""The words of each sound trail: variables of the function that records a change, and the places to change it."""

from __future__ import annotations

from msgspec import Struct

from harness.mutants.variant import Variant


class Trail(Struct, frozen=True, kw_only=True):
    """A sound trail, as its faults need it."""

    name: str
    #: names of variables and expressions, for templates
    terms: dict[str, str]
    #: the beginning of the statement that stores a change; statements before it see the change
    store: str
    #: the beginning of the statement after the actor was read and validated
    use_actor: str

    def replaced(self, name: str, kind: str, fault: str, *pairs: tuple[str, str], append: str = "") -> Variant:
        """Return a variant with other texts, and more SQL at its end. Its fault is a sentence without a full stop."""
        return Variant(trail=self.name, name=name, kind=kind, fault=f"{fault}.", replace=pairs, append=append)

    def appended(self, name: str, kind: str, fault: str, append: str) -> Variant:
        """Return a variant with more SQL at its end."""
        return self.replaced(name, kind, fault, append=append)

    def before_store(self, name: str, kind: str, fault: str, statements: str, append: str = "") -> Variant:
        """Return a variant that runs statements before it stores a change.

        :param statements: a template with the terms of the trail.
        """
        text = f"    {statements.format_map(self.terms)}\n{self.store}"
        return self.replaced(name, kind, fault, (self.store, text), append=append)

    def with_actor(self, name: str, fault: str, statements: str) -> Variant:
        """Return a variant that changes the actor after it was validated.

        :param statements: a template with the terms of the trail.
        """
        text = f"{statements.format_map(self.terms)}\n    {self.use_actor}"
        return self.replaced(name, "actor", fault, (self.use_actor, text))


ROW = Trail(
    name="row-json",
    terms={
        "json": "json",
        "schema": "own_schema",
        "table": "own_table",
        "key": "row_key",
        "image": "new_row",
        "changed": "changed",
        "prior": "old_values",
        "relation": "TG_RELID",
        "insert": "TG_OP = 'INSERT'",
        "update": "TG_OP = 'UPDATE'",
        "delete": "TG_OP = 'DELETE'",
        "leave": "RETURN NULL",
        "who": "who",
        "trail": "rowlog",
        "changes": "rowlog.changes",
    },
    store="    INSERT INTO rowlog.changes (transaction, actor_type, actor_id,",
    use_actor="IF TG_OP <> 'TRUNCATE' THEN",
)
STATEMENT = Trail(
    name="statement-jsonb",
    terms={
        "json": "jsonb",
        "schema": "schema_name",
        "table": "table_name",
        "key": "row_key",
        "image": "shown_after",
        "changed": "changed",
        "prior": "prior",
        "relation": "relation",
        "insert": "operation = 'insert'",
        "update": "operation = 'update'",
        "delete": "operation = 'delete'",
        "leave": "RETURN",
        "who": "parsed",
        "trail": "ledger",
        "changes": "ledger.changes",
    },
    store="    INSERT INTO ledger.changes (transaction_id, part, relation, depth, schema_name, table_name, key,",
    use_actor="RETURN jsonb_build_object('type', parsed -> 'type', 'id', parsed -> 'id');",
)
