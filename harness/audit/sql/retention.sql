-- Purge: deletes rows older than the retention policy allows, one batch per transaction, so that locks are short.
-- For the owner of the trail only. Rows that a concurrent purge is deleting are skipped.

-- Deletes up to batch_size changes captured before the cutoff, oldest first, and their transactions that have no change
-- left. Returns the time of the last one: the next batch starts there and skips the dead rows that await vacuum.
CREATE OR REPLACE FUNCTION public.threadline_purge_changes(
    cutoff timestamptz, batch_size integer, empty_transactions boolean, since timestamptz,
    OUT last timestamptz, OUT changes bigint, OUT transactions bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_parents uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM public.audit_changes WHERE ctid = ANY (ARRAY(
            SELECT c.ctid FROM public.audit_changes c WHERE c.captured_at >= since AND c.captured_at < cutoff
            ORDER BY c.captured_at LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING transaction_id, captured_at
    )
    SELECT max(g.captured_at), count(*), array_agg(DISTINCT g.transaction_id) INTO last, changes, v_parents FROM gone g;
    transactions := 0;
    IF empty_transactions THEN  -- a statement of its own: it has to see that the changes are gone
        DELETE FROM public.audit_transactions t
        WHERE t.id = ANY (v_parents) AND t.occurred_at < cutoff
          AND NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id);
        GET DIAGNOSTICS transactions = ROW_COUNT;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_purge_changes(timestamptz, integer, boolean, timestamptz) FROM PUBLIC;

-- Deletes transactions without changes from before the cutoff, among the batch_size transactions that follow `after` in
-- the order of their ids. Returns the last id that it examined; NULL at the end.
CREATE OR REPLACE FUNCTION public.threadline_purge_transactions(
    cutoff timestamptz, batch_size integer, after uuid, OUT last uuid, OUT transactions bigint
)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH page AS (
        SELECT t.id, t.occurred_at FROM public.audit_transactions t WHERE t.id > after ORDER BY t.id LIMIT batch_size
    ), gone AS (
        DELETE FROM public.audit_transactions t USING page p
        WHERE t.id = p.id AND p.occurred_at < cutoff
          AND NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id)
        RETURNING t.id
    )
    SELECT (SELECT p.id FROM page p ORDER BY p.id DESC LIMIT 1), (SELECT count(*) FROM gone)
$$;
REVOKE ALL ON FUNCTION public.threadline_purge_transactions(timestamptz, integer, uuid) FROM PUBLIC;

-- Deletes up to batch_size actions from before the cutoff without a linked transaction.
CREATE OR REPLACE FUNCTION public.threadline_purge_actions(cutoff timestamptz, batch_size integer) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM public.audit_actions WHERE id = ANY (ARRAY(
            SELECT a.id FROM public.audit_actions a
            WHERE a.inserted_at < cutoff
              AND NOT EXISTS (SELECT FROM public.audit_transactions t WHERE t.action_id = a.id)
            ORDER BY a.inserted_at LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING id
    )
    SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION public.threadline_purge_actions(timestamptz, integer) FROM PUBLIC;

-- Counts the rows that a complete purge up to the cutoff would delete.
CREATE OR REPLACE FUNCTION public.threadline_purge_preview(
    cutoff timestamptz, empty_transactions boolean, unlinked_actions boolean,
    OUT changes bigint, OUT transactions bigint, OUT actions bigint
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH empty AS (
        SELECT t.id, t.action_id FROM public.audit_transactions t
        WHERE empty_transactions AND t.occurred_at < cutoff
          AND NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id AND c.captured_at >= cutoff)
    )
    SELECT (SELECT count(*) FROM public.audit_changes c WHERE c.captured_at < cutoff),
           (SELECT count(*) FROM empty),
           (SELECT count(*) FROM public.audit_actions a
            WHERE unlinked_actions AND a.inserted_at < cutoff
              AND NOT EXISTS (SELECT FROM public.audit_transactions t WHERE t.action_id = a.id
                              AND t.id NOT IN (SELECT e.id FROM empty e)))
$$;
REVOKE ALL ON FUNCTION public.threadline_purge_preview(timestamptz, boolean, boolean) FROM PUBLIC;
