"""Statistics of corpora and sessions: pure functions over numbers and records."""
