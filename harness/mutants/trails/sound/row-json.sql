-- A sound audit trail: row-level triggers, images as json (numbers and json keep their text), the actor on each change.
-- The rows of a partition are recorded under the name of the partitioned table.
--
-- Limits: A change of the schema writes no records: the values that ADD COLUMN … DEFAULT fills in are not captured, and
-- a renamed table's history is under two names. Values captured before a redaction rule stay until they are purged. A
-- TRUNCATE of a partition is recorded once the partition is attached; its rows are captured from the beginning. SQL
-- NULL and the JSON value null look the same, so an update from one to the other names no column. A redaction rule stays
-- with the name of its column, also when another column gets that name.
CREATE SCHEMA rowlog;
REVOKE ALL ON SCHEMA rowlog FROM PUBLIC;

CREATE TABLE rowlog.changes (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- the number of the transaction and its start: together they have one meaning in every cluster
    transaction  uuid NOT NULL,
    actor_type   text,
    actor_id     text,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    row_key      json,
    operation    text NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')),
    new_row      json,
    changed      text[],
    old_values   json,
    recorded_at  timestamptz NOT NULL
);
CREATE INDEX ON rowlog.changes (recorded_at);

-- the recorded columns of a table, in its order; virtual columns have no stored value
CREATE FUNCTION rowlog.columns(relation oid) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v' ORDER BY attnum)
$$;

-- the values of a row in the order of its columns. to_json runs a type's own cast to json, with the rights of the caller:
-- if an ordinary role has defined such a cast, the values of all user-defined types are kept as texts.
CREATE FUNCTION rowlog.fields(relation oid, given record) RETURNS json[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    unsafe boolean := EXISTS (
        SELECT FROM pg_cast c JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_roles r ON r.oid = f.proowner
        WHERE c.casttarget = 'json'::regtype AND NOT r.rolsuper AND r.rolname <> current_user);
    listed text;
    result json[];
BEGIN
    SELECT string_agg(format(CASE
            WHEN unsafe AND greatest(t.oid, t.typelem) >= 16384
                THEN $x$coalesce(to_json(CASE WHEN num_nulls(($1).%1$I) = 0 THEN concat(($1).%1$I) END), 'null')$x$
            ELSE $x$coalesce(to_json(($1).%1$I), 'null')$x$ END, a.attname), ', ' ORDER BY a.attnum)
    INTO listed
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v';
    EXECUTE format('SELECT ARRAY[%s]::json[]', listed) INTO result USING given;
    RETURN result;
END
$$;

-- an object of the columns that a rule shows, with the placeholder for masked ones
CREATE FUNCTION rowlog.shown(names text[], fields json[], hidden text[], masked text[], placeholder text) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_object_agg(f.name, CASE WHEN f.name = ANY (masked) THEN to_json(placeholder) ELSE f.field END
                                    ORDER BY f.place), '{}')
    FROM unnest(names, fields) WITH ORDINALITY AS f(name, field, place) WHERE f.name <> ALL (hidden)
$$;

-- the columns that a rule leaves out, with the generated columns that repeat them
CREATE FUNCTION rowlog.hidden(relation oid, excluded text[], masked text[], known text[]) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    protected text[] := excluded || masked;
    present   text[] := ARRAY(SELECT attname::text FROM pg_attribute
                              WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped);
BEGIN
    IF protected = '{}' THEN
        RETURN '{}';
    END IF;
    IF NOT present @> protected THEN
        -- a protected column was renamed or dropped: every column that is new since the rule may be it
        excluded := excluded || ARRAY(SELECT name FROM unnest(present) AS name WHERE name <> ALL (known));
    END IF;
    RETURN excluded || ARRAY(
        SELECT g.attname::text FROM pg_attribute g
        JOIN pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.attrelid
            AND (d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
                OR d.classid = 'pg_class'::regclass AND d.objid = g.attrelid AND d.objsubid = g.attnum)
        JOIN pg_attribute s ON s.attrelid = g.attrelid AND s.attnum = d.refobjsubid AND s.attnum <> g.attnum
        WHERE g.attrelid = relation AND g.attgenerated <> '' AND s.attname::text = ANY (excluded || masked));
END
$$;

-- AFTER each row, and after TRUNCATE. Arguments: excluded, masked and known columns, and the placeholder.
CREATE FUNCTION rowlog.record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
DECLARE
    declared   text := nullif(current_setting('rowlog.actor', true), '');
    who        jsonb;
    run        uuid := (lpad(to_hex(pg_current_xact_id()::text::bigint), 16, '0')
        || lpad(to_hex((extract(epoch FROM transaction_timestamp()) * 1000000)::bigint), 16, '0'))::uuid;
    masked     text[];
    hidden     text[];
    names      text[];
    before     json[];
    after      json[];
    keys       text[];
    own_schema name := TG_TABLE_SCHEMA;
    own_table  name := TG_TABLE_NAME;
    row_key    json;
    new_row    json;
    changed    text[];
    old_values json;
