"""Pipelines: a run is a job, and each step a part of it with needs; and exports to other engines."""
