-- A sound audit trail: statement-level triggers with transition tables, images as jsonb, actors by transaction.
--
-- Partitions and inheritance children have row-level triggers, because a statement that names the parent does not fire
-- the statement-level triggers of a child. A replica's row-level trigger captures what an apply worker writes. The rows
-- of a partition are recorded under the name of the partitioned table.
--
-- Limits: A change of the schema writes no records: the values that ADD COLUMN … DEFAULT fills in are not captured, and
-- a renamed table's history is under two names. Values captured before a redaction rule stay until they are purged. A
-- TRUNCATE of a partition is recorded once the partition is attached; its rows are captured from the beginning. Values
-- of more than 256 MB of text do not fit in jsonb, so their write fails. SQL NULL and the JSON value null look the same,
-- so an update from one to the other names no column. A redaction rule stays with the name of its column, also when
-- another column gets that name.
CREATE SCHEMA ledger;
REVOKE ALL ON SCHEMA ledger FROM PUBLIC;

-- one sequence for all tables: it orders statements, changes and actions
CREATE SEQUENCE ledger.numbers;

-- a transaction has one row for each actor that it declared before a write
CREATE TABLE ledger.transactions (
    id         uuid NOT NULL,
    part       uuid NOT NULL,
    actor      jsonb,
    xid        xid8 NOT NULL,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (id, part)
);

-- the start of each statement: changes of nested triggers come after it, whichever trigger fires first
CREATE TABLE ledger.statements (
    number         bigint PRIMARY KEY DEFAULT nextval('ledger.numbers'),
    transaction_id uuid NOT NULL,
    relation       oid NOT NULL,
    operation      text NOT NULL,
    depth          integer NOT NULL,
    at             timestamptz NOT NULL
);
CREATE INDEX ON ledger.statements (transaction_id, number);

-- no foreign key: its check would read the parent, and serializable writers would conflict on that
CREATE TABLE ledger.changes (
    number         bigint PRIMARY KEY DEFAULT nextval('ledger.numbers'),
    transaction_id uuid NOT NULL,
    part           uuid NOT NULL,
    relation       oid NOT NULL,
    depth          integer NOT NULL,
    schema_name    text NOT NULL,
    table_name     text NOT NULL,
    key            jsonb,
    operation      text NOT NULL CHECK (operation IN ('insert', 'update', 'delete', 'truncate')),
    image          jsonb,
    changed        text[],
    prior          jsonb,
    captured_at    timestamptz NOT NULL
);
CREATE INDEX ON ledger.changes (transaction_id, number);
CREATE INDEX ON ledger.changes (captured_at);

CREATE TABLE ledger.actions (
    number         bigint PRIMARY KEY DEFAULT nextval('ledger.numbers'),
    transaction_id uuid NOT NULL,
    part           uuid NOT NULL,
    name           text NOT NULL,
    correlation_id text,
    recorded_at    timestamptz NOT NULL
);
CREATE INDEX ON ledger.actions (transaction_id, number);

-- the declared actor, or null; an invalid one is refused
CREATE FUNCTION ledger.actor() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    given  text := nullif(current_setting('ledger.actor', true), '');
    parsed jsonb;
BEGIN
    IF given IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        parsed := given::jsonb;
    EXCEPTION WHEN OTHERS THEN
        RAISE EXCEPTION 'ledger.actor is not valid JSON' USING ERRCODE = 'invalid_parameter_value';
    END;
    IF jsonb_typeof(parsed) = 'object' AND parsed ->> 'type' = 'anonymous' THEN
        RETURN jsonb_build_object('type', 'anonymous');
    END IF;
    IF jsonb_typeof(parsed) = 'object'
        AND parsed ->> 'type' IN ('user', 'admin', 'service_account', 'job', 'system')
        AND jsonb_typeof(parsed -> 'type') = 'string'
        AND jsonb_typeof(parsed -> 'id') = 'string'
        AND parsed ->> 'id' ~ '[^[:space:]]'
    THEN
        RETURN jsonb_build_object('type', parsed -> 'type', 'id', parsed -> 'id');
    END IF;
    RAISE EXCEPTION 'ledger.actor needs a known type and an id' USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- the transaction's own id: with its start, the number of a transaction has one meaning in every cluster
