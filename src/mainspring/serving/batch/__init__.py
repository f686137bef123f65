"""Batch inference: rows in chunks, through a bundle's features and model, into predictions; no gateway uses it."""
