"""Rows of Parquet files as batches, without holding them all in memory."""