CREATE FUNCTION ledger.transaction_id() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT encode(substr(sha256(convert_to(
        pg_current_xact_id()::text || ' ' || extract(epoch FROM transaction_timestamp())::text, 'UTF8')), 1, 16), 'hex')::uuid
$$;

-- notes the running transaction with its present actor, once, and returns the part of it that has this actor
CREATE FUNCTION ledger.enter() RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    declared jsonb := ledger.actor();
    part     uuid := encode(substr(sha256(convert_to(coalesce(declared::text, ''), 'UTF8')), 1, 16), 'hex')::uuid;
BEGIN
    INSERT INTO ledger.transactions
    VALUES (ledger.transaction_id(), part, declared, pg_current_xact_id(), transaction_timestamp())
    ON CONFLICT DO NOTHING;
    RETURN part;
END
$$;

-- a column's json as jsonb; json that jsonb cannot hold is kept as a text
CREATE FUNCTION ledger.from_json(given json) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN given::jsonb;
EXCEPTION WHEN untranslatable_character THEN
    RETURN to_jsonb(given::text);
END
$$;

-- the SQL expression of a row's image. to_jsonb runs a type's own cast to json, with the rights of the caller: if an
-- ordinary role has defined such a cast, the values of all user-defined types are kept as texts.
CREATE FUNCTION ledger.expression(relation oid, source text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    foreign_cast boolean := EXISTS (
        SELECT FROM pg_cast c JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_roles r ON r.oid = f.proowner
        WHERE c.casttarget = 'json'::regtype AND NOT r.rolsuper AND r.rolname <> current_user);
    listed text;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
            AND (a.attgenerated = 'v' OR t.oid = 'json'::regtype OR foreign_cast AND greatest(t.oid, t.typelem) >= 16384))
    THEN
        RETURN CASE source WHEN 'r' THEN 'to_jsonb(r.*)' ELSE 'to_jsonb($1)' END;
    END IF;
    SELECT string_agg(format(CASE
            WHEN t.oid = 'json'::regtype THEN 'ledger.from_json(%2$s.%1$I) AS %1$I'
            WHEN foreign_cast AND greatest(t.oid, t.typelem) >= 16384
                THEN 'CASE WHEN num_nulls(%2$s.%1$I) = 0 THEN concat(%2$s.%1$I) END AS %1$I'
            ELSE '%2$s.%1$I' END, a.attname, source), ', ' ORDER BY a.attnum)
    INTO listed
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v';
    RETURN '(SELECT to_jsonb(image.*) FROM (SELECT ' || listed || ') image)';
END
$$;

