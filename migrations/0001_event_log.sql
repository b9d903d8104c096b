-- migrate:up

CREATE TABLE ledger.sources (
    source   text PRIMARY KEY CHECK (source ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    provider text NOT NULL,
    currency text,
    wallets  jsonb NOT NULL DEFAULT '{}'
);
--;;
-- One row per log. Whoever holds its lock assigns the next positions, so commit order is
-- position order and a reader needs only `position > checkpoint`.
CREATE TABLE ledger.heads (
    source      text PRIMARY KEY,
    position    bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    recorded_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
--;;
CREATE TABLE ledger.events (
    source          text NOT NULL,
    position        bigint NOT NULL CHECK (position > 0),
    event_id        bytea NOT NULL CHECK (octet_length(event_id) = 16),
    idempotency_key text NOT NULL,
    kind            text NOT NULL,
    resource_id     text NOT NULL,
    status          text NOT NULL,
    idempotency_id  text,
    provider_at     timestamptz,
    path_event      text,
    origin          text NOT NULL CHECK (origin IN ('callback', 'operator')),
    verdict         text NOT NULL CHECK (verdict IN ('accepted', 'quarantined')),
    reason          text,
    detail          text,
    peer            text NOT NULL,
    headers         text NOT NULL,
    body            bytea NOT NULL,
    received_at     timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL,
    PRIMARY KEY (source, position),
    CONSTRAINT events_identity UNIQUE (source, event_id)
);
--;;
-- Without statistics on `source` the planner never believes that one log has a single row and
-- so never answers a look-up by event_id from the primary key (measured: 40 times slower).
ALTER TABLE ledger.events ALTER COLUMN source SET STATISTICS 0;
--;;
-- Every request that made no event: the first delivery of an event is the event itself.
CREATE TABLE ledger.deliveries (
    source     text NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('duplicate', 'refused', 'failed')),
    answer     integer NOT NULL,
    position   bigint,
    path_event text,
    peer       text NOT NULL,
    reason     text,
    body_bytes integer NOT NULL,
    PRIMARY KEY (source, id)
);
--;;
CREATE INDEX deliveries_of_event ON ledger.deliveries (source, position);
--;;
CREATE TABLE ledger.generations (
    generation integer PRIMARY KEY,
    version    text NOT NULL,
    state      text NOT NULL CHECK (state IN ('building', 'live', 'previous')),
    created_at timestamptz NOT NULL DEFAULT now()
);
--;;
CREATE UNIQUE INDEX one_live_generation ON ledger.generations (state) WHERE state = 'live';
--;;
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.events is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Append an event that corrects the earlier one.';
END $$;
--;;
CREATE TRIGGER events_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
--;;
-- ALWAYS: session_replication_role = replica switches ordinary triggers off.
ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_immutable;
--;;
-- Where known events are. Planned anew for every call: a plan kept from when the table was small
-- would walk a whole log.
CREATE FUNCTION ledger.positions_of(p_source text, p_event_ids bytea[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_positions bigint[];
BEGIN
    SELECT array_agg((SELECT e.position FROM ledger.events e
                       WHERE e.source = p_source AND e.event_id = u.id) ORDER BY u.n)
      INTO v_positions
      FROM unnest(p_event_ids) WITH ORDINALITY AS u(id, n);
    RETURN v_positions;
END $$;
--;;
-- Lock order: one head row, then its events. One source per call, in autocommit, READ COMMITTED.
-- The lock is a statement of its own, so the insert's snapshot is younger than the lock.
CREATE FUNCTION ledger.append(
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
    SELECT array_agg(n = ANY (v_fresh) ORDER BY n) INTO fresh
      FROM generate_series(1, v_count) AS n;
    INSERT INTO ledger.deliveries
           (source, at, outcome, answer, position, path_event, peer, body_bytes)
    SELECT p_source, p_received_ats[n], 'duplicate', 200, positions[n], p_path_events[n],
           p_peers[n], octet_length(p_bodies[n])
      FROM generate_series(1, v_count) AS n WHERE NOT fresh[n];
END $$;
--;;
-- recorded_at never decreases with position, so a moment is found by halving.
CREATE FUNCTION ledger.position_at(p_source text, p_moment timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint;
    v_middle bigint;
    v_recorded timestamptz;
BEGIN
    SELECT h.position INTO v_high FROM ledger.heads h WHERE h.source = p_source;
    WHILE v_low < coalesce(v_high, 0) LOOP
        v_middle := (v_low + v_high + 1) / 2;
        SELECT e.recorded_at INTO v_recorded FROM ledger.events e
         WHERE e.source = p_source AND e.position = v_middle;
        IF v_recorded <= p_moment THEN v_low := v_middle; ELSE v_high := v_middle - 1; END IF;
    END LOOP;
    RETURN v_low;
END $$;
--;;
-- Append-only by grants: the owner too gives up changing the log (it keeps only what the append
-- function needs), and a service role that does not own it can only call ledger.append.
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
--;;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
--;;
DO $$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON ledger.events FROM %I', current_user);
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledger_service') THEN
        BEGIN
            CREATE ROLE ledger_service NOLOGIN;
        EXCEPTION WHEN insufficient_privilege THEN
            RETURN;
        WHEN duplicate_object THEN
            NULL;
        END;
    END IF;
    GRANT USAGE ON SCHEMA ledger TO ledger_service;
    GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO ledger_service;
    GRANT INSERT, UPDATE ON ledger.sources TO ledger_service;
    GRANT INSERT (source) ON ledger.heads TO ledger_service;
    GRANT INSERT, DELETE ON ledger.deliveries TO ledger_service;
    GRANT INSERT, UPDATE, DELETE ON ledger.generations TO ledger_service;
    GRANT EXECUTE ON FUNCTION ledger.append, ledger.position_at TO ledger_service;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
