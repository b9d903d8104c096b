-- migrate:up

-- Lock order: one head row, then its events. One source per call, in autocommit, READ COMMITTED.
-- The lock is a statement of its own, so the insert's snapshot is younger than the lock.
CREATE OR REPLACE FUNCTION ledger.append(
    p_source text, p_event_ids bytea[], p_keys text[], p_kinds text[], p_resources text[],
    p_statuses text[], p_idempotency_ids text[], p_provider_ats timestamptz[],
    p_path_events text[], p_origins text[], p_reasons text[], p_details text[],
    p_peers text[], p_headers text[], p_bodies bytea[], p_received_ats timestamptz[],
    OUT base bigint, OUT positions bigint[], OUT fresh boolean[]
) LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer := cardinality(p_event_ids);
    v_moment timestamptz;
    v_fresh integer[];  -- places of the events that are new; unknown (NULL) on the first try
    v_taken integer[];
    v_done boolean := false;
BEGIN
    SELECT h.position, greatest(clock_timestamp(), h.recorded_at) INTO base, v_moment
      FROM ledger.heads h WHERE h.source = p_source FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'source % is not registered', p_source
            USING ERRCODE = 'no_data_found', HINT = 'Restart the service with it configured.';
    END IF;
    WHILE NOT v_done LOOP
        BEGIN
            WITH added AS (
                INSERT INTO ledger.events
                SELECT p_source,
                       base + CASE WHEN v_fresh IS NULL THEN u.n
                                   ELSE array_position(v_fresh, u.n::integer) END,
                       u.event_id, u.key, u.kind, u.resource, u.status, u.idempotency_id,
                       u.provider_at, u.path_event, u.origin,
                       CASE WHEN u.reason IS NULL THEN 'accepted' ELSE 'quarantined' END,
                       u.reason, u.detail, u.peer, u.headers, u.body, u.received_at, v_moment
                  FROM unnest(p_event_ids, p_keys, p_kinds, p_resources, p_statuses,
                              p_idempotency_ids, p_provider_ats, p_path_events, p_origins,
                              p_reasons, p_details, p_peers, p_headers, p_bodies, p_received_ats)
                       WITH ORDINALITY AS u(event_id, key, kind, resource, status,
                              idempotency_id, provider_at, path_event, origin, reason, detail,
                              peer, headers, body, received_at, n)
                 WHERE v_fresh IS NULL OR u.n::integer = ANY (v_fresh)
                ON CONFLICT (source, event_id) DO NOTHING
                RETURNING (position - base)::integer AS n
            ) SELECT coalesce(array_agg(n ORDER BY n), '{}') INTO v_taken FROM added;
            IF cardinality(v_taken) < coalesce(cardinality(v_fresh), v_count) THEN
                -- Rolls the holes back; the list of fresh ones survives in the variable.
                v_fresh := v_taken;
                RAISE EXCEPTION USING ERRCODE = 'LG001';
            END IF;
            v_done := true;
        EXCEPTION WHEN SQLSTATE 'LG001' THEN
            v_done := v_fresh = '{}';
        END;
    END LOOP;
    IF v_fresh IS DISTINCT FROM '{}' THEN
        UPDATE ledger.heads
           SET position = base + coalesce(cardinality(v_fresh), v_count), recorded_at = v_moment
         WHERE source = p_source;
    END IF;
    IF v_fresh IS NULL THEN
        RETURN;
    END IF;
    positions := ledger.positions_of(p_source, p_event_ids);
    IF array_position(positions, NULL) IS NOT NULL THEN
        -- Something in the database swallowed an insert: nothing may be acknowledged.
        RAISE EXCEPTION 'an event of % is neither stored nor known', p_source
            USING ERRCODE = 'LG002',
                  HINT = 'Find the trigger or rule on ledger.events that drops rows.';
    END IF;
    SELECT array_agg(n = ANY (v_fresh) ORDER BY n) INTO fresh
      FROM generate_series(1, v_count) AS n;
    PERFORM ledger.record_duplicates(p_source, array_agg(positions[n] ORDER BY n),
                array_agg(p_received_ats[n] ORDER BY n), array_agg(p_path_events[n] ORDER BY n),
                array_agg(p_peers[n] ORDER BY n), array_agg(octet_length(p_bodies[n]) ORDER BY n))
       FROM generate_series(1, v_count) AS n WHERE NOT fresh[n];
END $$;
