"""The offline read as one statement for a warehouse: Spark, Snowflake, BigQuery."""

from mainspring.features.warehouse.statement import Tables, statement, stored_statement

__all__ = ["Tables", "statement", "stored_statement"]
