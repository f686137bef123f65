"""How fast is the online read? Each store at 1, 10 and 100 entities, of one view and of three, ten last values a view.

One more case reads sketches of a hot entity: distinct values, a quantile and the most frequent values of the 300,000
rows of its last 30 days.

Ours is `OnlineReader.read`: key values in, columns of features and statuses out. The floor is the store's own client
with the same keys and the same payloads in one round trip, each payload decoded by MessagePack without a schema. The
peer is Feast's `get_online_features` on the same store, in a process of its own. Sides take turns and the fastest turn
counts.

Cases "in code" are `project.online`, on SQLite; their floor is `OnlineReader.read`, as the gateway calls it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg
import pyarrow as pa
import pytest
import redis

import mainspring as ms
from environments import PEERS, ROOT
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import EntityState, FeatureView, Mark
from mainspring.features.online import OnlineReader
from mainspring.features.state.blobs import Candidates, Recent, State, encode
from mainspring.operations.opened import OpenedProject
from report import Case, report

sys.path.insert(0, str(ROOT / "tests"))  # where servers are started
from kit.servers import PASSWORD, PostgresServer, RedisServer, running

NOW = time.time_ns() // 1_000  # what is read in code is read as of now
ENTITIES = 20_000
SIZES = (1, 10, 100)
KEY_SETS = 64
HOT_ROWS = 300_000
TURN_S = 0.004  # short, so that some turns are not interrupted on a busy machine
FEAST_TURNS = 5
FEAST = PEERS / "feast" / "bin" / "python"
STORES = ("sqlite", "lmdb", "redis", "postgres")

decode = msgspec.msgpack.Decoder().decode
user = ms.Entity("user", keys={"user": ms.String})
Read = Callable[[Sequence[str]], Any]


def names() -> list[str]:
    return [f"user-{number:06d}" for number in range(ENTITIES)]


def views_and_states() -> tuple[list[FeatureView], dict[str, list[tuple[bytes, EntityState]]]]:
    """Three views of ten last values each, and by slot the state of every user as materialisation makes it."""
    rng = random.Random(7)
    views, states = [], {}
    for number in range(3):
        columns = {f"f{place}": ms.Float64 for place in range(10)}
        source = ms.Source(f"facts{number}", schema={"user": ms.String, **columns}, event_time="at")
        features = {name: ms.last(name, ttl="30d") for name in columns}
        view = ms.feature_view(entity=user, source=source)(type(f"View{number}", (), features))
        rows = states[slot(view)] = []
        for name in names():
            at = NOW - rng.randrange(HOUR)
            state = State(at, Candidates([at], [at], [[rng.gauss(0, 1)] for _ in columns]), [], Recent([], [], []))
            rows.append((encode_key((name,)), EntityState(NOW, encode(state), ENTITIES)))
        views.append(view)
    return views, states


def hot_view_and_state() -> tuple[FeatureView, tuple[bytes, EntityState]]:
    """A view of sketches, and the state of a user with very many rows as materialisation makes it."""
    rng = np.random.default_rng(7)
    source = ms.Source("visits", schema={"user": ms.String, "page": ms.String, "spent": ms.Float64}, event_time="at")
    features = {
        "pages": ms.distinct("page", window="30d"),
        "p90": ms.quantile("spent", 0.9, window="30d"),
        "usual": ms.top_k("page", 3, window="30d"),
    }
    view = ms.feature_view(entity=user, source=source)(type("Hot", (), features))
    rows = pa.table(
        {
            "user": ["hot"] * HOT_ROWS,
            "page": [f"page-{number}" for number in rng.zipf(1.2, HOT_ROWS) % 100_000],
            "spent": rng.lognormal(3, 2, HOT_ROWS),
            "at": pa.array(np.sort(rng.integers(NOW - 30 * DAY, NOW, HOT_ROWS)), pa.timestamp("us", tz="UTC")),
        }
    )
    lake, store, clock = MemoryLake(), MemoryOnlineStore(), ManualClock(NOW)
    Ingestor(lake, MemoryLocks(), clock).ingest(source, rows, keyings={"user": ("user",)})
    Materialiser(lake.scan, store, clock).run(view)
    key = encode_key(("hot",))
    (state,) = store.read([(slot(view), key)])
    return view, (key, state)


class Stores:
    """The stores and their raw clients, each filled with the same states."""

    def __init__(self, stack: ExitStack, folder: Path, states: dict[str, list[tuple[bytes, EntityState]]]) -> None:
        self.stack, self.folder, self.states = stack, folder, states
        self.written: dict[str, float] = {}  # rows a second
        self.addresses: dict[str, dict[str, Any]] = {}  # for Feast

    def opened(self, name: str) -> Any:
        store = getattr(self, name)()
        self.stack.callback(store.close)
        before = time.perf_counter()
        for view, rows in self.states.items():
            for start in range(0, len(rows), 5_000):
                store.write(view, rows[start : start + 5_000])
        if name == "postgres":
            self.connection.execute("ANALYZE")  # else the raw client's statement is planned badly
        self.written[name] = sum(map(len, self.states.values())) / (time.perf_counter() - before)
        return store

    def sqlite(self) -> SqliteOnlineStore:
        self.addresses["sqlite"] = {"type": "sqlite"}
        return SqliteOnlineStore(self.folder / "online.db")

    def lmdb(self) -> LmdbOnlineStore:
        return LmdbOnlineStore(self.folder / "online.lmdb")

    def redis(self) -> RedisOnlineStore:
        server = self.stack.enter_context(running(RedisServer))
        self.addresses["redis"] = {
            "type": "redis",
            "connection_string": f"127.0.0.1:{server.port},db=1,password={PASSWORD}",
        }
        self.redis_client = redis.Redis.from_url(server.url.text)
        return RedisOnlineStore(server.url, "bench")

    def postgres(self) -> PostgresOnlineStore:
        server = self.stack.enter_context(running(PostgresServer))
        self.addresses["postgres"] = {
            "type": "postgres", "host": "127.0.0.1", "port": server.port, "database": "postgres",
            "db_schema": "public", "user": "mainspring", "password": PASSWORD, "sslmode": "disable",
        }  # fmt: skip
        self.connection = psycopg.connect(server.url.text, autocommit=True, prepare_threshold=0)
        self.stack.callback(self.connection.close)
        return PostgresOnlineStore(server.url, "bench")

    def project(self, views: Sequence[FeatureView]) -> OpenedProject:
        """Return a project whose online store is the one in SQLite, materialised."""
        root = self.folder / "project"
        root.mkdir()
        (root / "mainspring.toml").write_text(
            f'name = "bench"\nmodules = ["bench_online"]\n[profiles.local]\nonline = "sqlite:///{self.folder}/online.db"\n'
        )
        (root / "bench_online.py").touch()
        opened = ms.open(root)
        for view in views:
            opened.services.online.advance(slot(view), Mark(NOW))
        self.stack.callback(opened.services.online.close)
        return opened

    def raw(self, name: str, store: Any, views: Sequence[FeatureView]) -> Callable[[Sequence[bytes]], Any]:
        """Return the least that reads the payloads of these views for given keys, and decodes them."""
        return getattr(self, f"raw_{name}")(store, [slot(view) for view in views])

    def raw_sqlite(self, store: Any, slots: Sequence[str]) -> Callable[[Sequence[bytes]], Any]:
        connection = store._connection()
        numbers = [connection.execute("SELECT id FROM slot WHERE view = ?", (view,)).fetchone()[0] for view in slots]

        def read(keys: Sequence[bytes]) -> Any:
            marks = ",".join("?" * len(keys))
            query = " UNION ALL ".join(
                f"SELECT key, payload FROM entity WHERE slot = {number} AND key IN ({marks})" for number in numbers
            )
            return {key: decode(payload) for key, payload in connection.execute(query, [*keys] * len(numbers))}

        return read

    def raw_lmdb(self, store: Any, slots: Sequence[str]) -> Callable[[Sequence[bytes]], Any]:
        environment = store._file()._env
        with environment.begin() as transaction:
            prefixes = [b"e" + transaction.get(b"s" + view.encode())[:4] for view in slots]

        def read(keys: Sequence[bytes]) -> Any:
            with environment.begin() as transaction:
                get = transaction.get
                return [decode(get(prefix + key)[16:]) for prefix in prefixes for key in keys]

        return read

    def raw_redis(self, store: Any, slots: Sequence[str]) -> Callable[[Sequence[bytes]], Any]:
        names, client = [store._states(view) for view in slots], self.redis_client

        def read(keys: Sequence[bytes]) -> Any:
            if len(names) == 1:
                found = client.hmget(names[0], keys)
            else:
                pipeline = client.pipeline(transaction=False)
                for name in names:
                    pipeline.hmget(name, keys)
                found = [value for answer in pipeline.execute() for value in answer]
            return [decode(value[16:]) for value in found]

        return read

    def raw_postgres(self, _: Any, slots: Sequence[str]) -> Callable[[Sequence[bytes]], Any]:
        numbers = [
            self.connection.execute("SELECT id FROM mainspring_online.slot WHERE view = %s", (view,)).fetchone()[0]
            for view in slots
        ]
        query = " UNION ALL ".join(
            f"SELECT key, payload FROM mainspring_online.entity WHERE slot = {number} AND key = ANY(%b)"
            for number in numbers
        )

        def read(keys: Sequence[bytes]) -> Any:
            found = self.connection.cursor(binary=True).execute(query, [list(keys)] * len(numbers))
            return {key: decode(payload) for key, payload in found}

        return read


class Feast:
    """A process that reads with Feast when asked: the number of rows and of views in, microseconds a call out."""

    def __init__(self, address: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [str(FEAST), "online_feast.py", json.dumps(address), str(ENTITIES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
        )  # fmt: skip

    def turn(self, rows: int, views: int) -> float:
        try:
            self._process.stdin.write(f"{rows} {views}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            said = self._process.stderr.read().strip().splitlines() or ["nothing"]
            raise RuntimeError(f"Feast ended and said: {said[-1]}")
        return float(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def turn(read: Read, asked: Iterator[Any]) -> float:
    """Return the microseconds of a call, on average over a short while."""
    calls, before = 0, time.perf_counter()
    while (took := time.perf_counter() - before) < TURN_S:
        for _ in range(4):
            read(next(asked))
        calls += 4
    return took / calls * 1e6


def measure_in_code(stores: Stores, views: Sequence[FeatureView], turns: int, feast: Feast | None) -> list[Case]:
    project, reader = stores.project(views), OnlineReader(views[:1], stores.opened("sqlite"))
    found = []
    for rows in SIZES:
        rng = random.Random(rows)
        sets = [rng.sample(names(), rows) for _ in range(KEY_SETS)]
        asked = cycle([{"user": each[0]} if rows == 1 else {"user": each} for each in sets])
        columns = cycle([{"user": each} for each in sets])
        best = [float("inf")] * 2
        for _ in range(turns):
            best[0] = min(best[0], turn(lambda given: project.online(views[0], given), asked))
            best[1] = min(best[1], turn(lambda given: reader.read(given, NOW), columns))
        peer = None if feast is None else round(min(feast.turn(rows, 1) for _ in range(FEAST_TURNS)), 1)
        case = f"in code: {rows} {'entity' if rows == 1 else 'entities'} x 10 features"
        found.append(Case(case, "us", round(best[0], 1), round(best[1], 1), {"Feast": peer}))
        print(f"{case}: ours {best[0]:.1f}, reader {best[1]:.1f}, Feast {peer}", file=sys.stderr, flush=True)
    return found


def measure(
    stores: Stores,
    name: str,
    views: Sequence[FeatureView],
    hot: FeatureView,
    turns: int,
    feast: Feast | None,
    note: str,
) -> list[Case]:
    store = stores.opened(name)
    found = [of_hot_entity(stores, name, store, hot, turns)]
    for count in (1, 3):
        reader, raw = OnlineReader(views[:count], store), stores.raw(name, store, views[:count])
        for rows in SIZES:
            rng = random.Random(rows)
            sets = [rng.sample(names(), rows) for _ in range(KEY_SETS)]
            asked = cycle([{"user": each} for each in sets])
            keys = cycle([[encode_key((each,)) for each in of] for of in sets])
            best = [float("inf")] * 3
            for _ in range(turns):
                best[0] = min(best[0], turn(lambda columns, reader=reader: reader.read(columns, NOW), asked))
                best[1] = min(best[1], turn(raw, keys))
            if feast is not None:
                best[2] = min(feast.turn(rows, count) for _ in range(FEAST_TURNS))
            peer = None if feast is None else round(best[2], 1)
            case = f"{name}: {rows} {'entity' if rows == 1 else 'entities'} x {10 * count} features" + (
                " of 3 views" if count == 3 else ""
            )
            notes = {} if feast is not None else {f"Feast, {name}": note}
            found.append(Case(case, "us", round(best[0], 1), round(best[1], 1), {"Feast": peer}, notes))
            print(f"{case}: ours {best[0]:.1f}, raw {best[1]:.1f}, Feast {peer}", file=sys.stderr, flush=True)
    return found


def of_hot_entity(stores: Stores, name: str, store: Any, view: FeatureView, turns: int) -> Case:
    reader, raw = OnlineReader([view], store), stores.raw(name, store, [view])
    asked, keys = cycle([{"user": ["hot"]}]), cycle([[encode_key(("hot",))]])
    best = [float("inf")] * 2
    for _ in range(turns):
        best[0] = min(best[0], turn(lambda columns: reader.read(columns, NOW + 1), asked))
        best[1] = min(best[1], turn(raw, keys))
    case = f"{name}: sketches of a hot entity, {HOT_ROWS:,} rows"
    print(f"{case}: ours {best[0]:.1f}, raw {best[1]:.1f}", file=sys.stderr, flush=True)
    return Case(case, "us", round(best[0], 1), round(best[1], 1), {})


@contextmanager
def feast_on(stores: Stores, name: str) -> Iterator[tuple[Feast | None, str]]:
    """Give Feast on the same store, or why it is not there."""
    if name not in stores.addresses:
        yield None, "it has no such store"
    elif not FEAST.exists():
        yield None, "not installed: make bench-peers"
    else:
        feast = Feast(stores.addresses[name])
        try:
            feast.turn(1, 1)
            yield feast, ""
        except RuntimeError as error:
            yield None, str(error)
        finally:
            feast.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", help=f"any of {', '.join(STORES)}")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    views, states = views_and_states()
    hot, state = hot_view_and_state()
    states[slot(hot)] = [state]
    gc.collect()
    gc.freeze()  # what stands here for a long-lived process's memory is not looked through again and again
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.stores or STORES:
            with ExitStack() as stack:
                stores = Stores(stack, Path(folder), states)
                try:
                    cases += one_store(stores, name, views, hot, arguments)
                except pytest.skip.Exception as missing:
                    cases.append(Case(name, "us", None, None, {}, {name: str(missing)}))
    report("online", cases)


def one_store(
    stores: Stores, name: str, views: Sequence[FeatureView], hot: FeatureView, arguments: argparse.Namespace
) -> list[Case]:
    getattr(stores, name)().close()  # starts its server, where it has one
    with feast_on(stores, name) if not arguments.no_peers else nullcontext((None, "left out")) as (feast, note):
        found = measure(stores, name, views, hot, arguments.turns, feast, note)
        return found + (measure_in_code(stores, views, arguments.turns, feast) if name == "sqlite" else [])


if __name__ == "__main__":
    main()