-- an image by the table's rule: {"exclude": […], "mask": […], "placeholder": "…", "known": […]}
CREATE FUNCTION ledger.redacted(relation oid, image jsonb, rule jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    excluded text[] := ARRAY(SELECT jsonb_array_elements_text(rule -> 'exclude'));
    masked   text[] := ARRAY(SELECT jsonb_array_elements_text(rule -> 'mask'));
    result   jsonb;
BEGIN
    IF image IS NULL OR rule IS NULL OR excluded || masked = '{}' THEN
        RETURN image;
    END IF;
    -- a protected column was renamed or dropped: every column that is new since the rule may be it
    IF NOT image ?& (excluded || masked) THEN
        excluded := excluded || ARRAY(
            SELECT name FROM jsonb_object_keys(image) AS name WHERE NOT rule -> 'known' ? name);
    END IF;
    -- a generated column repeats the values of its sources
    excluded := excluded || ARRAY(
        SELECT g.attname::text FROM pg_attribute g
        JOIN pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.attrelid
            AND (d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
                OR d.classid = 'pg_class'::regclass AND d.objid = g.attrelid AND d.objsubid = g.attnum)
        JOIN pg_attribute s ON s.attrelid = g.attrelid AND s.attnum = d.refobjsubid
        WHERE g.attrelid = relation AND g.attgenerated <> '' AND s.attname::text = ANY (excluded || masked)
            AND s.attnum <> g.attnum);
    SELECT jsonb_object_agg(name, CASE WHEN name = ANY (masked) THEN rule -> 'placeholder' ELSE value END)
    INTO result
    FROM jsonb_each(image) AS entry(name, value) WHERE name <> ALL (excluded);
    RETURN coalesce(result, '{}');
END
$$;

-- records one change
CREATE FUNCTION ledger.keep(
    relation oid, schema_name text, table_name text, operation text, rule jsonb, before jsonb, after jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    key_names    text[];
    row_key      jsonb;
    shown_before jsonb := ledger.redacted(relation, before, rule);
    shown_after  jsonb := ledger.redacted(relation, after, rule);
    changed      text[];
    prior        jsonb;
BEGIN
    key_names := ARRAY(
        SELECT a.attname::text
        FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS part(attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = part.attnum
        WHERE i.indrelid = relation AND i.indisprimary AND part.place <= i.indnkeyatts
        ORDER BY part.place);
    IF key_names = '{}' THEN
        row_key := coalesce(shown_after, shown_before);    -- nothing less identifies a row without a key
    ELSE
        row_key := (SELECT jsonb_object_agg(name, coalesce(shown_after, shown_before) -> name) FROM unnest(key_names) AS name);
    END IF;
    IF operation = 'update' THEN
        -- as texts: 1.0 and 1.00 are equal numbers and different values
        changed := ARRAY(
            SELECT name FROM jsonb_object_keys(shown_after) AS name
            WHERE (before -> name)::text IS DISTINCT FROM (after -> name)::text ORDER BY name);
        prior := (SELECT coalesce(jsonb_object_agg(name, shown_before -> name), '{}') FROM unnest(changed) AS name);
    END IF;
    INSERT INTO ledger.changes (transaction_id, part, relation, depth, schema_name, table_name, key, operation, image,
        changed, prior, captured_at)
    VALUES (ledger.transaction_id(), ledger.enter(), coalesce(pg_partition_root(relation), relation), pg_trigger_depth(),
        schema_name, table_name, row_key, operation, shown_after, changed, prior, clock_timestamp());
END
$$;

-- BEFORE each statement: its place in the order
CREATE FUNCTION ledger.begin_statement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.statements (transaction_id, relation, operation, depth, at)
    VALUES (ledger.transaction_id(), coalesce(pg_partition_root(TG_RELID), TG_RELID), lower(TG_OP), pg_trigger_depth(),
        clock_timestamp());
    RETURN NULL;
END
$$;

-- AFTER each statement: every row of its transition tables
CREATE FUNCTION ledger.capture_statement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
DECLARE
    image  text := ledger.expression(TG_RELID, 'r');
    source text;
    before jsonb;
    after  jsonb;
BEGIN
    -- in a replica's role, the row-level trigger records the table: an apply worker fires no statement-level ones
    IF current_setting('session_replication_role') = 'replica' THEN
        RETURN NULL;
    END IF;
    -- the two transition tables of an update have the same rows in the same order
    source := CASE TG_OP
        WHEN 'INSERT' THEN format('SELECT NULL::jsonb, %s FROM new_rows r', image)
        WHEN 'DELETE' THEN format('SELECT %s, NULL::jsonb FROM old_rows r', image)
        ELSE format('SELECT o.image, n.image
            FROM (SELECT row_number() OVER () AS place, %1$s AS image FROM old_rows r) o
            FULL JOIN (SELECT row_number() OVER () AS place, %1$s AS image FROM new_rows r) n USING (place)
            ORDER BY place', image) END;
    FOR before, after IN EXECUTE source LOOP
        PERFORM ledger.keep(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, lower(TG_OP), TG_ARGV[0]::jsonb, before, after);
    END LOOP;
    RETURN NULL;
END
$$;

-- AFTER each row of a partition or an inheritance child, and of what a replica applies
CREATE FUNCTION ledger.capture_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
DECLARE
    source     text;
    own_schema name;
    own_table  name;
    before     jsonb;
    after      jsonb;
BEGIN
    -- outside of a replica's role, the statement-level triggers record the table
    IF TG_ARGV[1] = 'replica' AND current_setting('session_replication_role') <> 'replica' THEN
        RETURN NULL;
    END IF;
    source := format('SELECT %s', ledger.expression(TG_RELID, '($1)'));
    SELECT n.nspname, c.relname INTO own_schema, own_table
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = coalesce(pg_partition_root(TG_RELID), TG_RELID);
    IF TG_OP <> 'INSERT' THEN
        EXECUTE source INTO before USING OLD;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE source INTO after USING NEW;
    END IF;
    PERFORM ledger.keep(TG_RELID, own_schema, own_table, lower(TG_OP), TG_ARGV[0]::jsonb, before, after);
    RETURN NULL;
END
$$;

-- AFTER TRUNCATE, also of a table that the truncation cascades to
CREATE FUNCTION ledger.capture_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.changes
        (transaction_id, part, relation, depth, schema_name, table_name, operation, captured_at)
    VALUES (ledger.transaction_id(), ledger.enter(), TG_RELID, pg_trigger_depth(), TG_TABLE_SCHEMA, TG_TABLE_NAME,
        'truncate', clock_timestamp());
    RETURN NULL;
END
$$;

-- attaches capture to a table and to its partitions and children; repeating it replaces the rule
CREATE FUNCTION ledger.attach(
    relation regclass, excluded text[] DEFAULT '{}', masked text[] DEFAULT '{}', placeholder text DEFAULT '[REDACTED]')
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = 'warning' AS $$
DECLARE
    target text := format('%I.%I', (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                    WHERE c.oid = relation), (SELECT relname FROM pg_class WHERE oid = relation));
    by_row boolean := EXISTS (SELECT FROM pg_class WHERE oid = relation AND (relkind = 'p' OR relispartition))
        OR EXISTS (SELECT FROM pg_inherits WHERE relation IN (inhrelid, inhparent));
    cloned boolean := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = '!ledger_row' AND tgparentid <> 0);
    columns text[] := ARRAY(SELECT attname::text FROM pg_attribute
                            WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped);
    keys   text[] := ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a
                           ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                           WHERE i.indrelid = relation AND i.indisprimary);
    rule   text;
    event  text;
    child  regclass;
BEGIN
    IF NOT columns @> (excluded || masked) THEN
        RAISE EXCEPTION 'no such column to redact in %', target USING ERRCODE = 'undefined_column';
    ELSIF keys && (excluded || masked) OR excluded && masked THEN
        RAISE EXCEPTION 'a column of the key, or one column twice, cannot be redacted in %', target
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    rule := quote_literal(jsonb_build_object('exclude', excluded, 'mask', masked, 'placeholder', placeholder, 'known', columns));
    EXECUTE format('CREATE OR REPLACE TRIGGER "!ledger_begin" BEFORE INSERT OR UPDATE OR DELETE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.begin_statement()', target);
    EXECUTE format('CREATE OR REPLACE TRIGGER "!ledger_truncate" AFTER TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.capture_truncate()', target);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!ledger_truncate"', target);
    IF NOT cloned THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER "!ledger_row" AFTER INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION ledger.capture_row(%s, %L)', target, rule,
            CASE WHEN by_row THEN 'always' ELSE 'replica' END);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!ledger_row"', target);
    END IF;
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
        IF by_row THEN
            EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', '!ledger_' || event, target);
        ELSE
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s REFERENCING %s
                FOR EACH STATEMENT EXECUTE FUNCTION ledger.capture_statement(%s)', '!ledger_' || event, event, target,
                CASE event WHEN 'insert' THEN 'NEW TABLE AS new_rows' WHEN 'delete' THEN 'OLD TABLE AS old_rows'
                    ELSE 'OLD TABLE AS old_rows NEW TABLE AS new_rows' END, rule);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target, '!ledger_' || event);
        END IF;
    END LOOP;
    FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = relation LOOP
        PERFORM ledger.attach(child, excluded, masked, placeholder);
    END LOOP;
