"""The offline read as one statement for a warehouse: Spark, Snowflake, BigQuery, DuckDB."""

from mainspring.features.warehouse.reading import Job, WarehouseRead, version_now
from mainspring.features.warehouse.statement import Tables, statement, stored_statement

__all__ = ["Job", "Tables", "WarehouseRead", "statement", "stored_statement", "version_now"]
