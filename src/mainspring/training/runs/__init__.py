"""Runs: records, provenance, and differences between runs."""
