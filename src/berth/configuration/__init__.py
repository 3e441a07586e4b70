"""What an engine is told: `berth.toml` and flags, under Docker's names."""
