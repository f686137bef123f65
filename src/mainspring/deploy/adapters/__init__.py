"""Step runners by engine."""
