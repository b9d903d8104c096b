-- migrate:up

-- What may be the other side of a break, the best first: item, side, effective_at, amount,
-- counterparty, description, reason. Derived, as the rest of the row.
ALTER TABLE ledger.recon_breaks ADD COLUMN candidates jsonb NOT NULL DEFAULT '[]';
--;;
-- Lists of breaks by size and by age; of matches by wallet, and by the rule that made them.
CREATE INDEX recon_breaks_by_gap ON ledger.recon_breaks (source, abs(gap), id);
--;;
CREATE INDEX recon_breaks_by_age ON ledger.recon_breaks (source, age_days, id);
--;;
CREATE INDEX recon_matches_by_rule ON ledger.recon_matches (source, rule, currency, anchor);
