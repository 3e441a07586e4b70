"""The connection to an engine: where it listens, how to start one, how to ask it."""
