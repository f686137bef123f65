"""Data by name: ingestion, versions, statistics, lineage."""
