"""The side of a peer in bench/vectors.py: fills an index, searches it, prints one JSON object.

Runs in the peer's environment: `python vectors_side.py KIND FILE.npz FOLDER`. A system takes vectors of length 1, a
whole number `part` beside each, and answers the ids of the ten that are nearest by cosine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LINKS, BUILD_EFFORT, K = 16, 80, 10
VISITS = (16, 24, 32, 48, 64, 96, 128, 192, 256)  # of a graph
MANY, MANY_PASSING, AT_ONCE = "many", "many passing", 100
MANY_BOUND = 100  # of their filter
PASSES, ENOUGH_S = 5, 1.0  # the fastest pass counts; no other begins after so many seconds
FEW, SLOW_S = 20, 0.002  # queries of a system where one takes so long


@dataclass
class Store:
    """A filled index.

    Attributes:
        search: Query, visits in the graph, bound of `part` or `None` -> what was found.
        places: What a search found -> places of the vectors.
        size: Return the bytes on the disk.
        many: Queries, visits, bound -> what was found for each; `None` if it takes one query at a time.
        many_filters: False if many queries take no bound.
        filters: False if it takes no bound.
        exact: True if it compares every vector, so that visits make no difference.
        server: Process that works for it.
    """

    search: Callable[[Any, int, int | None], Any]
    places: Callable[[Any], list[int]]
    size: Callable[[], int]
    many: Callable[[Any, int, int | None], Sequence[Any]] | None = None
    many_filters: bool = False
    filters: bool = True
    exact: bool = False
    server: int | None = None


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def listed(found: Any) -> list[int]:
    """Return the places in an array."""
    return np.asarray(found).ravel().tolist()


def faiss_raw(vectors: Any, parts: Any, folder: Path) -> Store:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS)
    index.hnsw.efConstruction = BUILD_EFFORT
    index.add(vectors)
    faiss.write_index(index, str(folder / "i.faiss"))
    bits = {bound: np.packbits(parts < bound, bitorder="little") for bound in (1, 10, 100, 500)}

    def many(queries: Any, visits: int, bound: int | None) -> Sequence[Any]:
        parameters = faiss.SearchParametersHNSW(efSearch=visits)
        if bound is not None:
            parameters.sel = faiss.IDSelectorBitmap(bits[bound])
        found: Sequence[Any] = index.search(queries, K, params=parameters)[1]
        return found

    return Store(
        lambda query, visits, bound: many(query[None], visits, bound), listed, lambda: size_of(folder), many,
        many_filters=True,
    )  # fmt: skip


def usearch(vectors: Any, _: Any, folder: Path) -> Store:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", connectivity=LINKS, expansion_add=BUILD_EFFORT)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(folder / "i.usearch"))

    def search(query: Any, visits: int, _: int | None) -> Any:
        index.expansion_search = visits
        return index.search(query, K, threads=1).keys

    def many(queries: Any, visits: int, _: int | None) -> Sequence[Any]:
        index.expansion_search = visits
        found: Sequence[Any] = index.search(queries, K, threads=1).keys
        return found

    return Store(search, listed, lambda: size_of(folder), many, filters=False)


def lancedb(vectors: Any, parts: Any, folder: Path) -> Store:
    import lancedb as lance
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.table({"id": np.arange(len(vectors)), "part": parts, "vector": column})
    table = lance.connect(str(folder)).create_table("i", rows)
    table.create_index(
        metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=LINKS, ef_construction=BUILD_EFFORT
    )
    table.create_scalar_index("part")

    def search(query: Any, visits: int, bound: int | None) -> Any:
        asked = table.search(query).limit(K).nprobes(1).ef(max(visits, 2 * K)).refine_factor(2).select(["id"])
        if bound is not None:
            asked = asked.where(f"part < {bound}", prefilter=True)
        return asked.to_arrow()["id"]

    return Store(search, lambda found: [int(place) for place in found.to_pylist()], lambda: size_of(folder))


def qdrant(vectors: Any, parts: Any, folder: Path) -> Store:
    from qdrant_client import QdrantClient
    from qdrant_client import models as words

    client = QdrantClient(path=str(folder))
    client.create_collection(
        "i", vectors_config=words.VectorParams(size=vectors.shape[1], distance=words.Distance.COSINE)
    )
    payload = [{"part": part} for part in parts.tolist()]
    client.upload_collection("i", vectors=vectors, payload=payload, ids=range(len(vectors)))

    def search(query: Any, _: int, bound: int | None) -> Any:
        condition = words.FieldCondition(key="part", range=words.Range(lt=bound))
        where = None if bound is None else words.Filter(must=[condition])
        return client.query_points("i", query=query.tolist(), limit=K, query_filter=where).points

    def many(queries: Any, _: int, __: int | None) -> Sequence[Any]:
        asked = [words.QueryRequest(query=query, limit=K) for query in queries.tolist()]
        return [each.points for each in client.query_batch_points("i", asked)]

    return Store(
        search, lambda found: [int(point.id) for point in found], lambda: size_of(folder), many, exact=True
    )  # fmt: skip


def milvus_lite(vectors: Any, parts: Any, folder: Path) -> Store:
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "i.db"))
    client.create_collection("i", dimension=vectors.shape[1], metric_type="COSINE")
    for start in range(0, len(vectors), 5_000):
        rows = zip(range(start, start + 5_000), vectors[start : start + 5_000], parts.tolist()[start:], strict=False)
        client.insert("i", [{"id": place, "vector": row, "part": part} for place, row, part in rows])

    def search(query: Any, visits: int, bound: int | None) -> Any:
        where = "" if bound is None else f"part < {bound}"
        return client.search("i", [query], filter=where, limit=K, search_params={"params": {"ef": visits}})[0]

    def many(queries: Any, visits: int, _: int | None) -> Sequence[Any]:
        found: Sequence[Any] = client.search("i", list(queries), limit=K, search_params={"params": {"ef": visits}})
        return found

    return Store(search, lambda found: [int(hit["id"]) for hit in found], lambda: size_of(folder), many, exact=True)


def milvus(vectors: Any, parts: Any, _: Path) -> Store:
    from urllib.parse import parse_qsl, urlsplit

    from pymilvus import DataType, MilvusClient

    at = urlsplit(os.environ["MILVUS"])
    given, folder = dict(parse_qsl(at.query)), Path(os.environ["MILVUS_FOLDER"])
    client = MilvusClient(
        uri=f"https://{at.hostname}:{at.port}", user=at.username, password=at.password, secure=True,
        ca_pem_path=given["ca"], client_pem_path=given["cert"], client_key_path=given["key"],
    )  # fmt: skip
    layout = client.create_schema(auto_id=False, enable_dynamic_field=False)
    layout.add_field("id", DataType.INT64, is_primary=True)
    layout.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    layout.add_field("part", DataType.INT64)
    graph = client.prepare_index_params()
    options = {"M": LINKS, "efConstruction": BUILD_EFFORT}
    graph.add_index("vector", index_type="HNSW", metric_type="COSINE", params=options)
    client.create_collection("i", schema=layout, num_shards=1)
    for start in range(0, len(vectors), 5_000):
        rows = zip(range(start, start + 5_000), vectors[start : start + 5_000], parts.tolist()[start:], strict=False)
        client.insert("i", [{"id": place, "vector": row, "part": part} for place, row, part in rows])
    client.flush("i")
    client.create_index("i", graph)  # waits for it
    client.load_collection("i")

    def search(query: Any, visits: int, bound: int | None) -> Any:
        where = "" if bound is None else f"part < {bound}"
        return client.search("i", [query], filter=where, limit=K, search_params={"params": {"ef": visits}})[0]

    def many(queries: Any, visits: int) -> Sequence[Any]:
        found: Sequence[Any] = client.search("i", list(queries), limit=K, search_params={"params": {"ef": visits}})
        return found

    return Store(
        search, lambda found: [int(hit["id"]) for hit in found], lambda: size_of(folder / "data"), many,
        server=_process_in(folder),
    )  # fmt: skip


def _process_in(folder: Path) -> int:
    """Return the server's process, whose working folder it is."""
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                if (each / "cwd").readlink() == folder and b"standalone" in (each / "cmdline").read_bytes():
                    return int(each.name)
            except OSError:  # it has ended, or is another's
                continue
    raise SystemExit(f"no server runs in {folder}")


