-- A change log as in many applications: it trusts the user that the session names. Do not copy it.
CREATE TABLE change_log (
    id           bigserial PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    txid         bigint NOT NULL DEFAULT txid_current(),
    user_id      text DEFAULT nullif(current_setting('app.user_id', true), ''),
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    operation    text NOT NULL,
    row_id       bigint,
    new_row      jsonb
);

CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change_log (table_schema, table_name, operation, row_id, new_row)
    VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            CASE WHEN to_jsonb(coalesce(NEW, OLD)) ->> 'id' ~ '^[0-9]+$' THEN (to_jsonb(coalesce(NEW, OLD)) ->> 'id')::bigint END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;
