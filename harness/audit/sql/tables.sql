-- The tables of the reference audit layer. Like all of its files it can be run again, and loses no data.
--
-- Table, column and setting names are those of Threadline 0.2, so that a tool for one can read the other. Where that
-- contract conflicts with safety, the columns stay, and docs/audit-layer.md explains the choice.

SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('threadline install'));  -- one installation at a time
SELECT pg_catalog.set_config('threadline.is_new', (pg_catalog.to_regclass('public.audit_changes') IS NULL)::text, true);

-- Semantic events of the application.
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

-- One row per captured database transaction. `action_id` is an audit_actions.id; a trigger prevents the deletion of a
-- linked action, because a foreign key would slow every transaction. `id` is the transaction's identity: see
-- threadline_transaction_id. `txid` has no index: the id contains it.
CREATE TABLE IF NOT EXISTS public.audit_transactions (
    id          uuid PRIMARY KEY,
    txid        bigint NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    source      text,
    meta        jsonb,
    actor_ref   jsonb,
    action_id   uuid
);

-- One row per changed row. It has no foreign key and no CHECK: they would cost a third of the capture's time, and only
-- the capture functions can write here. A trigger in links.sql cascades deletions. The primary key begins with the
-- transaction, whose ids grow with time: one append-only index serves two purposes.
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

-- Digests of the capture functions as installed; coverage compares them with the present functions.
CREATE TABLE IF NOT EXISTS public.audit_capture_code (
    function_name text PRIMARY KEY,
    body_md5      text NOT NULL
);

-- CREATE INDEX IF NOT EXISTS would lock a live table before it checks, and every writer would queue behind it.
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