def pgvector(vectors: Any, parts: Any, _: Path) -> Store:
    import psycopg

    connection = psycopg.connect(os.environ["PGVECTOR"], autocommit=True)
    run: Any = connection.execute
    run("CREATE EXTENSION IF NOT EXISTS vector")
    run("DROP TABLE IF EXISTS bench_vectors")
    run(f"CREATE TABLE bench_vectors (id int PRIMARY KEY, part int, v vector({vectors.shape[1]}))")
    with connection.cursor() as cursor, cursor.copy("COPY bench_vectors FROM STDIN") as copy:
        for place, (row, part) in enumerate(zip(vectors, parts.tolist(), strict=True)):
            copy.write_row((place, part, _text(row)))
    run("SET maintenance_work_mem = '1GB'")
    run("SET max_parallel_maintenance_workers = 0")
    run(
        "CREATE INDEX ON bench_vectors USING hnsw (v vector_cosine_ops) "
        f"WITH (m = {LINKS}, ef_construction = {BUILD_EFFORT})"
    )
    run("CREATE INDEX ON bench_vectors (part)")
    run("VACUUM ANALYZE bench_vectors")
    run("SET hnsw.iterative_scan = strict_order")
    run("SET max_parallel_workers_per_gather = 0")

    def search(query: Any, visits: int, bound: int | None) -> Any:
        run(f"SET hnsw.ef_search = {visits}")
        where = "" if bound is None else f"WHERE part < {bound}"
        ordered = f"SELECT id FROM bench_vectors {where} ORDER BY v <=> %s::vector LIMIT {K}"
        return run(ordered, (_text(query),), prepare=True).fetchall()

    return Store(
        search, lambda found: [place for (place,) in found],
        lambda: int(run("SELECT pg_total_relation_size('bench_vectors')").fetchone()[0]),
        server=connection.info.backend_pid,
    )  # fmt: skip


