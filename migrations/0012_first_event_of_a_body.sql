-- migrate:up

-- Where the bytes of a callback are in a log, whatever key a version of the program gave them. On a
-- large log this takes a while (every body is hashed); it may be built beforehand, CONCURRENTLY.
-- A record's hash is not cryptographic: bodies are compared as well. It costs a seventh of SHA-256,
-- whose price would double the time of an append; like those of hash partitions it never changes.
CREATE INDEX IF NOT EXISTS events_body
    ON ledger.events (source, hash_record_extended(ROW(body), 0)) WHERE origin = 'callback';
--;;
-- No statistics: ANALYZE would hash the bodies of its sample, and the planner needs none here.
ALTER INDEX ledger.events_body ALTER COLUMN 2 SET STATISTICS 0;
--;;
-- Where the first event of each of some deliveries is, and its id; NULL for what is new. That is the
-- event with the delivery's own id; else the first callback with the same bytes, which another
-- version of the program read differently. Folds read the bytes and the URL's event name and
-- nothing else, so the same of both is the same fact. With another event name it is the same only
-- where the name decides nothing: the first event had none, or was understood as the same kind.
CREATE FUNCTION ledger.first_events(
    p_source text, p_event_ids bytea[], p_keys text[], p_kinds text[], p_path_events text[],
    p_origins text[], p_reasons text[], p_hashes bigint[], p_bodies bytea[],
    OUT positions bigint[], OUT event_ids bytea[]
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_by_url text := p_source || '/by_url///';  -- how keys begin where the event name decides
BEGIN
    SELECT array_agg(CASE WHEN u.origin = 'callback' THEN f.position
                          ELSE (ledger.positions_of(p_source, ARRAY[u.event_id]))[1] END
                     ORDER BY u.n),
           array_agg(CASE WHEN u.origin = 'callback' THEN f.event_id ELSE u.event_id END
                     ORDER BY u.n)
      INTO positions, event_ids
      FROM unnest(p_event_ids, p_keys, p_kinds, p_path_events, p_origins, p_reasons, p_hashes,
                  p_bodies) WITH ORDINALITY AS u(event_id, key, kind, path_event, origin, reason, hash, body, n)
      LEFT JOIN LATERAL (
           SELECT e.position, e.event_id FROM ledger.events AS e
            WHERE e.source = p_source AND e.origin = 'callback'
              AND hash_record_extended(ROW(e.body), 0) = u.hash AND e.body = u.body
              AND (e.event_id = u.event_id
                   OR e.path_event IS NOT DISTINCT FROM u.path_event
                   OR u.reason IS NULL AND NOT starts_with(u.key, v_by_url)
                  AND (e.path_event IS NULL
                       OR e.verdict = 'accepted' AND e.kind = u.kind
                      AND NOT starts_with(e.idempotency_key, v_by_url)))
            ORDER BY e.event_id = u.event_id DESC, e.position LIMIT 1) AS f
        ON u.origin = 'callback';
END $$;
--;;
REVOKE ALL ON FUNCTION ledger.first_events FROM PUBLIC;
--;;
DROP FUNCTION ledger.append;
--;;
-- Lock order: one head row, then its events. One source per call, in autocommit, READ COMMITTED.
-- The lock is a statement of its own, so what follows sees everything that was appended before it.
CREATE FUNCTION ledger.append(
    p_source text, p_event_ids bytea[], p_keys text[], p_kinds text[], p_resources text[],
    p_statuses text[], p_idempotency_ids text[], p_provider_ats timestamptz[],
    p_path_events text[], p_origins text[], p_reasons text[], p_details text[],
    p_peers text[], p_headers text[], p_bodies bytea[], p_received_ats timestamptz[],
    OUT base bigint, OUT positions bigint[], OUT fresh boolean[], OUT event_ids bytea[]
) LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer := cardinality(p_event_ids);
    v_moment timestamptz;
    v_hashes bigint[];  -- of the bodies
    v_head bigint;
    v_next integer[];  -- places of the events that are inserted together
    v_fresh integer[] := '{}';  -- places of all that were inserted
    v_added integer;
BEGIN
    SELECT h.position, greatest(clock_timestamp(), h.recorded_at) INTO base, v_moment
      FROM ledger.heads h WHERE h.source = p_source FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'source % is not registered', p_source
            USING ERRCODE = 'no_data_found', HINT = 'Restart the service with it configured.';
    END IF;
    v_head := base;
    SELECT array_agg(hash_record_extended(ROW(u.body), 0) ORDER BY u.n)
      INTO v_hashes FROM unnest(p_bodies) WITH ORDINALITY AS u(body, n);
    LOOP
        SELECT f.positions, f.event_ids INTO positions, event_ids
          FROM ledger.first_events(p_source, p_event_ids, p_keys, p_kinds, p_path_events,
                                   p_origins, p_reasons, v_hashes, p_bodies) AS f;
        -- Copies in one batch: the first is inserted, the others are looked up once more.
        SELECT array_agg(f.n ORDER BY f.n) INTO v_next
          FROM (SELECT min(u.n)::integer AS n
                  FROM unnest(v_hashes, positions, p_origins, p_event_ids)
                       WITH ORDINALITY AS u(hash, position, origin, event_id, n)
                 WHERE u.position IS NULL
                 GROUP BY u.hash, CASE WHEN u.origin <> 'callback' THEN u.event_id END) AS f;
        EXIT WHEN v_next IS NULL;
        WITH added AS (
            INSERT INTO ledger.events
            SELECT p_source,
                   v_head + CASE WHEN cardinality(v_next) = v_count THEN u.n
                                 ELSE array_position(v_next, u.n::integer) END,
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
             WHERE cardinality(v_next) = v_count OR u.n::integer = ANY (v_next)
            RETURNING position
        ) SELECT count(*) INTO v_added FROM added;
        IF v_added <> cardinality(v_next) THEN
            -- Something in the database swallowed an insert: nothing may be acknowledged.
            RAISE EXCEPTION 'an event of % is neither stored nor known', p_source
                USING ERRCODE = 'LG002',
                      HINT = 'Find the trigger or rule on ledger.events that drops rows.';
        END IF;
        v_head := v_head + v_added;
        v_fresh := v_fresh || v_next;
        EXIT WHEN v_added = v_count;
    END LOOP;
    IF v_head > base THEN
        UPDATE ledger.heads SET position = v_head, recorded_at = v_moment WHERE source = p_source;
    END IF;
    IF v_added = v_count THEN
        positions := NULL;
        event_ids := NULL;
        RETURN;
    END IF;
    SELECT array_agg(n = ANY (v_fresh) ORDER BY n) INTO fresh
      FROM generate_series(1, v_count) AS n;
    PERFORM ledger.record_duplicates(p_source, array_agg(positions[n] ORDER BY n),
                array_agg(p_received_ats[n] ORDER BY n), array_agg(p_path_events[n] ORDER BY n),
                array_agg(p_peers[n] ORDER BY n), array_agg(octet_length(p_bodies[n]) ORDER BY n))
       FROM generate_series(1, v_count) AS n WHERE NOT fresh[n];
END $$;
--;;
REVOKE ALL ON FUNCTION ledger.append FROM PUBLIC;
--;;
DO $$
BEGIN
    GRANT EXECUTE ON FUNCTION ledger.append TO ledger_service;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
