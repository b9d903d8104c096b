"""What callbacks mean: one file per provider or callback type, translating into facts."""
