"""Mergeable state of an entity's rows, from which any window over them is computed, in SQL and in Python."""
