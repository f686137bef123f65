"""One side of a comparison, in a process of its own: does its work once a line of standard input, and prints the time.

At the end of the input it prints its peak resident memory. Arguments: the side's name, a `Size` as JSON, a folder that
`pit_lake.prepare` made, and options as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring as ms
from mainspring.core.time import DAY, HOUR
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.features.declaring import feature_view
from mainspring.features.offline import point_in_time, point_in_time_pieces
from mainspring.features.offline.pieces import write_whole
from pit_lake import FEATURES, Size, entity, source

WINDOWS = {"1h": HOUR, "24h": DAY, "30d": 30 * DAY}
COLUMNS = ", ".join(FEATURES)


class Sides:
    """Each method is a side: it does the whole work and returns the result's rows."""

    def __init__(self, size: Size, folder: Path, limit: str, windows: list[str]) -> None:
        self.size, self.folder, self.limit, self.windows = size, folder, limit, windows
        self.scan = DeltaLake(folder / "lake").scan("facts")
        self.view = feature_view(entity=entity(size), source=source(size))(
            type("Facts", (), {name: ms.last(name) for name in FEATURES})
        )
        self.windowed = feature_view(entity=entity(size), source=source(size))(
            type("Windowed", (), {
                f"{kind}_{window}": getattr(ms, kind)("f0", window=window)
                for window in windows for kind in ("count", "mean", "max")
            } or {"n": ms.count(window="1h")})
        )  # fmt: skip

    def observed(self) -> pa.Table:
        if not hasattr(self, "_observed"):
            self._observed = pq.read_table(self.folder / "observed.parquet")
        return self._observed

    def ours(self) -> pa.Table:
        return self._point_in_time(self.view)

    def floor(self) -> pa.Table:
        with self._connection() as con:
            con.register("observed", self.observed())
            return con.sql(self._asof("observed")).to_arrow_table()

    def ours_to_file(self) -> pa.Table:
        out = self.folder / "ours.parquet"
        found = point_in_time_pieces(
            self.folder / "observed.parquet", [self.view], lambda _: self.scan, schema=entity(self.size).keys,
            memory_limit=self.limit, temp=self.folder / "spill",
        )  # fmt: skip
        write_whole(out, found)
        return pq.ParquetFile(out).metadata

    def floor_to_file(self) -> pa.Table:
        out = self.folder / "floor.parquet"
        with self._connection() as con:
            asof = self._asof(f"read_parquet('{self.folder}/observed.parquet')")
            con.execute(f"COPY ({asof}) TO '{out}' (FORMAT parquet)")
        return pq.ParquetFile(out).metadata

    def ours_windows(self) -> pa.Table:
        return self._point_in_time(self.windowed)

    def window_frames(self) -> pa.Table:
        """Frames over both tables in one: late rows count before they are known, so it is not exact."""
        frames = ", ".join(
            f"{sql}(f0) OVER w{n} AS {kind}_{window}"
            for n, window in enumerate(self.windows)
            for kind, sql in (("count", "count"), ("mean", "avg"), ("max", "max"))
        )
        spans = ", ".join(
            f"w{n} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {WINDOWS[window]} PRECEDING AND 1 PRECEDING)"
            for n, window in enumerate(self.windows)
        )
        with self._connection() as con:
            con.register("observed", self.observed())
            return con.sql(f"""
                SELECT * EXCLUDE (f0, is_row) FROM (SELECT k, t, f0, is_row, {frames} FROM (
                    SELECT k, epoch_us(_at) AS t, NULL AS f0, false AS is_row FROM observed UNION ALL
                    SELECT k, epoch_us("at"), f0, true FROM {self._files()}) WINDOW {spans})
                WHERE NOT is_row""").to_arrow_table()

    def range_join(self) -> pa.Table:
        """A join on a range and one GROUP BY: exact at both ends."""
        widest = max(WINDOWS[window] for window in self.windows)
        values = ", ".join(
            f"{sql}(f0) FILTER (e >= t - {WINDOWS[window]}) AS {kind}_{window}"
            for window in self.windows
            for kind, sql in (("count", "count"), ("mean", "avg"), ("max", "max"))
        )
        with self._connection() as con:
            con.register("observed", self.observed())
            return con.sql(f"""
                SELECT o.i, any_value(o.k) AS k, any_value(o.t) AS t, {values}
                FROM (SELECT k, epoch_us(_at) AS t, row_number() OVER () AS i FROM observed) AS o
                LEFT JOIN (SELECT k, epoch_us("at") AS e, epoch_us(_visible_at) AS v, f0 FROM {self._files()}) AS r
                ON r.k = o.k AND r.e >= o.t - {widest} AND r.e < o.t AND r.v < o.t
                GROUP BY o.i""").to_arrow_table()

    def ours_sketches(self) -> pa.Table:
        kinds = (ms.col("f0") * 10_000).cast(ms.Int64)
        view = feature_view(entity=entity(self.size), source=source(self.size))(
            type("Sketched", (), {
                f"{name}_{window}": feature
                for window in self.windows
                for name, feature in (
                    ("kinds", ms.distinct(kinds, window=window)),
                    ("p90", ms.quantile("f0", 0.9, window=window)),
                    ("usual", ms.top_k(kinds, 3, window=window)),
                )
            })
        )  # fmt: skip
        return self._point_in_time(view)

    def exact_sketches(self) -> pa.Table:
        """The same without sketches: a join on a range and exact aggregates."""
        (window,) = self.windows
        with self._connection() as con:
            con.register("observed", self.observed())
            con.execute(f"""
                CREATE TEMP VIEW matched AS SELECT o.i, CAST(f0 * 10000 AS BIGINT) AS kind, f0
                FROM (SELECT k, epoch_us(_at) AS t, row_number() OVER () AS i FROM observed) AS o
                LEFT JOIN (SELECT k, epoch_us("at") AS e, epoch_us(_visible_at) AS v, f0 FROM {self._files()}) AS r
                ON r.k = o.k AND r.e >= o.t - {WINDOWS[window]} AND r.e < o.t AND r.v < o.t""")
            con.execute("CREATE TEMP VIEW counted AS SELECT i, kind, count(*) AS n FROM matched GROUP BY ALL")
            return con.sql("""
                SELECT * FROM (SELECT i, count(*), arg_max(kind, {n: n, less: -kind}, 3) FROM counted GROUP BY i)
                JOIN (SELECT i, quantile_disc(f0, 0.9) FROM matched GROUP BY i) USING (i)
            """).to_arrow_table()

    def _point_in_time(self, view: Any) -> pa.Table:
        return point_in_time(
            self.observed(), [view], lambda _: self.scan, schema=entity(self.size).keys,
            memory_limit=self.limit, temp=self.folder / "spill",
        )  # fmt: skip

    def _connection(self) -> duckdb.DuckDBPyConnection:
        return duck.connect(self.limit, self.folder / "spill")

    def _files(self) -> str:
        return f"read_parquet([{', '.join(repr(name) for name in self.scan.files)}])"

    def _asof(self, observed: str) -> str:
        return (
            f"SELECT o.*, {COLUMNS} FROM {observed} AS o ASOF LEFT JOIN (SELECT k, _visible_at, {COLUMNS} "
            f"FROM {self._files()} WHERE _record_user) AS r ON o.k = r.k AND o._at > r._visible_at"
        )


def serve(run: Callable[[], Any]) -> None:
    """Answer each line with the seconds of one run, and the end with the peak memory."""
    for _ in sys.stdin:
        before = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - before
        print(json.dumps({"seconds": seconds, "rows": found.num_rows}), flush=True)
        del found
    print(json.dumps({"megabytes": peak()}), flush=True)


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


if __name__ == "__main__":
    side, size, folder, options = sys.argv[1:]
    serve(getattr(Sides(Size(**json.loads(size)), Path(folder), **json.loads(options)), side))