END
$$;

CREATE FUNCTION ledger.detach(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = 'warning' AS $$
DECLARE
    trigger_name name;
BEGIN
    FOR trigger_name IN SELECT tgname FROM pg_trigger
        WHERE tgrelid = relation AND starts_with(tgname, '!ledger_') AND tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, relation);
    END LOOP;
END
$$;

-- links the running transaction to an action of the application
CREATE FUNCTION ledger.record_action(name text, correlation_id text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ledger.actions (transaction_id, part, name, correlation_id, recorded_at)
    VALUES (ledger.transaction_id(), ledger.enter(), $1, $2, clock_timestamp())
    RETURNING number
$$;

-- every change in the order of writes
CREATE VIEW ledger.history AS
SELECT c.*, t.actor, t.started_at,
    coalesce((SELECT max(s.number) FROM ledger.statements s
              WHERE s.transaction_id = c.transaction_id AND s.relation = c.relation AND s.operation = c.operation
                  AND s.depth = c.depth AND s.number < c.number), c.number) AS place,
    coalesce((SELECT max(a.number) FROM ledger.actions a
              WHERE a.transaction_id = c.transaction_id AND a.number < c.number),
             (SELECT min(a.number) FROM ledger.actions a WHERE a.transaction_id = c.transaction_id)) AS action
FROM ledger.changes c LEFT JOIN ledger.transactions t ON t.id = c.transaction_id AND t.part = c.part;

-- every table of the database, and why it is not captured; null means captured
CREATE VIEW ledger.coverage AS
WITH triggers AS (
    -- an argument `always` makes a row-level trigger capture every row, not only a replica's
    SELECT tgrelid AS relation, tgfoid AS function, tgtype, position('\x00616c7761797300'::bytea IN tgargs) > 0 AS always
    FROM pg_trigger WHERE tgenabled = 'A' AND tgqual IS NULL AND tgattr = '' AND tgtype & (2 | 64) = 0
)
SELECT n.nspname AS schema_name, c.relname AS table_name, CASE
    WHEN NOT EXISTS (SELECT FROM triggers t WHERE t.relation = c.oid
                         AND t.function = 'ledger.capture_truncate()'::regprocedure AND t.tgtype & 32 = 32)
        THEN 'not captured: TRUNCATE'
    WHEN EXISTS (SELECT FROM triggers t WHERE t.relation = c.oid AND t.function = 'ledger.capture_row()'::regprocedure
                     AND t.tgtype & 29 = 29 AND t.always) THEN NULL
    WHEN c.relkind = 'p' OR c.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent))
        THEN 'no enabled trigger captures its rows'
    ELSE (SELECT 'not captured: ' || string_agg(need.what, ', ')
          FROM (VALUES ('inserts', 'ledger.capture_statement()'::regprocedure, 4),
                       ('updates', 'ledger.capture_statement()'::regprocedure, 16),
                       ('deletes', 'ledger.capture_statement()'::regprocedure, 8),
                       ('what a replica applies', 'ledger.capture_row()'::regprocedure, 29)) AS need(what, function, events)
          WHERE NOT EXISTS (SELECT FROM triggers t WHERE t.relation = c.oid AND t.function = need.function
                                AND t.tgtype & need.events = need.events)) END AS problem
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ledger');

