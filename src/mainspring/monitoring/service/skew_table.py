"""Counts of compared features in the lake: the table `predictions__skew`, a row for each hour, version and feature."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from mainspring.core.time import DAY, HOUR
from mainspring.data.ports import LakeTables
from mainspring.data.write_keys import numbered
from mainspring.monitoring.service.samples import variable
from mainspring.monitoring.service.skew import OUTCOMES

TABLE = "predictions__skew"
_TYPES: dict[str, pa.DataType] = {
    "endpoint": pa.string(), "version": pa.string(), "digest": pa.string(),
    "hour": pa.timestamp("us", tz="UTC"),  # start of the hour of the predictions
    "feature": pa.string(), **dict.fromkeys(OUTCOMES, pa.int64()),
}  # fmt: skip
SCHEMA = pa.schema(list(_TYPES.items()))


class SkewTable:
    """Counts by hour, version and feature in a lake's table."""

    def __init__(self, lake: LakeTables) -> None:
        self._lake = lake

    def add(self, endpoint: str, hour: int, compared: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
        """Append the counts of an hour, later than any before; a second time they are not written.

        Args:
            hour: Start of the hour, UTC epoch microseconds.
            compared: Version and digest -> counts, by outcome and feature.
        """
        rows = []
        for (version, digest), counts in compared.items():
            by_outcome = {outcome: variable(counts, outcome) for outcome in OUTCOMES}
            for feature in sorted(set().union(*by_outcome.values())):
                found = {outcome: int(by_outcome[outcome].get(feature, 0)) for outcome in OUTCOMES}
                rows.append({"endpoint": endpoint, "version": version, "digest": digest, "hour": hour,
                             "feature": feature, **found})  # fmt: skip
        batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
        self._lake.append(TABLE, [batch], SCHEMA, key=numbered(f"skew/{endpoint}", hour // HOUR))
        self._join(hour // DAY - 1)

    def _join(self, day: int) -> None:
        """Write the rows of a day as one file."""
        key = f"day:{day}"
        if not self._lake.has(TABLE, key):
            self._lake.fold(TABLE, "hour", day * DAY, (day + 1) * DAY, lambda rows: rows or None, key=key)
