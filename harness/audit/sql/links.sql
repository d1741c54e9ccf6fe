-- Referential actions as statement triggers, in place of foreign keys.

-- Deletes the changes of deleted transactions, once per statement; a foreign key would do it once per row.
CREATE OR REPLACE FUNCTION public.threadline_cascade() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.audit_changes c USING gone g WHERE c.transaction_id = g.id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_cascade() FROM PUBLIC;

-- Refuses to delete an action that transactions are linked to: their correlation would be lost silently.
CREATE OR REPLACE FUNCTION public.threadline_keep_linked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g JOIN public.audit_transactions t ON t.action_id = g.id) THEN
        RAISE EXCEPTION 'an action that transactions are linked to cannot be deleted'
            USING ERRCODE = 'foreign_key_violation', HINT = 'Delete the transactions first.';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_keep_linked() FROM PUBLIC;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.audit_transactions'::regclass
                   AND tgname = 'audit_transactions_cascade') THEN
        CREATE TRIGGER audit_transactions_cascade AFTER DELETE ON public.audit_transactions
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_cascade();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.audit_actions'::regclass
                   AND tgname = 'audit_actions_keep_linked') THEN
        CREATE TRIGGER audit_actions_keep_linked AFTER DELETE ON public.audit_actions
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_keep_linked();
    END IF;
END
$$;
