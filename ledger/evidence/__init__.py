"""Evidence: Merkle trees over the log, signed checkpoints, keys, and authentic events."""
