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
_ENTRIES = 1_000  # versions that stay in the table's log
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

    def add(self, endpoint: str, hour: int, compared: Mapping[tuple[str, str], Mapping[str, float]]) -> bool:
        """Append the counts of an hour, later than any before, and return whether a day with counts has ended.

        A second time they are not written.

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
        return self._join(hour // DAY - 1)

    def tidy(self, *, made_before: int | None, replaced_before: int) -> None:
        """Delete counts of hours before `made_before`, and files replaced before `replaced_before`, UTC epoch µs."""
        if made_before is not None:
            self._lake.expire(TABLE, "hour", made_before)
        self._lake.vacuum(TABLE, [], replaced_before=replaced_before)
        self._lake.shorten(TABLE, _ENTRIES, replaced_before=replaced_before)

    def _join(self, day: int) -> bool:
        """Write the rows of a day as one file, once; return whether that was now."""
        key, since = f"day:{day}", day * DAY
        if self._lake.has(TABLE, key):
            return False
        return self._lake.fold(TABLE, "hour", since, since + DAY, lambda rows: rows or None, key=key) is not None
