-- migrate:up

-- Events that are recorded more than a minute after they arrived: a clock was ahead before them.
-- An as-of by time looks here for what it would leave out without saying so. Mostly empty. Times
-- of other centuries are not subtracted: what does not fit an interval would raise.
CREATE INDEX events_recorded_late ON ledger.events (source, received_at)
 WHERE CASE WHEN received_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
             AND recorded_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
            THEN recorded_at - received_at > interval '60 seconds' ELSE false END;
