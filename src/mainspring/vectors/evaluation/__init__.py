"""Evaluation of retrieval: sets of queries with what is relevant to them, and how well a search finds it."""
