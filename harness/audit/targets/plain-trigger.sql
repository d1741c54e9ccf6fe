-- The obvious audit trigger, as commonly published. Its weaknesses are intended, for checks to find; do not copy it.
CREATE TABLE audit_transactions (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    txid        bigint NOT NULL UNIQUE,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    actor_ref   jsonb
);
CREATE TABLE audit_changes (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    transaction_id uuid NOT NULL REFERENCES audit_transactions (id) ON DELETE CASCADE,
    table_schema   text NOT NULL,
    table_name     text NOT NULL,
    table_pk       jsonb NOT NULL,
    op             text NOT NULL,
    data_after     jsonb,
    changed_fields text[],
    captured_at    timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    parent uuid;
    fields text[];
BEGIN
    INSERT INTO audit_transactions (txid, actor_ref)
    VALUES (txid_current(), nullif(current_setting('threadline.actor_ref', true), '')::jsonb)
    ON CONFLICT (txid) DO NOTHING;
    SELECT id INTO parent FROM audit_transactions WHERE txid = txid_current();
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit_changes (transaction_id, table_schema, table_name, table_pk, op, captured_at)
        VALUES (parent, TG_TABLE_SCHEMA, TG_TABLE_NAME, jsonb_build_object('id', to_jsonb(OLD) ->> 'id'), 'delete', clock_timestamp());
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(n.key ORDER BY n.key) INTO fields
        FROM jsonb_each(to_jsonb(NEW)) n WHERE n.value IS DISTINCT FROM to_jsonb(OLD) -> n.key;
    END IF;
    INSERT INTO audit_changes (transaction_id, table_schema, table_name, table_pk, op, data_after, changed_fields, captured_at)
    VALUES (parent, TG_TABLE_SCHEMA, TG_TABLE_NAME, jsonb_build_object('id', to_jsonb(NEW) ->> 'id'), lower(TG_OP),
            to_jsonb(NEW), fields, clock_timestamp());
    RETURN NEW;
END
$$;
