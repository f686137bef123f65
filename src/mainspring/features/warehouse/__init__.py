"""The offline read as one statement for a warehouse: Spark, Snowflake, BigQuery."""

from mainspring.features.warehouse.statement import Tables, statement

__all__ = ["Tables", "statement"]
