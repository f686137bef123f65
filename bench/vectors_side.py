"""The side of a peer in bench/vectors.py: fills an index, searches it, prints one JSON object.

Runs in the peer's environment: `python vectors_side.py KIND FILE.npz FOLDER`. A system takes vectors of length 1, a
whole number `part` beside each, and answers the ids of the ten that are nearest by cosine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LINKS, BUILD_EFFORT, K = 16, 80, 10
VISITS = (16, 32, 64, 128, 256)  # of a graph
EXACT = ("qdrant", "milvus-lite")  # embedded, they compare every vector
MANY, AT_ONCE = "many", 100
Search = Callable[[Any, int, int | None], Sequence[int]]  # query, visits, bound of `part` -> places


def faiss_raw(vectors: Any, parts: Any, _: Path) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS)
    index.hnsw.efConstruction = BUILD_EFFORT
    index.add(vectors)

    def search(query: Any, visits: int, bound: int | None) -> Sequence[int]:
        parameters = faiss.SearchParametersHNSW(efSearch=visits)
        if bound is not None:
            parameters.sel = faiss.IDSelectorBitmap(bits[bound])
        return index.search(query[None], K, params=parameters)[1][0]  # type: ignore[no-any-return]

    def search_many(queries: Any, visits: int) -> Any:
        return index.search(queries, K, params=faiss.SearchParametersHNSW(efSearch=visits))[1]

    search.__dict__["many"] = search_many
    bits = {bound: np.packbits(parts < bound, bitorder="little") for bound in (1, 10, 100, 500)}
    return search


def usearch(vectors: Any, _: Any, __: Path) -> Search:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", connectivity=LINKS, expansion_add=BUILD_EFFORT)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(query: Any, visits: int, bound: int | None) -> Sequence[int]:
        if bound is not None:
            raise NotImplementedError("it has no filters in Python")
        index.expansion_search = visits
        return index.search(query, K, threads=1).keys  # type: ignore[no-any-return]

    return search


def lancedb(vectors: Any, parts: Any, folder: Path) -> Search:
    import lancedb as lance
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.table({"id": np.arange(len(vectors)), "part": parts, "vector": column})
    table = lance.connect(str(folder)).create_table("i", rows)
    table.create_index(
        metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=LINKS, ef_construction=BUILD_EFFORT
    )
    table.create_scalar_index("part")

    def search(query: Any, visits: int, bound: int | None) -> Sequence[int]:
        asked = table.search(query).limit(K).nprobes(1).ef(max(visits, 2 * K)).refine_factor(2).select(["id"])
        if bound is not None:
            asked = asked.where(f"part < {bound}", prefilter=True)
        return asked.to_arrow()["id"].to_pylist()  # type: ignore[no-any-return]

    return search


def qdrant(vectors: Any, parts: Any, folder: Path) -> Search:
    from qdrant_client import QdrantClient
    from qdrant_client import models as words

    client = QdrantClient(path=str(folder))
    client.create_collection(
        "i", vectors_config=words.VectorParams(size=vectors.shape[1], distance=words.Distance.COSINE)
    )
    payload = [{"part": part} for part in parts.tolist()]
    client.upload_collection("i", vectors=vectors, payload=payload, ids=range(len(vectors)))

    def search(query: Any, _: int, bound: int | None) -> Sequence[int]:
        condition = words.FieldCondition(key="part", range=words.Range(lt=bound))
        where = None if bound is None else words.Filter(must=[condition])
        found = client.query_points("i", query=query.tolist(), limit=K, query_filter=where)
        return [int(point.id) for point in found.points]

    return search


def milvus_lite(vectors: Any, parts: Any, folder: Path) -> Search:
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "i.db"))
    client.create_collection("i", dimension=vectors.shape[1], metric_type="COSINE")
    for start in range(0, len(vectors), 5_000):
        rows = zip(range(start, start + 5_000), vectors[start : start + 5_000], parts.tolist()[start:], strict=False)
        client.insert("i", [{"id": place, "vector": row, "part": part} for place, row, part in rows])

    def search(query: Any, visits: int, bound: int | None) -> Sequence[int]:
        where = "" if bound is None else f"part < {bound}"
        (found,) = client.search("i", [query], filter=where, limit=K, search_params={"params": {"ef": visits}})
        return [int(each["id"]) for each in found]

    return search


def pgvector(vectors: Any, parts: Any, _: Path) -> Search:
    import psycopg

    connection = psycopg.connect(os.environ["PGVECTOR"], autocommit=True)
    run: Any = connection.execute
    run("CREATE EXTENSION IF NOT EXISTS vector")
    run("DROP TABLE IF EXISTS bench_vectors")
    run(f"CREATE TABLE bench_vectors (id int PRIMARY KEY, part int, v vector({vectors.shape[1]}))")
    with connection.cursor() as cursor, cursor.copy("COPY bench_vectors FROM STDIN") as copy:
        for place, (row, part) in enumerate(zip(vectors, parts.tolist(), strict=True)):
            copy.write_row((place, part, "[" + ",".join(map(repr, row.tolist())) + "]"))
    run("SET maintenance_work_mem = '1GB'")
    run("SET max_parallel_maintenance_workers = 0")
    run(
        "CREATE INDEX ON bench_vectors USING hnsw (v vector_cosine_ops) "
        f"WITH (m = {LINKS}, ef_construction = {BUILD_EFFORT})"
    )
    run("CREATE INDEX ON bench_vectors (part)")
    run("ANALYZE bench_vectors")
    run("SET hnsw.iterative_scan = strict_order")

    def search(query: Any, visits: int, bound: int | None) -> Sequence[int]:
        run(f"SET hnsw.ef_search = {visits}")
        where = "" if bound is None else f"WHERE part < {bound}"
        text = "[" + ",".join(map(repr, query.tolist())) + "]"
        rows = run(f"SELECT id FROM bench_vectors {where} ORDER BY v <=> %s::vector LIMIT {K}", (text,), prepare=True)
        return [place for (place,) in rows]

    search.__dict__["server"] = connection.info.backend_pid
    return search


KINDS: dict[str, Callable[[Any, Any, Path], Search]] = {
    "faiss": faiss_raw, "usearch": usearch, "lancedb": lancedb, "qdrant": qdrant, "milvus-lite": milvus_lite,
    "pgvector": pgvector,
}  # fmt: skip


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_s(server: int | None = None) -> float:
    """Return the processor time of this process, and of a server's that works for it."""
    if server is None:
        return time.process_time()
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(search: Search, queries: Any, visits: int, bound: int | None) -> dict[str, Any]:
    """Return what was found for queries, and how many a second of processor time were answered."""
    server = getattr(search, "server", None)
    search(queries[0], visits, bound)
    begun = processor_s(server)
    found = [[int(place) for place in search(query, visits, bound)] for query in queries]
    return {"visits": visits, "found": found, "per_s": len(queries) / max(processor_s(server) - begun, 1e-9)}


