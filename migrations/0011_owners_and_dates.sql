-- migrate:up

-- Whose money a payout is that names no customer, and how a state without a time of its own is
-- dated: terms of a source, like its wallets. An expression is Python's; the settings check it.
ALTER TABLE ledger.sources
    ADD COLUMN owner_field text CHECK (owner_field ~ '^[a-z_]{1,40}$'),
    ADD COLUMN owner_match text CHECK (length(owner_match) BETWEEN 1 AND 200),
    ADD COLUMN date_by text NOT NULL DEFAULT 'creation'
        CHECK (date_by IN ('creation', 'receipt')),
    ADD CONSTRAINT sources_owner_check
        CHECK ((owner_field IS NULL) = (owner_match IS NULL));
