-- A history table for each audited table, with a row for each version of a row, and views with their validity ranges.
-- An audited table gets a column row_version: the version that the row is, from one sequence for all tables.
--
-- Limits: A change of the schema writes no records: the values that ADD COLUMN … DEFAULT fills in are not recorded, and
-- the versions after a table is renamed have its new name. A TRUNCATE of a new partition is recorded once its table is
-- attached again; its rows are recorded from the beginning.
CREATE SCHEMA history;
CREATE SCHEMA versions;
REVOKE ALL ON SCHEMA history, versions FROM PUBLIC;
CREATE SEQUENCE versions.numbers;

-- the history tables, which outlive their tables
CREATE TABLE versions.attached (relation regclass NOT NULL, schema text, name text, history text PRIMARY KEY);

-- BEFORE each row: the number of its new version. The application cannot choose it.
CREATE FUNCTION versions.number_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.row_version := nextval('versions.numbers');
    RETURN NEW;
END
$$;

-- AFTER each row, and after TRUNCATE. The argument is the history table.
CREATE FUNCTION versions.keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
DECLARE
    named    record;
    written  jsonb;
    replaced jsonb;
    row_key  jsonb;
BEGIN
    IF EXISTS (SELECT FROM pg_cast c JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_roles r ON r.oid = f.proowner
               WHERE c.casttarget = 'json'::regtype AND NOT r.rolsuper AND r.rolname <> current_user)
        AND EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND greatest(t.oid, t.typelem) >= 16384)
    THEN  -- to_jsonb runs a type's own cast to json, here with the rights of the trail's owner
        RAISE EXCEPTION 'a row of % has a type with a cast to json that another role made', TG_RELID::regclass
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    written := CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END;
    replaced := CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END;
    SELECT n.nspname, c.relname INTO named
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = CASE TG_OP WHEN 'TRUNCATE' THEN TG_RELID ELSE coalesce(pg_partition_root(TG_RELID), TG_RELID) END;
    SELECT jsonb_object_agg(a.attname, coalesce(written, replaced) -> a.attname) INTO row_key
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
    WHERE i.indrelid = TG_RELID AND i.indisprimary AND TG_OP <> 'TRUNCATE';
    -- inserts only: a read of the version that ends would make serializable writers of different rows conflict
    EXECUTE format('INSERT INTO history.%I (number, replaces, operation, since, transaction, actor_type, actor_id, table_schema,
                        table_name, row_key, row) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)', TG_ARGV[0])
    USING coalesce((written ->> 'row_version')::bigint, nextval('versions.numbers')), (replaced ->> 'row_version')::bigint,
          lower(TG_OP), clock_timestamp(),
          (lpad(to_hex(pg_current_xact_id()::text::bigint), 16, '0')
           || lpad(to_hex((extract(epoch FROM transaction_timestamp()) * 1000000)::bigint), 16, '0'))::uuid,
          nullif(current_setting('app.user_type', true), ''), nullif(current_setting('app.user_id', true), '')::bigint,
          named.nspname, named.relname, row_key, written;
    RETURN NULL;
END
$$;

CREATE FUNCTION versions.attach(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = 'warning' AS $$
DECLARE
    named record;
    kept  text := (SELECT a.history FROM versions.attached a WHERE a.relation = $1);
BEGIN
    SELECT n.nspname, c.relname, c.relispartition INTO named
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1;
    IF kept IS NULL THEN  -- a table that is created again continues its history
        UPDATE versions.attached a SET relation = $1
        WHERE a.schema = named.nspname AND a.name = named.relname AND NOT EXISTS (SELECT FROM pg_class WHERE oid = a.relation)
        RETURNING a.history INTO kept;
    END IF;
    IF kept IS NULL THEN
        kept := (named.nspname || '_' || named.relname)::name;  -- which cuts it
        IF EXISTS (SELECT FROM versions.attached a WHERE a.history = kept) THEN
            kept := md5(named.nspname || '.' || named.relname);
        END IF;
        INSERT INTO versions.attached VALUES ($1, named.nspname, named.relname, kept);
        EXECUTE format('CREATE TABLE history.%I (
            number       bigint PRIMARY KEY,
            replaces     bigint,
            operation    text NOT NULL,
            since        timestamptz NOT NULL,
            transaction  uuid NOT NULL,
            actor_type   text,
            actor_id     bigint,
            table_schema text NOT NULL,
            table_name   text NOT NULL,
            row_key      jsonb,
            row          jsonb)', kept);
        EXECUTE format('CREATE INDEX ON history.%I (replaces)', kept);
        -- a version is valid until another one replaces it, or a TRUNCATE removes it
        EXECUTE format('CREATE VIEW versions.%1$I AS
            SELECT v.number, tstzrange(v.since, least(
                       (SELECT min(n.since) FROM history.%1$I n WHERE n.replaces = v.number),
                       (SELECT min(n.since) FROM history.%1$I n WHERE n.operation = ''truncate'' AND n.number > v.number))) AS valid,
                   v.actor_type, v.actor_id, v.row_key, v.row
            FROM history.%1$I v WHERE v.row IS NOT NULL', kept);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1 AND attname = 'row_version') THEN
        EXECUTE format('ALTER TABLE %s ADD row_version bigint', $1);
    END IF;
    -- the name of the triggers sorts first: a change of another trigger comes after the change that caused it
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = '!versions' AND tgparentid <> 0) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER "!versions_number" BEFORE INSERT OR UPDATE ON %s
            FOR EACH ROW EXECUTE FUNCTION versions.number_row()', $1);
        EXECUTE format('CREATE OR REPLACE TRIGGER "!versions" AFTER INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION versions.keep(%L)', $1, kept);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!versions_number"', $1);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!versions"', $1);
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER "!versions_truncate" AFTER TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION versions.keep(%L)', $1, kept);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!versions_truncate"', $1);
    -- a partition inherits the triggers for rows, and no trigger for TRUNCATE
    PERFORM versions.attach(inhrelid) FROM pg_inherits WHERE inhparent = $1;
END
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA versions FROM PUBLIC;
