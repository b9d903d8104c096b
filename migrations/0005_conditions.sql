-- migrate:up

-- What keeps one of the service's processes from its work right now: reported while it lasts,
-- shown by /v1/status, `ledger doctor` and /metrics. Derived: may be emptied at any time.
CREATE TABLE ledger.conditions (
    source  text NOT NULL,  -- '' concerns the whole service
    name    text NOT NULL CHECK (name ~ '^[a-z][a-z_]{0,62}$'),
    detail  text NOT NULL CHECK (length(detail) <= 1000),
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, name)
);
--;;
REVOKE ALL ON ledger.conditions FROM PUBLIC;
--;;
DO $$
BEGIN
    GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.conditions TO ledger_service;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
