"""Training by name: one run, many in a search, and one again."""
