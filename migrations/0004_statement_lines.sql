-- migrate:up

-- What an import looks for in the log of statements: a line's latest word, and the lines of a
-- period. Callbacks are not in these indexes. `source` comes second: without statistics on it, any
-- index that begins with it looks like a good one.
CREATE INDEX events_stated ON ledger.events (hashtextextended(resource_id, 0), source)
    WHERE origin = 'statement';
--;;
CREATE INDEX events_stated_at ON ledger.events (provider_at, source)
    WHERE origin = 'statement' AND kind = 'statement_line';
