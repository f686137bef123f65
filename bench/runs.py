"""How fast are runs found? 100,000 runs and 12,000 names of metrics in MLflow's store, on SQLite and on Postgres.

Ours is `RunSearch.search` of a page of 25 with six columns, and the console's whole pages and API answers with HTTP,
authentication and template, asked in this process. The floor is
the SQL that a person would write for that one page, on the same indexes, by the bare driver. The peer is
`MlflowClient.search_runs` on the same store before our indexes are there, with the database's statistics up to date,
without which it takes minutes; it always reads everything that a run has. Sides take turns and the fastest counts.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from environments import ROOT
from mainspring.console.app import create_app
from mainspring.core.time import SystemClock
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.searching import Axis, Column, Kind, Order, RunQuery
from many_runs import COMMON, LONGEST, MODELS, fill_postgres, fill_sqlite, rows
from report import Case, report

sys.path.insert(0, str(ROOT / "tests"))  # where servers are started, and a project is made up
from kit.console.client import Client
from kit.console.flights import Project
from kit.servers import PostgresServer, running

PAGE, TURNS, PEER_TURNS, PEER_PATIENCE_S = 25, 7, 2, 60.0
COLUMNS = [
    *(Column(Kind.METRIC, name) for name in COMMON[:3]),
    *(Column(Kind.PARAM, n) for n in ("lr", "depth", "batch")),
]
# What is asked: ours, MLflow's filter and order, and the SQL of the page.
_RUN = "r.run_uuid, r.name, r.status, r.start_time, r.end_time, r.experiment_id"
ASKED = {
    "first page": ("", "", "", "attributes.start_time DESC",
        f"SELECT {_RUN} FROM runs r WHERE r.lifecycle_stage = 'active' "
        "ORDER BY r.start_time DESC, r.run_uuid DESC LIMIT 26"),
    "ordered by a metric": ("", "metrics.holdout.auc desc", "", "metrics.`holdout.auc` DESC",
        f"SELECT {_RUN} FROM latest_metrics m JOIN runs r ON r.run_uuid = m.run_uuid WHERE m.key = 'holdout.auc' AND "
        "m.is_nan = {no} AND r.lifecycle_stage = 'active' ORDER BY m.value DESC, m.run_uuid DESC LIMIT 26"),
    "filtered and ordered": (
        "metrics.holdout.auc > 0.5 and params.depth = '7'", "metrics.holdout.brier asc",
        "metrics.`holdout.auc` > 0.5 and params.depth = '7'", "metrics.`holdout.brier` ASC",
        f"SELECT {_RUN} FROM latest_metrics m JOIN runs r ON r.run_uuid = m.run_uuid WHERE m.key = 'holdout.brier' AND "
        "m.is_nan = {no} AND r.lifecycle_stage = 'active' AND EXISTS (SELECT 1 FROM latest_metrics a WHERE "
        "a.run_uuid = m.run_uuid AND a.key = 'holdout.auc' AND a.is_nan = {no} AND a.value > 0.5) AND EXISTS "
        "(SELECT 1 FROM params p WHERE p.run_uuid = m.run_uuid AND p.key = 'depth' AND p.value = '7') "
        "ORDER BY m.value, m.run_uuid LIMIT 26"),
    "one model's few failures": (
        f"model = {MODELS[3]} and status = failed and started < 2026-01-02", "started desc", "", "",
        f"SELECT {_RUN} FROM runs r WHERE r.experiment_id = 4 AND r.status = 'FAILED' AND r.lifecycle_stage = 'active' "
        "AND r.start_time < 1767312000000 ORDER BY r.start_time DESC, r.run_uuid DESC LIMIT 26"),
    "one run of all, by a parameter": (
        "params.trial = '4711'", "", "params.trial = '4711'", "attributes.start_time DESC",
        f"SELECT {_RUN} FROM params p JOIN runs r ON r.run_uuid = p.run_uuid WHERE p.key = 'trial' AND "
        "{begins} AND p.value = '4711' AND r.lifecycle_stage = 'active'"),
}  # fmt: skip
_VALUES = {
    "latest_metrics": "SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE {pairs}",
    "params": "SELECT run_uuid, key, value FROM params WHERE {pairs}",
}
_BEGINS = {"sqlite": "substr(p.value, 1, 64) = '4711'", "postgres": "substr(p.value, 1, 64) COLLATE \"C\" = '4711'"}


def fastest(call: Callable[[], Any], turns: int) -> float:
    """Return the milliseconds of the fastest turn."""
    took = []
    for _ in range(turns):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return round(min(took) * 1e3, 2)


def floor_of(kind: str, connection: Any, sql: str) -> Callable[[], Any]:
    """Return what reads one page and its six columns by the bare driver."""
    sql = sql.format(no="0" if kind == "sqlite" else "false", begins=_BEGINS[kind])
    mark = "?" if kind == "sqlite" else "%s"

    def read() -> None:
        runs = connection.execute(sql).fetchall()[:PAGE]
        for table, wanted in _VALUES.items():
            names = COMMON[:3] if table == "latest_metrics" else ("lr", "depth", "batch")
            pairs = [part for name in names for run in runs for part in (name, run[0])]
            if pairs:
                places = ", ".join([f"({mark}, {mark})"] * (len(pairs) // 2))
                values = f"(VALUES {places})" if kind == "sqlite" else f"({places})"
                connection.execute(wanted.format(pairs=f"(key, run_uuid) IN {values}"), pairs).fetchall()

    return read


def peers_of(uri: str) -> Iterator[tuple[str, float | None, str]]:
    """Give MLflow's milliseconds for each question, or why there are none."""
    import os

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    from mlflow import MlflowClient

    client, late = MlflowClient(uri), False
    experiments = [each.experiment_id for each in client.search_experiments()]
    for name, (_, _, filter_, order, _) in ASKED.items():
        if not order or late:
            yield name, None, "not asked: it has no such filter" if not order else "not asked: it took too long before"
            continue
        begun = time.perf_counter()
        ask = partial(client.search_runs, experiments, filter_, max_results=PAGE, order_by=[order])
        ask()
        first = time.perf_counter() - begun
        late = first > PEER_PATIENCE_S
        turns = 1 if first > PEER_PATIENCE_S / 10 else PEER_TURNS
        again = fastest(ask, turns)
        yield name, min(again, round(first * 1e3, 2)), ""


