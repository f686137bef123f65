"""Mergeable state of an entity's rows, from which any window over them is answered, in SQL and in Python."""
