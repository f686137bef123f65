"""Executors of a model in processes of its own: as many as its requests need, between declared limits."""
