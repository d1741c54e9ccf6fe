-- The baseline: the contract's plain row-level trigger with its tables, indexes and foreign keys, as a library
-- without the constraints of the reference trail would write it. It has its own schema, so that both trails exist
-- in one database.
CREATE SCHEMA plain;
CREATE TABLE plain.audit_actions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL);
CREATE TABLE plain.audit_transactions (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    txid        bigint NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    source      text,
    meta        jsonb,
    actor_ref   jsonb,
    action_id   uuid REFERENCES plain.audit_actions (id) ON DELETE SET NULL
);
CREATE UNIQUE INDEX audit_transactions_txid_key ON plain.audit_transactions (txid);
CREATE INDEX audit_transactions_txid_idx ON plain.audit_transactions (txid);
CREATE TABLE plain.audit_changes (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    transaction_id uuid NOT NULL REFERENCES plain.audit_transactions (id) ON DELETE CASCADE,
    table_schema   text NOT NULL,
    table_name     text NOT NULL,
    table_pk       jsonb NOT NULL,
    op             text NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
    data_after     jsonb,
    changed_fields text[],
    changed_from   jsonb,
    captured_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_changes_transaction_id_idx ON plain.audit_changes (transaction_id);
CREATE INDEX audit_changes_table_name_idx ON plain.audit_changes (table_name);
CREATE INDEX audit_changes_captured_at_idx ON plain.audit_changes (captured_at);

CREATE FUNCTION plain.capture() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_txid   bigint := txid_current();
    v_id     uuid;
    v_before jsonb;
    v_after  jsonb;
    v_pk     jsonb;
    v_fields text[];
BEGIN
    INSERT INTO plain.audit_transactions (id, txid, occurred_at, actor_ref)
    VALUES (gen_random_uuid(), v_txid, clock_timestamp(), nullif(current_setting('threadline.actor_ref', true), '')::jsonb)
    ON CONFLICT (txid) DO NOTHING;
    SELECT id INTO v_id FROM plain.audit_transactions WHERE txid = v_txid;
    IF TG_OP = 'DELETE' THEN
        v_pk := jsonb_build_object('id', to_jsonb(OLD) ->> 'id');
    ELSE
        v_after := to_jsonb(NEW);
        v_pk := jsonb_build_object('id', v_after ->> 'id');
        IF TG_OP = 'UPDATE' THEN
            v_before := to_jsonb(OLD);
            SELECT array_agg(k ORDER BY k) INTO v_fields
            FROM jsonb_object_keys(v_after) k WHERE v_after -> k IS DISTINCT FROM v_before -> k;
        END IF;
    END IF;
    INSERT INTO plain.audit_changes
        (transaction_id, table_schema, table_name, table_pk, op, data_after, changed_fields, changed_from, captured_at)
    VALUES (v_id, TG_TABLE_SCHEMA, TG_TABLE_NAME, v_pk, lower(TG_OP), v_after, v_fields, NULL, clock_timestamp());
    RETURN coalesce(NEW, OLD);
END
$$;
CREATE TABLE plain.t (id bigserial PRIMARY KEY, name text NOT NULL, value integer, at timestamptz DEFAULT now());
CREATE TRIGGER threadline_audit_t AFTER INSERT OR UPDATE OR DELETE ON plain.t
    FOR EACH ROW EXECUTE FUNCTION plain.capture();

CREATE SCHEMA bare;
CREATE TABLE bare.t (id bigserial PRIMARY KEY, name text NOT NULL, value integer, at timestamptz DEFAULT now());
CREATE SCHEMA ours;
CREATE TABLE ours.t (id bigserial PRIMARY KEY, name text NOT NULL, value integer, at timestamptz DEFAULT now());

-- Single-row transactions, committed one by one inside the server: no round trip hides the difference.
-- All three procedures set the actor, so that the comparison covers capture only.
DO $$
DECLARE
    v_schema text;
BEGIN
    FOREACH v_schema IN ARRAY ARRAY['bare', 'plain', 'ours'] LOOP
        EXECUTE format($p$
            CREATE PROCEDURE %I.single(n integer) LANGUAGE plpgsql AS $b$
            BEGIN
                FOR i IN 1..n LOOP
                    PERFORM set_config('threadline.actor_ref', '{"type": "user", "id": "42"}', true);
                    INSERT INTO %I.t (name, value) VALUES ('name', i);
                    COMMIT;
                END LOOP;
            END $b$ $p$, v_schema, v_schema);
    END LOOP;
END $$;
