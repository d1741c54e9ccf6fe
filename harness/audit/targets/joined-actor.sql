-- A change log whose actor is a row that the application inserts, in the same transaction, into a table of its own.
-- The table keeps who runs a transaction, and the log is joined with it by the transaction.
--
-- Limits: A change of the schema writes no records: the values that ADD COLUMN … DEFAULT fills in are not recorded, and
-- a renamed table has its history under two names. A TRUNCATE of a new partition is recorded once its table is attached
-- again; its rows are recorded from the beginning.
CREATE SCHEMA activity;

-- declarations and changes share it: a declaration is about the changes after it
CREATE SEQUENCE activity.numbers;

-- A transaction is known by its number and its start: together they have one meaning in every cluster.
CREATE TABLE activity.actors (
    number      bigint PRIMARY KEY,
    transaction uuid NOT NULL,
    type        text NOT NULL,
    id          text,
    declared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT valid_actor CHECK ((
        type = 'anonymous' OR type IN ('user', 'admin', 'service_account', 'job', 'system') AND id ~ '[^[:space:]]') IS TRUE)
);
CREATE INDEX ON activity.actors (transaction, number);

-- BEFORE a declaration: it is about the running transaction and no other
CREATE FUNCTION activity.declare() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.number := nextval('activity.numbers');
    NEW.transaction := (lpad(to_hex(pg_current_xact_id()::text::bigint), 16, '0')
        || lpad(to_hex((extract(epoch FROM transaction_timestamp()) * 1000000)::bigint), 16, '0'))::uuid;
    RETURN NEW;
END
$$;
CREATE TRIGGER declare BEFORE INSERT ON activity.actors FOR EACH ROW EXECUTE FUNCTION activity.declare();

-- every role may declare who runs its own transaction
GRANT USAGE ON SCHEMA activity TO PUBLIC;
GRANT INSERT (type, id) ON activity.actors TO PUBLIC;

-- no foreign key: its check would read actors, and serializable writers would conflict on that
CREATE TABLE activity.changes (
    number       bigint PRIMARY KEY DEFAULT nextval('activity.numbers'),
    transaction  uuid NOT NULL,
    -- for exports: which transactions were not visible to the last one
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    operation    text NOT NULL,
    row_key      jsonb,
    row_after    jsonb,
    recorded_at  timestamptz NOT NULL
);
CREATE INDEX ON activity.changes (transaction);
CREATE INDEX ON activity.changes (recorded_at);

-- AFTER each row, and after TRUNCATE. A row of a partition is recorded under the name of the partitioned table.
CREATE FUNCTION activity.record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
DECLARE
    named   record;
    written jsonb;
    keyed   jsonb;
    row_key jsonb;
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
    keyed := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE written END;
    SELECT n.nspname, c.relname INTO named
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = CASE TG_OP WHEN 'TRUNCATE' THEN TG_RELID ELSE coalesce(pg_partition_root(TG_RELID), TG_RELID) END;
    SELECT jsonb_object_agg(a.attname, keyed -> a.attname) INTO row_key
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
    WHERE i.indrelid = TG_RELID AND i.indisprimary AND TG_OP <> 'TRUNCATE';
    INSERT INTO activity.changes (transaction, table_schema, table_name, operation, row_key, row_after, recorded_at)
    VALUES ((lpad(to_hex(pg_current_xact_id()::text::bigint), 16, '0')
             || lpad(to_hex((extract(epoch FROM transaction_timestamp()) * 1000000)::bigint), 16, '0'))::uuid,
            named.nspname, named.relname, lower(TG_OP), row_key, written, clock_timestamp());
    RETURN NULL;
END
$$;

-- The name of the triggers sorts first: a change of another trigger comes after the change that caused it.
CREATE FUNCTION activity.attach(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = '!activity' AND tgparentid <> 0) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER "!activity" AFTER INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION activity.record_change()', relation);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!activity"', relation);
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER "!activity_truncate" AFTER TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION activity.record_change()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "!activity_truncate"', relation);
    -- a partition inherits the trigger for rows, and no trigger for TRUNCATE
    PERFORM activity.attach(inhrelid) FROM pg_inherits WHERE inhparent = relation;
END
$$;

-- Deletes the changes before the cutoff, and then the actors of transactions of which no change is left.
CREATE FUNCTION activity.purge(cutoff timestamptz) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM activity.changes WHERE recorded_at < cutoff;
    DELETE FROM activity.actors a WHERE declared_at < cutoff
        AND NOT EXISTS (SELECT FROM activity.changes c WHERE c.transaction = a.transaction);
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA activity FROM PUBLIC;
