"""Adapters for tables, commits and tags: in memory, as Delta tables, in the catalog."""