-- deletes what was captured before the cutoff, in batches, and returns the number of changes
CREATE FUNCTION ledger.purge(cutoff timestamptz, batch integer DEFAULT 1000) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total   bigint := 0;
    removed bigint;
BEGIN
    LOOP
        DELETE FROM ledger.changes WHERE number IN (
            SELECT number FROM ledger.changes WHERE captured_at < cutoff ORDER BY captured_at LIMIT batch);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
        EXIT WHEN removed = 0;
    END LOOP;
    -- what belongs to a change that stays, stays too
    DELETE FROM ledger.statements s WHERE s.at < cutoff
        AND NOT EXISTS (SELECT FROM ledger.changes c WHERE c.transaction_id = s.transaction_id);
    DELETE FROM ledger.actions a WHERE a.recorded_at < cutoff
        AND NOT EXISTS (SELECT FROM ledger.changes c WHERE c.transaction_id = a.transaction_id);
    DELETE FROM ledger.transactions t WHERE t.started_at < cutoff
        AND NOT EXISTS (SELECT FROM ledger.changes c WHERE c.transaction_id = t.id AND c.part = t.part)
        AND NOT EXISTS (SELECT FROM ledger.actions a WHERE a.transaction_id = t.id AND a.part = t.part);
    RETURN total;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
