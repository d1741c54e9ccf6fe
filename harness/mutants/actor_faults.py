"""Faults of actors, transaction ids, order and times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.trail_terms import ROW, STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

_ID = "IF {who} ? 'id' THEN {who} := jsonb_set({who}, '{{id}}', to_jsonb($value)); END IF;"
_TYPE = "IF {{who}} ->> 'type' = '{found}' THEN {{who}} := jsonb_set({{who}}, '{{{{type}}}}', '\"{stored}\"'); END IF;"

#: trail, name, fault, the id that is stored; $ is the right one
_IDS = (
    (ROW, "id-in-lower-case", "The actor's id is in lower case", "lower($)"),
    (STATEMENT, "id-in-upper-case", "The actor's id is in upper case", "upper($)"),
    (ROW, "id-cut-to-64", "The actor's id is cut to 64 characters", "left($, 64)"),
    (STATEMENT, "id-before-at", "Of the actor's id, what follows an @ is lost", "split_part($, '@', 1)"),
    (ROW, "id-without-zeros", "Leading zeros of the actor's id are lost", "coalesce(nullif(ltrim($, '0'), ''), '0')"),
    (STATEMENT, "id-trimmed", "Blanks around the actor's id are lost", "btrim($)"),
    (
        ROW,
        "id-with-single-blanks",
        "Several blanks within the actor's id are one",
        "regexp_replace($, '\\s+', ' ', 'g')",
    ),
    (
        STATEMENT,
        "id-in-ascii",
        "Other characters than ASCII in the actor's id are question marks",
        "regexp_replace($, '[^\\x01-\\x7f]', '?', 'g')",
    ),
    (ROW, "id-from-a-url", "A plus in the actor's id is a blank", "replace($, '+', ' ')"),
    (STATEMENT, "id-without-dashes", "Dashes in the actor's id are lost", "replace($, '-', '')"),
    (ROW, "id-normalized", "The actor's id is normalized to NFKC", "normalize($, NFKC)"),
    (STATEMENT, "id-with-doubled-quotes", "Single quotes in the actor's id are doubled", "replace($, '''', '''''')"),
    (ROW, "id-hashed", "The actor's id is replaced by its hash", "md5($)"),
)
#: trail, name, fault, statements after the actor was validated
_STATEMENTS = (
    (STATEMENT, "admin-as-user", "Admins are recorded as users", _TYPE.format(found="admin", stored="user")),
    (ROW, "job-as-system", "Jobs are recorded as the system", _TYPE.format(found="job", stored="system")),
    (
        ROW,
        "service-account-with-a-dash",
        "The type service_account is spelt with a dash",
        _TYPE.format(found="service_account", stored="service-account"),
    ),
    (
        ROW,
        "system-as-nobody",
        "Changes of the system have no actor",
        "IF {who} ->> 'type' = 'system' THEN {who} := NULL; END IF;",
    ),
    (ROW, "deletes-without-actor", "Deletes have no actor", "IF {delete} THEN {who} := NULL; END IF;"),
    (ROW, "inserts-without-actor", "Inserts have no actor", "IF {insert} THEN {who} := NULL; END IF;"),
    (
        ROW,
        "nested-without-actor",
        "Changes that a trigger makes have no actor",
        "IF pg_trigger_depth() > 1 THEN {who} := NULL; END IF;",
    ),
    (ROW, "truncates-without-actor", "A TRUNCATE has no actor", "IF TG_OP = 'TRUNCATE' THEN {who} := NULL; END IF;"),
    (
        ROW,
        "actor-of-the-latest-change",
        "A change without an actor has the actor of the latest change",
        (
            "IF {who} IS NULL THEN SELECT jsonb_strip_nulls(jsonb_build_object('type', actor_type, 'id',"
            " actor_id)) INTO {who}"
            " FROM rowlog.changes WHERE actor_type IS NOT NULL ORDER BY id DESC LIMIT 1; END IF;"
        ),
    ),
    (
        ROW,
        "database-user-as-actor",
        "A change without an actor has the database user as its actor",
        "{who} := coalesce({who}, jsonb_build_object('type', 'user', 'id', session_user));",
    ),
    (
        ROW,
        "kept-for-the-connection",
        "The first actor of a connection is kept for its later transactions",
        (
            "IF {who} IS NOT NULL THEN IF coalesce(current_setting('rowlog.first', true), '') = '' THEN"
            " PERFORM set_config('rowlog.first', {who}::text, false); END IF;"
            " {who} := current_setting('rowlog.first')::jsonb; END IF;"
        ),
    ),
    (
        ROW,
        "kept-for-the-transaction",
        "A transaction keeps the actor of its first write",
        (
            "IF coalesce(current_setting('rowlog.first', true), '') = '' THEN"
            " PERFORM set_config('rowlog.first', coalesce({who}::text, 'null'), true); END IF;"
            " {who} := nullif(current_setting('rowlog.first')::jsonb, 'null');"
        ),
    ),
)
_READS_ROW = "    declared   text := nullif(current_setting('rowlog.actor', true), '');"
_READS_STATEMENT = "    given  text := nullif(current_setting('ledger.actor', true), '');"
_RUN = "extract(epoch FROM transaction_timestamp())"
_XID = "pg_current_xact_id()::text::bigint"
_STATEMENT_XID = "pg_current_xact_id()::text || ' ' || extract(epoch FROM transaction_timestamp())::text"


def actor_faults() -> Iterator[Variant]:
    """Yield faults of actors."""
    for trail, name, fault, value in _IDS:
        stored = value.replace("$", "({who} ->> 'id')")
        yield trail.with_actor(name, fault, _ID.replace("$value", stored))
    for trail, name, fault, statements in _STATEMENTS:
        yield trail.with_actor(name, fault, statements)
    yield ROW.replaced(
        "another-setting",
        "actor",
        "The actor is read from another setting than the documented one",
        (_READS_ROW, _READS_ROW.replace("rowlog.actor", "rowlog.user")),
    )
    yield STATEMENT.replaced(
        "program-as-actor",
        "actor",
        "A change without an actor has the name of the program as its actor",
        (
            _READS_STATEMENT,
            _READS_STATEMENT.replace(";", "").replace("nullif", "coalesce(nullif")
            + ", jsonb_build_object('type', 'system', 'id', 'program ' || current_setting('application_name'))::text);",
        ),
    )
    yield STATEMENT.replaced(
        "last-of-the-connection",
        "actor",
        "A transaction without an actor has the last one of its connection",
        (
            _READS_STATEMENT,
            _READS_STATEMENT.replace("nullif", "coalesce(nullif").replace(";", "")
            + ", nullif(current_setting('ledger.last', true), ''));",
        ),
        (
            "    IF given IS NULL THEN\n        RETURN NULL;\n    END IF;",
            (
                "    IF given IS NULL THEN\n        RETURN NULL;\n    END IF;\n    PERFORM"
                " set_config('ledger.last', given, false);"
            ),
        ),
    )
    yield ROW.replaced(
        "last-of-the-transaction",
        "actor",
        "All changes of a transaction have the actor of its last one",
        (
            "    RETURN NULL;\nEND\n$$;\n\n-- attaches",
            (
                "    UPDATE rowlog.changes SET actor_type = who ->> 'type', actor_id = who ->> 'id' WHERE"
                " transaction = run;\n"
                "    RETURN NULL;\nEND\n$$;\n\n-- attaches"
            ),
        ),
    )
    yield ROW.replaced(
        "blank-id-accepted",
        "actor",
        "An id of blanks is accepted",
        ("who ->> 'id' ~ '[^[:space:]]')", "who ? 'id')"),
    )
    yield ROW.replaced(
        "number-as-id-accepted",
        "actor",
        "An id that is a number is accepted",
        ("AND jsonb_typeof(who -> 'id') = 'string' AND who", "AND who"),
    )
    yield STATEMENT.replaced(
        "unknown-type-accepted",
        "actor",
        "An unknown type of actor is accepted",
        ("        AND parsed ->> 'type' IN ('user', 'admin', 'service_account', 'job', 'system')\n", ""),
    )
    yield STATEMENT.replaced(
        "missing-id-accepted",
        "actor",
        "An actor without an id is accepted",
        ("        AND jsonb_typeof(parsed -> 'id') = 'string'\n        AND parsed ->> 'id' ~ '[^[:space:]]'\n", ""),
        (
            "RETURN jsonb_build_object('type', parsed -> 'type', 'id', parsed -> 'id');",
            "RETURN jsonb_strip_nulls(jsonb_build_object('type', parsed -> 'type', 'id', parsed -> 'id'));",
        ),
    )
    yield ROW.replaced(
        "anonymous-with-id",
        "actor",
        "An anonymous actor keeps an id",
        ("""            who := '{"type": "anonymous"}';""", "            NULL;"),
    )
    yield STATEMENT.replaced(
        "truncate-without-actor",
        "actor",
        "A TRUNCATE has no actor",
        (
            "VALUES (ledger.transaction_id(), ledger.enter(), TG_RELID",
            "VALUES (ledger.transaction_id(), gen_random_uuid(), TG_RELID",
        ),
    )


def transaction_faults() -> Iterator[Variant]:
    """Yield faults of transaction ids, of the order of changes and of their times."""
    for trail, name, fault, statements in (
        (ROW, "change-as-transaction", "Each change has a transaction id of its own", "run := gen_random_uuid();"),
        (
            ROW,
            "table-as-transaction",
            "Each table has a transaction id of its own",
            "run := md5(run::text || TG_RELID)::uuid;",
        ),
        (
            ROW,
            "operation-as-transaction",
            "Inserts, updates and deletes have transaction ids of their own",
            "run := md5(run::text || TG_OP)::uuid;",
        ),
        (
            ROW,
            "actor-as-transaction",
            "Each actor of a transaction has a transaction id of its own",
            "run := md5(run::text || coalesce(who::text, ''))::uuid;",
        ),
        (
            ROW,
            "depth-as-transaction",
            "Changes that a trigger makes have a transaction id of their own",
            "run := md5(run::text || pg_trigger_depth())::uuid;",
        ),
    ):
        yield trail.before_store(name, "transaction", fault, statements)
    yield ROW.replaced(
        "bare-number",
        "transaction",
        "The transaction id is made of the transaction number only",
        (_RUN, "0"),
    )
    yield ROW.replaced(
        "process-as-transaction",
        "transaction",
        "All transactions of a connection have one transaction id",
        (_RUN, "0"),
        (_XID, "pg_backend_pid()"),
    )
    yield ROW.replaced(
        "sixteen-transactions",
        "transaction",
        "Every sixteenth transaction has the same transaction id",
        (_RUN, "0"),
        (_XID, "(pg_current_xact_id()::text::bigint & 15)"),
    )
    yield ROW.replaced(
        "savepoint-as-transaction",
        "transaction",
        "Changes within a savepoint have a transaction id of their own",
        (
            "    RETURN NULL;\nEND\n$$;\n\n-- attaches",
            (
                "    UPDATE rowlog.changes SET transaction = md5(run::text || xmin::text)::uuid\n"
                "    WHERE id = currval('rowlog.changes_id_seq') AND xmin::text <> pg_current_xact_id()::xid::text;\n"
                "    RETURN NULL;\nEND\n$$;\n\n-- attaches"
            ),
        ),
    )
    yield STATEMENT.replaced(
        "connection-and-second",
        "transaction",
        "Transactions of a connection in one second have one transaction id",
        (_STATEMENT_XID, "pg_backend_pid()::text || ' ' || date_trunc('second', transaction_timestamp())::text"),
    )
    yield STATEMENT.replaced(
        "start-as-transaction",
        "transaction",
        "Transactions that begin in the same millisecond have one transaction id",
        (_STATEMENT_XID, "date_trunc('milliseconds', transaction_timestamp())::text"),
    )
    place = "(SELECT max(s.number) FROM ledger.statements s\n"
    for name, fault, expression in (
        (
            "order-of-starts",
            "Changes are in the order in which their transactions began",
            "(extract(epoch FROM t.started_at) * 1000000)::bigint",
        ),
        (
            "order-of-transaction-ids",
            "Transactions are in no order",
            "('x' || substr(md5(c.transaction_id::text), 1, 15))::bit(60)::bigint",
        ),
        (
            "order-of-operations",
            "Inserts come before updates, and updates before deletes",
            "array_position(ARRAY['insert', 'update', 'delete', 'truncate'], c.operation)",
        ),
        ("order-of-tables", "Changes are in the order of their tables", "c.relation::bigint"),
        (
            "order-of-seconds",
            "Changes of one second are in the order of their keys",
            (
                "extract(epoch FROM date_trunc('second', c.captured_at))::bigint * 1000 +"
                " abs(hashtext(c.key::text)) % 1000"
            ),
        ),
    ):
        yield STATEMENT.replaced(name, "order", fault, (place, f"{expression}, {place}"))
    yield ROW.replaced(
        "numbers-reserved",
        "order",
        "Each connection reserves 50 numbers, so a later change can have a lower one",
        ("GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "GENERATED ALWAYS AS IDENTITY (CACHE 50) PRIMARY KEY"),
    )
    for trail, name, fault, time in (
        (ROW, "time-of-the-start", "A change has the time at which its transaction began", "transaction_timestamp()"),
        (ROW, "day-only", "The time of a change is its day", "date_trunc('day', clock_timestamp())"),
        (STATEMENT, "second-only", "The time of a change is cut to seconds", "date_trunc('second', clock_timestamp())"),
        (STATEMENT, "an-hour-late", "The time of a change is an hour late", "clock_timestamp() + interval '1 hour'"),
        (
            STATEMENT,
            "local-time-as-utc",
            "The time of a change is the local time of Tokyo, taken for UTC",
            "(clock_timestamp() AT TIME ZONE 'Asia/Tokyo') AT TIME ZONE 'UTC'",
        ),
        (ROW, "no-time", "All changes have the same time", "timestamptz '2020-01-01 00:00:00+00'"),
    ):
        end = ("changed, old_values, " if trail is ROW else "shown_after, changed, prior, ") + "clock_timestamp());"
        yield trail.replaced(name, "time", fault, (end, end.replace("clock_timestamp()", time, 1)))