def chunks(queries: Any) -> Iterator[Any]:
    return (queries[start : start + AT_ONCE] for start in range(0, len(queries), AT_ONCE))


def measured_many(search: Any, queries: Any, visits: int) -> dict[str, Any]:
    """Return the same for queries that are asked many at once."""
    begun = time.process_time()
    found = [places.tolist() for some in chunks(queries) for places in search(some, visits)]
    return {"visits": visits, "found": found, "per_s": len(queries) / (time.process_time() - begun)}


def main() -> None:
    kind, data, folder = sys.argv[1], np.load(sys.argv[2]), Path(sys.argv[3])
    tried = VISITS[:1] if kind in EXACT else VISITS
    before, begun = resident_mb(), time.process_time()
    search = KINDS[kind](data["vectors"], data["parts"], folder)
    answer: dict[str, Any] = {
        "build_s": processor_s(getattr(search, "server", None)) - begun,
        "memory_mb": resident_mb() - before,
    }
    for bound in (None, *data["bounds"].tolist()):
        try:
            runs = [measured(search, data["queries"], visits, bound) for visits in tried]
        except NotImplementedError:
            continue
        answer[str(bound)] = runs
    if hasattr(search, "many"):
        answer[MANY] = [measured_many(search.many, data["queries"], visits) for visits in VISITS]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
