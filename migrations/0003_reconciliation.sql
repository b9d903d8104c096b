-- migrate:up

-- What a provider states is a log of its own beside the log of its callbacks.
ALTER TABLE ledger.sources DROP CONSTRAINT sources_source_check;
--;;
ALTER TABLE ledger.sources ADD CONSTRAINT sources_source_check
    CHECK (source ~ '^[a-z0-9][a-z0-9_-]{0,62}(\.statements)?$');
--;;
-- NOT VALID: the rows that are there were checked by the narrower rule; no scan of the log.
ALTER TABLE ledger.events DROP CONSTRAINT events_origin_check;
--;;
ALTER TABLE ledger.events ADD CONSTRAINT events_origin_check
    CHECK (origin IN ('callback', 'operator', 'statement')) NOT VALID;
--;;
-- The latest reconciliation of each wallet. Derived: may be emptied at any time and comes back.
-- `positions` are the log positions at which it is true; `figures` the balance sheet.
CREATE TABLE ledger.recon_runs (
    source       text NOT NULL,
    currency     text NOT NULL,
    state        text NOT NULL
        CHECK (state IN ('RECONCILED', 'RECONCILED_WITH_TIMING', 'BREAKS', 'INCOMPLETE')),
    opened_at    timestamptz NOT NULL,
    closed_at    timestamptz NOT NULL,
    positions    jsonb NOT NULL,
    generation   integer NOT NULL,
    files        jsonb NOT NULL,
    figures      jsonb NOT NULL,
    reasons      jsonb NOT NULL,
    rules_sha256 text NOT NULL,
    sha256       text NOT NULL,
    PRIMARY KEY (source, currency)
);
--;;
-- An item (`line:…`, `<kind>:…`) is in at most one live match: the key says so.
CREATE TABLE ledger.recon_matches (
    source   text NOT NULL,
    currency text NOT NULL,
    item     text NOT NULL,
    anchor   text NOT NULL,
    rule     text NOT NULL,
    PRIMARY KEY (source, currency, item)
);
--;;
CREATE INDEX recon_matches_together ON ledger.recon_matches (source, currency, anchor);
--;;
CREATE TABLE ledger.recon_breaks (
    source     text NOT NULL,
    currency   text NOT NULL,
    id         text NOT NULL,
    type       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('OPEN', 'RESOLVED')),
    anchor     text NOT NULL,
    rule       text NOT NULL,
    items      text[] NOT NULL,
    difference numeric NOT NULL CHECK (abs(difference) < 1e40),
    gap        numeric NOT NULL CHECK (abs(gap) < 1e40),
    at         timestamptz NOT NULL,
    age_days   integer NOT NULL,
    bucket     text NOT NULL,
    owner      text NOT NULL,
    detail     text NOT NULL,
    action     text,
    decided_by text,
    decided_at timestamptz,
    note       text,
    PRIMARY KEY (source, id)
);
--;;
REVOKE ALL ON ledger.recon_runs, ledger.recon_matches, ledger.recon_breaks FROM PUBLIC;
--;;
DO $$
BEGIN
    GRANT SELECT, INSERT, UPDATE, DELETE
       ON ledger.recon_runs, ledger.recon_matches, ledger.recon_breaks TO ledger_service;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
