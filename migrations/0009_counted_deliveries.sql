-- migrate:up

-- A row stands for one request, except the hundredth of an event and day (UTC): it counts what comes
-- after it as well, so that one callback sent again for ever does not fill the disk.
ALTER TABLE ledger.deliveries
    ADD COLUMN count bigint NOT NULL DEFAULT 1 CHECK (count > 0),
    ADD COLUMN last_at timestamptz;
--;;
CREATE INDEX deliveries_of_day ON ledger.deliveries (source, position, at);
--;;
DROP INDEX ledger.deliveries_of_event;
--;;
-- Called by ledger.append under the lock of the source's head, so nobody counts beside it.
CREATE FUNCTION ledger.record_duplicates(
    p_source text, p_positions bigint[], p_ats timestamptz[], p_path_events text[],
    p_peers text[], p_sizes integer[]
) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
AS $$
WITH told AS (
    SELECT u.*, date_trunc('day', u.at, 'UTC') AS day,
           row_number() OVER (PARTITION BY u.position, date_trunc('day', u.at, 'UTC')
                                  ORDER BY u.n) AS ordinal,
           count(*) OVER (PARTITION BY u.position, date_trunc('day', u.at, 'UTC')) AS together,
           max(u.at) OVER (PARTITION BY u.position, date_trunc('day', u.at, 'UTC')) AS latest
      FROM unnest(p_positions, p_ats, p_path_events, p_peers, p_sizes)
           WITH ORDINALITY AS u(position, at, path_event, peer, size, n)
), known AS (
    SELECT day.position, day.day, (
           SELECT count(*) FROM (
               SELECT FROM ledger.deliveries AS d
                WHERE d.source = p_source AND d.position = day.position
                  AND d.at >= day.day AND d.at < day.day + interval '24 hours' LIMIT 100) AS rows
           ) AS rows
      FROM (SELECT DISTINCT t.position, t.day FROM told AS t) AS day
), placed AS (
    SELECT t.*, k.rows, k.rows + t.ordinal AS place
      FROM told AS t JOIN known AS k USING (position, day)
), written AS (
    INSERT INTO ledger.deliveries
           (source, at, outcome, answer, position, path_event, peer, body_bytes, count, last_at)
    SELECT p_source, p.at, 'duplicate', 200, p.position, p.path_event, p.peer, p.size,
           CASE WHEN p.place = 100 THEN p.together - p.ordinal + 1 ELSE 1 END,
           CASE WHEN p.place = 100 AND p.together > p.ordinal THEN p.latest END
      FROM placed AS p WHERE p.place <= 100 ORDER BY p.n
), beyond AS (
    SELECT p.position, p.day, p.together, p.latest
      FROM placed AS p WHERE p.rows = 100 AND p.ordinal = 1
)
UPDATE ledger.deliveries AS d
   SET count = d.count + b.together, last_at = greatest(d.last_at, b.latest)
  FROM beyond AS b
 WHERE d.source = p_source
   AND d.id = (SELECT r.id FROM ledger.deliveries AS r
                WHERE r.source = p_source AND r.position = b.position
                  AND r.at >= b.day AND r.at < b.day + interval '24 hours'
                ORDER BY r.at DESC, r.id DESC LIMIT 1)
$$;
--;;
REVOKE ALL ON FUNCTION ledger.record_duplicates FROM PUBLIC;