BEGIN
    IF declared IS NOT NULL THEN
        BEGIN
            who := declared::jsonb;
        EXCEPTION WHEN OTHERS THEN
            who := 'null';
        END;
        IF (jsonb_typeof(who) = 'object' AND jsonb_typeof(who -> 'type') = 'string' AND (
            who ->> 'type' = 'anonymous'
            OR who ->> 'type' IN ('user', 'admin', 'service_account', 'job', 'system')
                AND jsonb_typeof(who -> 'id') = 'string' AND who ->> 'id' ~ '[^[:space:]]')) IS NOT TRUE
        THEN
            RAISE EXCEPTION 'rowlog.actor is not a valid actor' USING ERRCODE = 'invalid_parameter_value',
                HINT = 'An actor is {"type": …, "id": …}.';
        END IF;
        IF who ->> 'type' = 'anonymous' THEN
            who := '{"type": "anonymous"}';
        END IF;
    END IF;
    IF TG_OP <> 'TRUNCATE' THEN
        SELECT n.nspname, c.relname INTO own_schema, own_table
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = coalesce(pg_partition_root(TG_RELID), TG_RELID);
        names := rowlog.columns(TG_RELID);
        masked := TG_ARGV[1]::text[];
        hidden := rowlog.hidden(TG_RELID, TG_ARGV[0]::text[], masked, TG_ARGV[2]::text[]);
        IF TG_OP IN ('UPDATE', 'DELETE') THEN
            before := rowlog.fields(TG_RELID, OLD);
        END IF;
        IF TG_OP IN ('INSERT', 'UPDATE') THEN
            after := rowlog.fields(TG_RELID, NEW);
            new_row := rowlog.shown(names, after, hidden, masked, TG_ARGV[3]);
        END IF;
        -- the columns of the primary key, in its order; without a key, the whole row
        keys := ARRAY(
            SELECT a.attname::text
            FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = TG_RELID AND i.indisprimary AND k.place <= i.indnkeyatts
            ORDER BY k.place);
        IF keys = '{}' THEN
            keys := names;
        END IF;
        row_key := rowlog.shown(
            keys, ARRAY(SELECT (coalesce(after, before))[array_position(names, k.name)]
                        FROM unnest(keys) WITH ORDINALITY AS k(name, place) ORDER BY k.place), hidden, masked, TG_ARGV[3]);
        IF TG_OP = 'UPDATE' THEN
            SELECT coalesce(array_agg(f.name ORDER BY f.place), '{}'), coalesce(array_agg(f.was ORDER BY f.place), '{}')
            INTO changed, before
            FROM unnest(names, before, after) WITH ORDINALITY AS f(name, was, became, place)
            WHERE f.was::text <> f.became::text AND f.name <> ALL (hidden);
            old_values := rowlog.shown(changed, before, hidden, masked, TG_ARGV[3]);
        END IF;
    END IF;
    INSERT INTO rowlog.changes (transaction, actor_type, actor_id, table_schema, table_name, row_key, operation, new_row,
        changed, old_values, recorded_at)
    VALUES (run, who ->> 'type', who ->> 'id', own_schema, own_table, row_key, TG_OP, new_row,
        changed, old_values, clock_timestamp());
    RETURN NULL;
END
$$;

-- attaches capture to a table and to its partitions and children; repeating it replaces the rule.
-- The name of the trigger sorts first: a change of another trigger comes after the change that caused it.
CREATE FUNCTION rowlog.attach(
    relation regclass, excluded text[] DEFAULT '{}', masked text[] DEFAULT '{}', placeholder text DEFAULT '[REDACTED]')
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = 'warning' AS $$
DECLARE
    known text[] := ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped);
    child regclass;
BEGIN
    IF NOT known @> (excluded || masked) THEN
        RAISE EXCEPTION '% has no such column to redact', relation USING ERRCODE = 'undefined_column';
    END IF;
    IF excluded && masked OR EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = relation AND i.indisprimary AND a.attname = ANY (excluded || masked))
    THEN
        RAISE EXCEPTION 'a column of the key of %, or one column twice, cannot be redacted', relation
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = '!rowlog' AND tgparentid <> 0) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER "!rowlog" AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW
            EXECUTE FUNCTION rowlog.record_change(%L, %L, %L, %L)', relation, excluded, masked, known, placeholder);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!rowlog"', relation);
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER "!rowlog_truncate" AFTER TRUNCATE ON %s FOR EACH STATEMENT
        EXECUTE FUNCTION rowlog.record_change()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!rowlog_truncate"', relation);
    FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = relation LOOP
        PERFORM rowlog.attach(child, excluded, masked, placeholder);
    END LOOP;
END
$$;

CREATE FUNCTION rowlog.detach(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = 'warning' AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = '!rowlog' AND tgparentid <> 0) THEN
        EXECUTE format('DROP TRIGGER IF EXISTS "!rowlog" ON %s', relation);
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS "!rowlog_truncate" ON %s', relation);
END
$$;

-- every table of the database, and why it is not captured; null means captured
CREATE VIEW rowlog.coverage AS
SELECT n.nspname AS table_schema, c.relname AS table_name,
    CASE WHEN NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE t.tgrelid = c.oid AND t.tgfoid = 'rowlog.record_change()'::regprocedure
            AND t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = ''
            -- AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW
            AND t.tgtype & (1 | 2 | 4 | 8 | 16 | 64) = (1 | 4 | 8 | 16))
    THEN 'no enabled trigger captures its rows'
    WHEN NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE t.tgrelid = c.oid AND t.tgfoid = 'rowlog.record_change()'::regprocedure AND t.tgenabled = 'A'
            AND t.tgqual IS NULL AND t.tgtype & (2 | 32) = 32)
    THEN 'TRUNCATE is not captured' END AS problem
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowlog');

-- deletes what was recorded before the cutoff, in batches, and returns the number of changes
CREATE FUNCTION rowlog.purge(cutoff timestamptz, batch integer DEFAULT 1000) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total   bigint := 0;
    removed bigint;
BEGIN
    LOOP
        DELETE FROM rowlog.changes WHERE id IN (
            SELECT id FROM rowlog.changes WHERE recorded_at < cutoff ORDER BY id LIMIT batch);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
        EXIT WHEN removed < batch;
    END LOOP;
    RETURN total;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA rowlog FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA rowlog FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowlog FROM PUBLIC;
