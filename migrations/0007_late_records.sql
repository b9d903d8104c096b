-- migrate:up

-- Events that are recorded more than a minute after they arrived: a clock was ahead before them.
-- An as-of by time looks here for what it would leave out without saying so. Mostly empty.
CREATE INDEX events_recorded_late ON ledger.events (source, received_at)
 WHERE recorded_at - received_at > interval '60 seconds';
