-- A log that keeps one difference for each change, {"column": {"from": …, "to": …}}, and no actor. What a row was after
-- a change is folded from the differences up to that change.
--
-- Limits: The log does not keep who made a change. A TRUNCATE is not recorded. A change of the schema writes no records:
-- attach the table again, so that the log continues with its rows as they are then. A renamed table has its history
-- under two names. An update from SQL NULL to the JSON value null has no difference, since jsonb has one null.
-- An inheriting table is captured once it is attached itself.
CREATE SCHEMA diffs;
REVOKE ALL ON SCHEMA diffs FROM PUBLIC;

CREATE TABLE diffs.changes (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- the number of the transaction and its start: together they have one meaning in every cluster
    transaction  uuid NOT NULL,
    relation     oid NOT NULL,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    -- a state is a row as it was when its table was attached
    operation    text NOT NULL CHECK (operation IN ('insert', 'update', 'delete', 'state')),
    prior_key    jsonb,
    row_key      jsonb,
    diff         jsonb NOT NULL,
    recorded_at  timestamptz NOT NULL
);
CREATE INDEX ON diffs.changes (relation, md5(row_key::text), number);

-- records one change of a row
CREATE FUNCTION diffs.record(relation oid, kind text, before jsonb, after jsonb) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named record;
    keys  text[];
    diff  jsonb;
BEGIN
    SELECT n.nspname, c.relname, c.oid INTO named
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = coalesce(pg_partition_root($1), $1);
    keys := ARRAY(SELECT a.attname::text FROM pg_index i
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
                  WHERE i.indrelid = $1 AND i.indisprimary);
    SELECT coalesce(jsonb_object_agg(name, CASE
               WHEN before IS NULL THEN jsonb_build_object('to', after -> name)
               WHEN after IS NULL THEN jsonb_build_object('from', before -> name)
               ELSE jsonb_build_object('from', before -> name, 'to', after -> name) END), '{}')
    INTO diff
    FROM jsonb_object_keys(coalesce(after, before)) AS name
    -- as texts: 1.0 and 1.00 are equal numbers and different values
    WHERE (before -> name)::text IS DISTINCT FROM (after -> name)::text;
    INSERT INTO diffs.changes (transaction, relation, table_schema, table_name, operation, prior_key, row_key, diff, recorded_at)
    VALUES ((lpad(to_hex(pg_current_xact_id()::text::bigint), 16, '0')
             || lpad(to_hex((extract(epoch FROM transaction_timestamp()) * 1000000)::bigint), 16, '0'))::uuid,
            named.oid, named.nspname, named.relname, kind,
            (SELECT jsonb_object_agg(key, before -> key) FROM unnest(keys) AS key WHERE before IS NOT NULL),
            (SELECT jsonb_object_agg(key, coalesce(after, before) -> key) FROM unnest(keys) AS key),
            diff, clock_timestamp());
END
$$;

-- AFTER each row
CREATE FUNCTION diffs.record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_cast c JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_roles r ON r.oid = f.proowner
               WHERE c.casttarget = 'json'::regtype AND NOT r.rolsuper AND r.rolname <> current_user)
        AND EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND greatest(t.oid, t.typelem) >= 16384)
    THEN  -- to_jsonb runs a type's own cast to json, here with the rights of the trail's owner
        RAISE EXCEPTION 'a row of % has a type with a cast to json that another role made', TG_RELID::regclass
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM diffs.record(TG_RELID, lower(TG_OP), CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
                         CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;

-- Every change with the row after it: its differences on top of the row before it, which the change before it left.
CREATE VIEW diffs.history AS
WITH RECURSIVE linked AS (
    SELECT c.number, c.operation,
        (SELECT max(p.number) FROM diffs.changes p
         WHERE c.operation = 'update' AND p.relation = c.relation AND md5(p.row_key::text) = md5(c.prior_key::text)
             AND p.row_key = c.prior_key AND p.number < c.number) AS previous,
        (SELECT coalesce(jsonb_object_agg(d.key, d.value -> 'to'), '{}') FROM jsonb_each(c.diff) d) AS written
    FROM diffs.changes c
), folded AS (
    SELECT number, operation, written AS row_after FROM linked WHERE previous IS NULL
    UNION ALL
    SELECT l.number, l.operation, f.row_after || l.written FROM folded f JOIN linked l ON l.previous = f.number
)
SELECT c.*, CASE WHEN c.operation <> 'delete' THEN f.row_after END AS row_after
FROM diffs.changes c JOIN folded f ON f.number = c.number
WHERE c.operation <> 'state';

-- Attaches the log to a table, and keeps the rows that it has. The name of the trigger sorts first: a change of another
-- trigger comes after the change that caused it.
CREATE FUNCTION diffs.attach(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = '!diffs' AND tgparentid <> 0) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER "!diffs" AFTER INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION diffs.record_change()', relation);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!diffs"', relation);
    END IF;
    EXECUTE format('SELECT diffs.record(%s, ''state'', NULL, to_jsonb(t.*)) FROM %s t', relation::oid, relation);
END
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA diffs FROM PUBLIC;
