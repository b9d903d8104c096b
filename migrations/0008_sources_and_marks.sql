-- migrate:up

-- A head's name is the name of its log's file of checkpoints. NOT VALID and a try: a row that was
-- planted before must not keep the service from starting; `ledger doctor` names it.
ALTER TABLE ledger.heads ADD CONSTRAINT heads_source_check
    CHECK (source ~ '^[a-z0-9][a-z0-9_-]{0,62}(\.statements)?$') NOT VALID;
--;;
DO $$
BEGIN
    ALTER TABLE ledger.heads VALIDATE CONSTRAINT heads_source_check;
EXCEPTION WHEN check_violation THEN
    RAISE NOTICE 'ledger.heads has a row that is no source';
END $$;
