"""What several processes do to one catalog at once: `python tests/kit/catalog_writers.py DUTY URL WHO COUNT [MORE]`.

Each waits for a line on its standard input, so that all begin together, and prints as JSON what came of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.auditing import audit_log
from mainspring.core.errors import Conflict
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.model import DatasetCommit
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.model import Window
from mainspring.project.catalog import open_catalog, version
from mainspring.project.definitions.applied import Applied
from mainspring.registry.adapters.catalog import AliasMoves
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.model import AliasMove
from mainspring.security.model import AuditEvent
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.conformance.routes import route

PROJECT = "depot"


def _engine(url: str) -> Any:
    return open_catalog(Url(url), MemoryLocks(), PROJECT)


def migrate(url: str, _who: str, _count: int) -> str | None:
    return version(_engine(url))


def move(url: str, who: str, count: int) -> int:
    """Move one alias from what it names to a version of one's own; return how often nobody was faster."""
    moves, won = AliasMoves(_engine(url)), 0
    for number in range(count):
        old = moves.current("model").get(("model", "champion"))
        try:
            with moves.exclusively() as connection:
                moves.append(AliasMove("model", "champion", old, f"{who}-{number}", who, "", number), connection)
        except Conflict:
            continue
        won += 1
    return won


def publish(url: str, who: str, count: int) -> list[int]:
    routes = CatalogRoutes(_engine(url))
    return [routes.publish([route(f"endpoint-{who}-{number}", "1")]) for number in range(count)]


def audit(url: str, who: str, count: int) -> int:
    log = audit_log(_engine(url))
    for number in range(count):
        log.append([AuditEvent(number, who, "predict", f"r{number}", part) for part in ("a", "b")])
    return count


def tag(url: str, who: str, count: int) -> int:
    snapshots = CatalogSnapshots(_engine(url))
    for number in range(count):
        commit = DatasetCommit(f"{number:064x}", {}, None, "", number)  # both add each of them
        snapshots.add(commit)
        snapshots.tag(f"tag-{number % 3}", commit.id)
    return count


def apply(url: str, who: str, count: int) -> int:
    applied = Applied(_engine(url))
    for number in range(count):
        applied.replace({("source", name): f"{who}-{number}" for name in "abc"}, number)
    return count


def save(url: str, who: str, count: int) -> int:
    monitors = CatalogMonitors(_engine(url))
    windows = [
        Window(endpoint="a", start=start, end=start + 1, predictions=0, p50_ms=None, p99_ms=None, labels=0,
               coverage=0.0, lag_p50_s=None, quality={}, columns=(), versions={})
        for start in range(30)
    ]  # fmt: skip
    for _ in range(count):
        monitors.save(windows if who == "0" else windows[::-1])
    return count


def runs(url: str, who: str, count: int) -> int:
    """Make MLflow's tables, all at once, and a run each."""
    tracking = MlflowTracking(url, Path(sys.argv[5]))
    for number in range(count):
        tracking.start("model", {"who": who}, number * 1_000)
    return count


def lease(url: str, who: str, count: int) -> list[tuple[int, int]]:
    """Claim the partitions of a stream, and give them up at times; return (partition, epoch) of every lease had."""
    streams, had = CatalogStreams(_engine(url), "lake"), set[tuple[int, int]]()
    for number in range(count):
        now = time.time_ns() // 1_000
        had |= {*streams.claim("orders", who, range(8), now, now + 20_000).items()}
        if number % 7 == 6:
            streams.release("orders", who)
    return sorted(had)


DUTIES: dict[str, Callable[[str, str, int], Any]] = {
    each.__name__: each for each in (migrate, move, publish, audit, tag, apply, save, runs, lease)
}

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(DUTIES[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))))
