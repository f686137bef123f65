"""Data of a project: versions, statistics, lineage."""
