"""Pipelines in the console: the list, a pipeline with its graph and runs, a run with its live state, and a step."""
