-- The tables of the reference audit layer. Safe to run again, like all of its files; loses nothing.
--
-- Table, column and setting names are those of Threadline 0.2, so that a tool for one reads the other.
-- Where that contract and safety collide, the columns stay and the choice is explained in
-- harness/audit/README.md.

SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('threadline install'));  -- one installation at a time
SELECT pg_catalog.set_config('threadline.is_new', (pg_catalog.to_regclass('public.audit_changes') IS NULL)::text, true);

-- Semantic events: what the application meant to do.
CREATE TABLE IF NOT EXISTS public.audit_actions (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL,
    actor_ref      jsonb NOT NULL,
    status         text NOT NULL CHECK (status IN ('ok', 'error')),
    verb           text,
    category       text,
    reason         text,
    comment        text,
    correlation_id text,
    request_id     text,
    job_id         text,
    inserted_at    timestamptz NOT NULL DEFAULT now()
);

-- One row per captured database transaction. `action_id` is an audit_actions.id; a trigger keeps a linked
-- action from being deleted, where a foreign key would cost every transaction. `id` is the transaction's identity: see
-- threadline_transaction_id. `txid` has no index: the id says the same, and more.
CREATE TABLE IF NOT EXISTS public.audit_transactions (
    id          uuid PRIMARY KEY,
    txid        bigint NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    source      text,
    meta        jsonb,
    actor_ref   jsonb,
    action_id   uuid
);

-- One row per changed row. No foreign key and no CHECK: they cost a third of the capture, and only the
-- capture functions below can write here. The cascade of a deletion is a trigger of its own. The key leads
-- with the transaction, whose ids grow with time: one index that is appended to serves for two.
CREATE TABLE IF NOT EXISTS public.audit_changes (
    id             uuid NOT NULL DEFAULT gen_random_uuid(),
    transaction_id uuid NOT NULL,
    table_schema   text NOT NULL,
    table_name     text NOT NULL,
    table_pk       jsonb NOT NULL,
    op             text NOT NULL,
    data_after     jsonb,
    changed_fields text[],
    changed_from   jsonb,
    captured_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction_id, id)
);

-- What the capture functions looked like when they were installed; coverage compares.
CREATE TABLE IF NOT EXISTS public.audit_capture_code (
    function_name text PRIMARY KEY,
    body_md5      text NOT NULL
);

-- CREATE INDEX IF NOT EXISTS would lock a live table before it looks, and every writer would queue behind it.
DO $$
DECLARE
    v_index record;
BEGIN
    FOR v_index IN SELECT * FROM (VALUES
        ('audit_actions_actor_ref_idx', 'audit_actions USING gin (actor_ref)'),
        ('audit_actions_inserted_at_idx', 'audit_actions (inserted_at)'),
        ('audit_actions_name_idx', 'audit_actions (name)'),
        ('audit_actions_correlation_id_idx', 'audit_actions (correlation_id) WHERE correlation_id IS NOT NULL'),
        ('audit_transactions_action_id_idx', 'audit_transactions (action_id) WHERE action_id IS NOT NULL'),
        ('audit_changes_captured_at_idx', 'audit_changes (captured_at)')
    ) AS wanted (name, definition) LOOP
        IF pg_catalog.to_regclass('public.' || v_index.name) IS NULL THEN
            EXECUTE pg_catalog.format('CREATE INDEX %I ON public.%s', v_index.name, v_index.definition);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON public.audit_actions, public.audit_transactions, public.audit_changes, public.audit_capture_code
    FROM PUBLIC;
