"""The floor of batch scoring: threads of bare ONNX Runtime, each over the next row group.

Arguments: a folder with the rows and the network, threads, rows of a call.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    folder, threads, call_rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(str(folder / "mlp.onnx"), options) for _ in range(threads)]
    source, writing, local = folder / "rows.parquet", threading.Lock(), threading.local()
    schema = pa.schema([("y0", pa.float32()), ("y1", pa.float32())])
    begun = time.perf_counter()
    with pq.ParquetWriter(folder / "floor.parquet", schema, use_dictionary=False) as writer:

        def score(group: int) -> int:
            if not hasattr(local, "session"):
                local.session, local.file = sessions.pop(), pq.ParquetFile(source, pre_buffer=False)
            rows = local.file.read_row_group(group, use_threads=False)
            matrix = np.empty((rows.num_rows, rows.num_columns), np.float32)
            for place, column in enumerate(rows.columns):
                matrix[:, place] = column.to_numpy()
            starts = range(0, rows.num_rows, call_rows)
            found = [local.session.run(None, {"x": matrix[start : start + call_rows]})[0] for start in starts]
            answers = np.concatenate(found)
            table = pa.table([np.ascontiguousarray(answers[:, 0]), np.ascontiguousarray(answers[:, 1])], schema=schema)
            with writing:
                writer.write_table(table)
            return int(rows.num_rows)

        with ThreadPoolExecutor(threads) as pool:
            total = sum(pool.map(score, range(pq.ParquetFile(source).num_row_groups)))
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"rows_per_s": round(total / seconds), "peak_mb": peak}))


if __name__ == "__main__":
    main()
