"""How fast is search in an embedded index of vectors, at which recall, beside FAISS alone and other stores?

Clustered vectors of length 1 with a whole number each, asked for the ten nearest by cosine: of all, one query at a
time and 100 at once, and of those whose number is below a bound (0.1 % to 50 % of them; 10 % also 100 at once). Each
side tries several efforts; compared is the least with a recall of at least 0.95, or else the best run. The fastest of
some passes counts. Times are of the processor, a server's included; ours is the port's `search` with its checks, ids
and similarities in float64. Memory is that of a process that opens the index and searches, ours and FAISS's; of a peer,
of the one that made it too.

The floor is FAISS alone with a graph of the same parameters, and with a filter that is ready as a bitmap of places; its
filtered recall is in the notes. Peers run in environments of their own: `python bench/peers.py usearch lancedb qdrant
milvus-lite pgvector`; for pgvector a server is started, unless PGVECTOR names one, such as "dbname=bench", and
for milvus that of the package `milvus`, which has a graph where milvus-lite compares every vector.

python bench/vectors.py --count 100000 --data FILE.npy   vectors of yours, the last of them as queries
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from environments import PEERS, ROOT
from mainspring.core.expr.tree import col
from mainspring.core.schema import DType
from mainspring.vectors.adapters.embedded import APPROXIMATE_ABOVE, EmbeddedVectorStore
from mainspring.vectors.model import Entries, IndexSpec
from report import Case, report
from vectors_side import MANY, MANY_BOUND, MANY_PASSING, K, Store, measured

sys.path.insert(0, str(ROOT / "tests"))  # where servers are started
from kit.milvus_server import MilvusServer
from kit.servers import PostgresServer, running

SIDE = Path(__file__).with_name("vectors_side.py")
DIMENSION, CLUSTERS, INNER, PARTS = 384, 500, 48, 1_000
BOUNDS = (1, 10, 100, 500)
WANTED = 0.95
OPENED = {
    "ours": """
import sys, faiss, numpy as np
from pathlib import Path
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from vectors_side import resident_mb
before = resident_mb()
index = EmbeddedVectorStore(Path(sys.argv[1])).open("i")
index.search(np.ones((1, index.spec.dimension), np.float32), 10)
print(resident_mb() - before)
""",
    "faiss": """
import sys, faiss, numpy as np
from vectors_side import resident_mb
before = resident_mb()
index = faiss.read_index(sys.argv[1] + "/i.faiss")
index.search(np.ones((1, index.d), np.float32), 10)
print(resident_mb() - before)
""",
}
OF_PROJECT = ("faiss", "milvus")  # whose clients are in the project's own environment
OTHERS = ("usearch", "lancedb", "qdrant", "milvus-lite", "milvus", "pgvector")


def made(count: int, queries: int) -> tuple[Any, Any]:
    """Return vectors and queries around centres, in a few directions mostly, as those of encoders are."""
    chance = np.random.default_rng(0)
    centres, turn = chance.normal(size=(CLUSTERS, INNER)), chance.normal(size=(INNER, DIMENSION)) / INNER**0.5
    inner = centres[chance.integers(0, CLUSTERS, count + queries)] + 0.8 * chance.normal(size=(count + queries, INNER))
    rows = (inner @ turn + 0.3 * chance.normal(size=(count + queries, DIMENSION))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:count], rows[count:]


def read(path: Path, queries: int) -> tuple[Any, Any]:
    rows = np.load(path).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:-queries], rows[-queries:]


def recall(found: Sequence[Sequence[int]], truth: Sequence[Any]) -> float:
    return float(np.mean([len({*some} & {*wanted}) / len(wanted) for some, wanted in zip(found, truth, strict=True)]))


def truths(vectors: Any, queries: Any, parts: Any) -> dict[str, list[Any]]:
    found = {}
    for bound in (None, *BOUNDS):
        rows = np.arange(len(vectors)) if bound is None else np.flatnonzero(parts < bound)
        scores = queries @ vectors[rows].T
        found[str(bound)] = [rows[np.argsort(-each)[:K]] for each in scores]
    return {"None": found["None"], MANY: found["None"], **found, MANY_PASSING: found[str(MANY_BOUND)]}


def ours(vectors: Any, queries: Any, parts: Any, folder: Path) -> dict[str, Any]:
    """Return the measures of our index, as a side prints them."""
    import faiss

    faiss.omp_set_num_threads(1)
    begun = time.process_time()
    store = EmbeddedVectorStore(folder, approximate_above=min(APPROXIMATE_ABOVE, len(vectors) // 2))
    index = store.create("i", IndexSpec(dimension=vectors.shape[1], fields={"part": DType.Int64}))
    index._above, above = None, index._above  # one graph at the end, as the others
    for start in range(0, len(vectors), 10_000):
        some = slice(start, start + 10_000)
        index.upsert(
            Entries([str(n) for n in range(len(vectors))[some]], vectors[some], {"part": parts[some].tolist()})
        )
    index._above = above
    index.compact()
    answer: dict[str, Any] = {"build_s": time.process_time() - begun, "stored_mb": index.size_bytes() / 1e6}
    index.search(queries[:1], K)
    wheres = {None: None, **{bound: col("part") < bound for bound in BOUNDS}}
    answer |= measured(
        Store(
            lambda query, visits, bound: index.search(query[None], K, where=wheres[bound], effort=visits / 64)[0],
            lambda hits: [int(hit.id) for hit in hits],
            index.size_bytes,
            lambda some, visits, bound: index.search(some, K, where=wheres[bound], effort=visits / 64),
            many_filters=True,
        ),
        queries,
        BOUNDS,
    )
    index.close()
    return answer


def opened_mb(kind: str, folder: Path) -> float:
    """Return the memory that a process takes which opens an index, ours or FAISS's, and searches."""
    done = subprocess.run(
        [sys.executable, "-c", OPENED[kind], str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(SIDE.parent), *sys.path))},
    )
    return float(done.stdout)


