-- migrate:up

-- The Merkle tree over each log (RFC 6962): complete tiles of 256 hashes, written once. Level 0
-- holds the leaves (leaf n is the event at position n + 1), level k the roots of level k - 1.
CREATE TABLE ledger.tiles (
    source text NOT NULL,
    level  integer NOT NULL CHECK (level BETWEEN 0 AND 7),
    tile   bigint NOT NULL CHECK (tile >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
    root   bytea NOT NULL CHECK (octet_length(root) = 32),
    PRIMARY KEY (source, level, tile)
);
--;;
-- Signed checkpoints. Each names the one before it, and each is followed by one at most: two
-- sealers can never sign two histories. `leaves` are the hashes that it adds.
CREATE TABLE ledger.seals (
    source    text NOT NULL,
    size      bigint NOT NULL,
    previous  bigint NOT NULL CHECK (previous >= 0),
    root      bytea NOT NULL CHECK (octet_length(root) = 32),
    note      text NOT NULL,
    vkey      text NOT NULL,
    leaves    bytea NOT NULL CHECK (octet_length(leaves) = 32 * (size - previous)),
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, size),
    CONSTRAINT seals_follow UNIQUE (source, previous),
    CHECK (size > previous)
);
--;;
CREATE FUNCTION ledger.refuse_seal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Seals are evidence: what was signed stays.';
END $$;
--;;
CREATE TRIGGER tiles_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.tiles
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_seal_change();
--;;
CREATE TRIGGER seals_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.seals
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_seal_change();
--;;
ALTER TABLE ledger.tiles ENABLE ALWAYS TRIGGER tiles_immutable;
--;;
ALTER TABLE ledger.seals ENABLE ALWAYS TRIGGER seals_immutable;
--;;
REVOKE ALL ON ledger.tiles, ledger.seals FROM PUBLIC;
--;;
REVOKE ALL ON FUNCTION ledger.refuse_seal_change FROM PUBLIC;
--;;
DO $$
BEGIN
    EXECUTE format(
        'REVOKE UPDATE, DELETE, TRUNCATE ON ledger.tiles, ledger.seals FROM %I', current_user);
    GRANT SELECT, INSERT ON ledger.tiles, ledger.seals TO ledger_service;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'ledger_service gets no grants: %', SQLERRM;
END $$;
