-- Semantic actions of the application, and the rights of its role.

-- Records an action of the application, and links it to the running transaction's changes.
-- Without an actor argument the transaction's actor is used. Without an actor setting the argument is also the
-- transaction's actor. A transaction is linked to its first action. The three ids are stored without surrounding
-- blanks and must fit into 256 bytes, so that every stored id can be searched for.
CREATE OR REPLACE FUNCTION public.threadline_record_action(
    name text, actor_ref jsonb DEFAULT NULL, status text DEFAULT 'ok', verb text DEFAULT NULL,
    category text DEFAULT NULL, reason text DEFAULT NULL, comment text DEFAULT NULL,
    correlation_id text DEFAULT NULL, request_id text DEFAULT NULL, job_id text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_setting jsonb := nullif(current_setting('threadline.actor_ref', true), '')::jsonb;
    v_actor   jsonb := coalesce($2, v_setting);
    v_ids     text[] := ARRAY[btrim($8, E' \t\r\n'), btrim($9, E' \t\r\n'), btrim($10, E' \t\r\n')];
    v_action  uuid;
BEGIN
    IF '' = ANY (v_ids) OR octet_length(v_ids[1]) > 256 OR octet_length(v_ids[2]) > 256 OR octet_length(v_ids[3]) > 256 THEN
        RAISE EXCEPTION 'correlation_id, request_id and job_id must have 1 to 256 bytes, blanks around them aside'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave out what there is not.';
    END IF;
    IF v_actor IS NULL THEN
        RAISE EXCEPTION 'an action needs an actor, and neither the argument nor the setting gives one'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_actor := public.threadline_checked_actor(v_actor);
    v_setting := public.threadline_checked_actor(v_setting);
    INSERT INTO public.audit_actions
        (name, actor_ref, status, verb, category, reason, comment, correlation_id, request_id, job_id)
    VALUES ($1, v_actor, $3, $4, $5, $6, $7, v_ids[1], v_ids[2], v_ids[3])
    RETURNING id INTO v_action;
    INSERT INTO public.audit_transactions AS t (id, txid, occurred_at, actor_ref, action_id)
    VALUES (public.threadline_transaction_id(), txid_current(), clock_timestamp(), coalesce(v_setting, v_actor), v_action)
    ON CONFLICT (id) DO UPDATE SET action_id = coalesce(t.action_id, EXCLUDED.action_id);
    RETURN v_action;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_record_action(text, jsonb, text, text, text, text, text, text, text, text)
    FROM PUBLIC;

-- Grants an application role the right to record actions and, with `reading`, to read the trail. The trail holds row
-- images of every audited table, including tables that the role cannot read. Only the capture writes changes.
CREATE OR REPLACE FUNCTION public.threadline_grant(application regrole, reading boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF reading THEN
        EXECUTE format('GRANT SELECT ON public.audit_actions, public.audit_transactions, public.audit_changes TO %s',
                       application);
    END IF;
    EXECUTE format('GRANT EXECUTE ON FUNCTION public.threadline_record_action'
                   '(text, jsonb, text, text, text, text, text, text, text, text) TO %s', application);
END
$$;
