-- A sound trail that keeps rows and keys as hstore: every value is the text that its type writes.
CREATE SCHEMA texts;
CREATE EXTENSION IF NOT EXISTS hstore SCHEMA texts;

CREATE TABLE texts.log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction  text NOT NULL,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    operation    text NOT NULL,
    row_key      texts.hstore,
    old_row      texts.hstore,
    new_row      texts.hstore,
    who          text,
    at           timestamptz NOT NULL
);

CREATE FUNCTION texts.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, texts, pg_temp SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
    old_row hstore := CASE WHEN TG_OP <> 'INSERT' THEN hstore(OLD) END;
    new_row hstore := CASE WHEN TG_OP <> 'DELETE' THEN hstore(NEW) END;
    row_key hstore;
BEGIN
    SELECT slice(coalesce(new_row, old_row), array_agg(a.attname::text)) INTO row_key
    FROM pg_index i JOIN pg_attribute a
      ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
    WHERE i.indrelid = TG_RELID AND i.indisprimary;
    INSERT INTO texts.log (transaction, table_schema, table_name, operation, row_key, old_row, new_row, who, at)
    VALUES (pg_current_xact_id()::text || ' ' || extract(epoch FROM transaction_timestamp())::text, TG_TABLE_SCHEMA,
            TG_TABLE_NAME, lower(TG_OP), row_key, old_row, new_row, nullif(current_setting('texts.who', true), ''),
            clock_timestamp());
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION texts.record() FROM PUBLIC;

CREATE FUNCTION texts.attach(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER "!texts" AFTER INSERT OR UPDATE OR DELETE ON %s
        FOR EACH ROW EXECUTE FUNCTION texts.record()', relation);
END $$;
REVOKE EXECUTE ON FUNCTION texts.attach(regclass) FROM PUBLIC;