@contextmanager
def stores(kinds: list[str], runs: int, names: int) -> Iterator[dict[str, tuple[str, Any]]]:
    """Give each store, filled: its URL and a bare connection."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, tuple[str, Any]] = {}
        if "sqlite" in kinds:
            path = Path(folder) / "tracking.db"
            _made(f"sqlite:///{path}", Path(folder))
            fill_sqlite(path, rows(runs, names))
            found["sqlite"] = f"sqlite:///{path}", sqlite3.connect(path, isolation_level=None)
        if "postgres" not in kinds:
            yield found
            return
        with running(PostgresServer) as server:
            _made(server.url.text.replace("postgresql:", "postgresql+psycopg:"), Path(folder))
            fill_postgres(server.url.text, rows(runs, names))
            found["postgres"] = server.url.text, psycopg.connect(server.url.text, autocommit=True)
            yield found


def _made(url: str, folder: Path) -> None:
    tracking = MlflowTracking(url, folder / "runs")
    tracking.search(limit=1)
    tracking.close()


def measured(kind: str, url: str, connection: Any, turns: int) -> Iterator[Case]:
    connection.execute("ANALYZE")
    asked_of = url if kind == "sqlite" else url.replace("postgresql:", "postgresql+psycopg:")
    theirs = {name: (took, why) for name, took, why in peers_of(asked_of)}
    search = MlflowRunSearch(url)
    begun = time.perf_counter()
    search.search(RunQuery())
    print(f"{kind}: our indexes took {time.perf_counter() - begun:.1f} s once", file=sys.stderr)
    for name, (filter_, order, _, _, sql) in ASKED.items():
        read = parse_filter(filter_, SystemClock().now())
        query = RunQuery(read.conditions, read.words, parse_order(order) if order else Order(), PAGE)
        bare = floor_of(kind, connection, sql)
        assert len(search.search(query, COLUMNS).runs) == min(
            PAGE, len(connection.execute(_plain(kind, sql)).fetchall())
        )
        ours, floor = fastest(partial(search.search, query, COLUMNS), turns), fastest(bare, turns)
        took, why = theirs[name]
        yield Case(f"{kind}: {name}", "ms", ours, floor, {"mlflow": took}, {"mlflow": why} if why else {})
    yield from whole_answers(kind, search, turns)
    yield Case(f"{kind}: 50 of the names, by a part", "ms", fastest(lambda: names_after_a_write(search, connection), 3))
    newest = search.search(RunQuery(limit=21)).runs
    longest = fastest(lambda: search.history([newest[0].id], "train.loss", points=200), 3)
    yield Case(f"{kind}: {LONGEST:,} values in 200 buckets", "ms", longest)
    several = [run.id for run in newest[1:]]
    yield Case(
        f"{kind}: 20 runs laid over each other",
        "ms",
        fastest(lambda: search.history(several, "train.loss", axis=Axis.STEP), 3),
    )
    search.close()


def names_after_a_write(search: MlflowRunSearch, connection: Any) -> list[str]:
    """Return names; what is kept of them is of no use once something was written."""
    connection.execute("UPDATE runs SET status = status WHERE run_uuid = (SELECT min(run_uuid) FROM runs)")
    return search.names(Kind.METRIC, "head007", limit=50)


def whole_answers(kind: str, search: MlflowRunSearch, turns: int) -> Iterator[Case]:
    project = Project()
    object.__setattr__(project, "run_search", search)
    client = Client(create_app(project), project.key())
    filter_, order = quote("metrics.holdout.auc > 0.5 params.depth = '7'"), quote("metrics.holdout.brier asc")
    ids = "&".join(f"run={run.id}" for run in search.search(RunQuery(limit=21)).runs[1:])
    for name, path in (
        ("the console's page", "/runs"),
        ("the console's page, filtered and ordered", f"/runs?q={filter_}&sort={order}"),
        ("the console's page, with names found", "/runs?find=head007"),
        ("the console's comparison of 20", f"/runs/compare?{ids}"),
        ("the API's 50", "/api/runs"),
        ("the API's 50, filtered and ordered", f"/api/runs?filter={filter_}&order={order}"),
    ):
        assert client.page(path).status_code == 200
        yield Case(f"{kind}: {name}", "ms", fastest(partial(client.page, path), turns))


def _plain(kind: str, sql: str) -> str:
    return sql.format(no="0" if kind == "sqlite" else "false", begins=_BEGINS[kind])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--names", type=int, default=12_000, help="different metrics")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgres"], choices=["sqlite", "postgres"])
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    with stores(chosen.stores, chosen.runs, chosen.names) as found:
        cases = [case for kind, (url, bare) in found.items() for case in measured(kind, url, bare, chosen.turns)]
    report("runs", cases)


if __name__ == "__main__":
    main()