def side(kind: str, data: Path, folder: Path) -> dict[str, Any] | str:
    """Return the measures of a peer, or why there are none."""
    folder.mkdir()
    if kind == "pgvector" and "PGVECTOR" not in os.environ:
        with running(PostgresServer) as server:
            server.stop()
            server.options = ("-c", "shared_buffers=1GB")
            server.start()
            return _run(kind, data, folder, {"PGVECTOR": server.url.text})
    if kind == "milvus":
        if find_spec("milvus") is None:
            return "not installed: the package milvus, which has the server"
        with running(MilvusServer) as server:
            return _run(kind, data, folder, {"MILVUS": server.url.text, "MILVUS_FOLDER": str(server.folder)})
    return _run(kind, data, folder, {})


def _run(kind: str, data: Path, folder: Path, environment: dict[str, str]) -> dict[str, Any] | str:
    python = Path(sys.executable) if kind in OF_PROJECT else PEERS / kind / "bin" / "python"
    if not python.exists():
        return f"not installed: python bench/peers.py {kind}"
    done = subprocess.run(
        [str(python), str(SIDE), kind, str(data), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **environment},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def best(answer: Any, bound: str, truth: Sequence[Any], least: float) -> tuple[float, float] | None:
    """Return recall and queries a second of the least effort that has a recall, else of the run with the best."""
    if isinstance(answer, str) or bound not in answer:
        return None
    runs = [(recall(run["found"], truth[: len(run["found"])]), run["per_s"]) for run in answer[bound]]
    good = [run for run in runs if run[0] >= least]
    return good[0] if good else max(runs)


def cases(answers: dict[str, Any], truth: dict[str, list[Any]], count: int, least: float) -> list[Case]:
    why = {kind: answer for kind, answer in answers.items() if isinstance(answer, str)}
    peers = [kind for kind in answers if kind not in ("ours", "faiss")]
    found = []
    for bound, wanted in truth.items():
        names = {
            "None": "all", MANY: "all, 100 at once", MANY_PASSING: f"{MANY_BOUND / PARTS:.1%} pass, 100 at once",
        }  # fmt: skip
        name = names.get(bound) or f"{int(bound) / PARTS:.1%} pass"
        reached = {kind: best(answer, bound, wanted, least) for kind, answer in answers.items()}
        notes = {
            kind: f"{name}: recall {each[0]:.3f}" + (", every vector is compared" if answers[kind].get("exact") else "")
            for kind, each in reached.items()
            if each is not None
        }
        rates = {kind: None if each is None else each[1] for kind, each in reached.items()}
        found.append(
            Case(
                f"search, {name}", "queries/s of a core", rates["ours"], rates["faiss"],
                {kind: rates[kind] for kind in peers}, {**why, **notes}, more_is_better=True,
            )
        )  # fmt: skip
    for what, unit, title in (
        ("build_s", "s of a core", f"build, {count:,} vectors"),
        ("memory_mb", "MB", "memory of a process that searches"),
        ("stored_mb", "MB", "on the disk"),
    ):
        figures = {kind: None if isinstance(each, str) else each[what] for kind, each in answers.items()}
        found.append(Case(title, unit, figures["ours"], figures["faiss"], {kind: figures[kind] for kind in peers}, why))
    return found


def main() -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":  # which NumPy reads when it is imported: each side has one thread
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--recall", type=float, default=WANTED, help="at least, of what is compared")
    parser.add_argument("--peers", nargs="*", default=OTHERS, choices=OTHERS)
    arguments = parser.parse_args()
    given = read(arguments.data, arguments.queries) if arguments.data else made(arguments.count, arguments.queries)
    vectors, queries = given
    parts = np.random.default_rng(1).integers(0, PARTS, len(vectors))
    truth = truths(vectors, queries, parts)
    with tempfile.TemporaryDirectory() as scratch:
        folder, data = Path(scratch), Path(scratch) / "data.npz"
        np.savez(data, vectors=vectors, queries=queries, parts=parts, bounds=np.array(BOUNDS))
        answers: dict[str, Any] = {"ours": ours(vectors, queries, parts, folder / "ours")}
        for kind in ("faiss", *arguments.peers):
            answers[kind] = side(kind, data, folder / kind)
        for kind in OPENED:
            answers[kind]["memory_mb"] = opened_mb(kind, folder / kind)
    report("vectors", cases(answers, truth, len(vectors), arguments.recall))


if __name__ == "__main__":
    main()
