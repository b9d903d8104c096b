-- migrate:up

-- What the latest reconciliation of each wallet is at the end of each month that its statements
-- reach: balances, what of the open items changed since the month before (`open`: `changed` items
-- and `ended` ids), which breaks of the month decisions resolved (`resolved`).
-- Derived, like the runs. What was so when a month was closed is an event of the source's log.
CREATE TABLE ledger.recon_months (
    source     text NOT NULL,
    currency   text NOT NULL,
    period     text NOT NULL CHECK (period ~ '^[0-9]{4}-[0-9]{2}$'),
    begin_at   timestamptz NOT NULL,
    end_at     timestamptz NOT NULL,
    state      text NOT NULL
        CHECK (state IN ('RECONCILED', 'RECONCILED_WITH_TIMING', 'BREAKS', 'INCOMPLETE')),
    figures    jsonb NOT NULL,
    open       jsonb NOT NULL,
    resolved   jsonb NOT NULL,
    reasons    jsonb NOT NULL,
    sha256     text NOT NULL,
    PRIMARY KEY (source, currency, period)
);
--;;
REVOKE ALL ON ledger.recon_months FROM PUBLIC;
--;;
DO $$
BEGIN
    GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.recon_months TO ledger_service;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
