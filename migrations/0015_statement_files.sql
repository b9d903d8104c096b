-- migrate:up

-- What an import needs of the earlier files of a source: few rows in a log of many lines.
CREATE INDEX events_statement_files ON ledger.events (source, resource_id, position)
    WHERE origin = 'statement' AND kind = 'statement';
