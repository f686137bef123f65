"""The tables of predictions, failures and explanations in a lake, after recovery from a power cut."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.ledger.columns import EXPLANATION_SCHEMA, FAILURE_SCHEMA, SCHEMA
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS

SCHEMAS = {PREDICTIONS: SCHEMA, FAILURES: FAILURE_SCHEMA, EXPLANATIONS: EXPLANATION_SCHEMA}


class LedgerTables:
    """Newest versions of the ledger's tables.

    Args:
        lake: Lake that holds them.
    """

    def __init__(self, lake: LakeTables) -> None:
        self.lake = lake

    def version(self, table: str = PREDICTIONS) -> int | None:
        """Return the newest version of a table, after reverting a write that a power cut interrupted.

        The predictions of that write are still in their segment: no range is done before its rows are durable.
        """
        try:
            return self.lake.version(table)
        except Corrupt:
            if not self.lake.recover(table):
                raise
            return self.lake.version(table)

    def dataset(self, table: str = PREDICTIONS) -> ds.Dataset | None:
        """Return the rows of the newest version; `None` without rows."""
        return None if self.version(table) is None else dataset_of(self.lake.scan(table), SCHEMAS[table])


def dataset_of(scan: TableScan, schema: pa.Schema = SCHEMA) -> ds.Dataset | None:
    """Return the rows of a scan; columns that the table had not yet are null."""
    if scan.rows is not None:
        return ds.dataset(pa.concat_tables([schema.empty_table(), scan.rows], promote_options="default"))
    return ds.dataset(list(scan.files or ()), schema=schema, format="parquet") if scan.files else None