def _text(vector: Any) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


KINDS: dict[str, Callable[[Any, Any, Path], Store]] = {
    "faiss": faiss_raw, "usearch": usearch, "lancedb": lancedb, "qdrant": qdrant, "milvus-lite": milvus_lite,
    "milvus": milvus, "pgvector": pgvector,
}  # fmt: skip


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_s(server: int | None = None) -> float:
    """Return the processor time of this process, and of a server's that works for it."""
    if server is None:
        return time.process_time()
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(ask: Callable[[], list[Any]], server: int | None) -> tuple[list[Any], float]:
    """Return what was found, and the processor time of the fastest pass. A server's is counted in hundredths of a
    second: of it, all passes count."""
    begun, first = time.perf_counter(), processor_s(server)
    passes, best, found = 0, float("inf"), []
    while passes < PASSES and time.perf_counter() - begun < ENOUGH_S:
        before = processor_s(server)
        found = ask()
        passes += 1
        best = min(best, processor_s(server) - before)
    return found, best if server is None else (processor_s(server) - first) / passes


def measured(store: Store, queries: Any, bounds: Sequence[int]) -> dict[str, Any]:
    """Return for each bound, for none and for many queries at once, and for each number of visits, what was found and
    how many queries a second of processor time were answered."""
    begun = processor_s(store.server)
    for query in queries[:FEW]:
        store.search(query, VISITS[0], None)
    if processor_s(store.server) - begun > FEW * SLOW_S:
        queries = queries[: FEW // 2 if store.exact else FEW]
    tried = VISITS[:1] if store.exact else VISITS
    answer: dict[str, Any] = {"exact": store.exact}

    def runs(ask: Callable[[int], list[Any]]) -> list[dict[str, Any]]:
        made = []
        for visits in tried:
            found, taken = timed(lambda visits=visits: ask(visits), store.server)
            made.append({"found": [store.places(each) for each in found], "per_s": len(queries) / max(taken, 1e-9)})
        return made

    for bound in (None, *(bounds if store.filters else ())):
        answer[str(bound)] = runs(lambda visits, bound=bound: [store.search(each, visits, bound) for each in queries])
    if (many := store.many) is not None:
        some = [queries[start : start + AT_ONCE] for start in range(0, len(queries), AT_ONCE)]
        for name, bound in ((MANY, None), *(((MANY_PASSING, MANY_BOUND),) if store.many_filters else ())):
            answer[name] = runs(
                lambda visits, bound=bound: [hits for each in some for hits in many(each, visits, bound)]
            )
    return answer


def main() -> None:
    kind, data, folder = sys.argv[1], np.load(sys.argv[2]), Path(sys.argv[3])
    before, begun = resident_mb(), time.process_time()
    store = KINDS[kind](data["vectors"], data["parts"], folder)
    answer = {"build_s": processor_s(store.server) - begun, "stored_mb": store.size() / 1e6}
    answer["memory_mb"] = resident_mb() - before
    print(json.dumps(answer | measured(store, data["queries"], data["bounds"].tolist())))


if __name__ == "__main__":
    main()
