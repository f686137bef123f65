"""Boosted trees on rows that need not fit into memory, in one process or several."""
