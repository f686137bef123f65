"""What does security cost? Each section measures one part against its floor.

The audit log: events appended in batches and one by one, against a bare `executemany` of the same rows into such a
table; and verified, against reading the rows. Both databases are SQLite files with WAL, synced at every commit.
Authorisation: a decision that Cedar makes, and one that is remembered. Quotas: the gateway's own work for a request to
an endpoint with two quotas, whose file eight processes have written, against one without, in turns; the median turn.
Erasure of one subject of many: see `erasure.py`. Encryption at rest, by store: see `envelopes.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

import cedarpy
import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from envelopes import at_rest
from erasure import erasure
from kit.serving import NOW, Kit, route
from kit.tensors import network
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import ManualClock
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.project.catalog import open_catalog
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.model import Action, AuditEvent, Binding, KeyScope, Principal, Role
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.quota import Quota
from mainspring.security.signing import SigningKey
from mainspring.security.verification import verify_log
from mainspring.serving.model import Arm
from mainspring.serving.plane.counts import FILE, Counts
from overhead import INPUTS, OUTPUTS, TOGETHER, fastest, requests
from report import Case, report

BATCH = 1_000
ROUNDS = 3
KEY = SigningKey(bytes(range(32)))
_TABLE = (
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, at INTEGER, actor TEXT, action TEXT, resource TEXT, detail TEXT)"
)
_INSERT = "INSERT INTO events (at, actor, action, resource, detail) VALUES (?, ?, ?, ?, ?)"


def events(count: int) -> list[AuditEvent]:
    """Return events as an installation writes them."""
    return [
        AuditEvent(1_700_000_000_000_000 + number, f"local:user{number % 50}", "predictions.reveal",
                   f"prediction/{number:026d}", "amount, country")
        for number in range(count)
    ]  # fmt: skip


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def audit(count: int, singles: int) -> list[Case]:
    """Measure the audit log."""
    made = events(count)
    batches = [made[begin : begin + BATCH] for begin in range(0, count, BATCH)]
    ours, floor = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            floor.append(_bare(Path(folder) / "floor.db", batches, made[:singles]))
            ours.append(_logged(Path(folder) / "catalog.db", batches, made[:singles]))
    rates = {"appended, in batches of 1,000": "append", "verified": "verify", "appended and verified": "both"}
    cases = [
        Case(f"events {what}", "events/s", max(each[key][0] for each in ours), max(each[key][0] for each in floor),
             more_is_better=True)
        for what, key in rates.items()
    ]  # fmt: skip
    for at, name in ((50, "p50"), (99, "p99")):
        best = [min(quantiles(each["single"], n=100)[at - 1] for each in side) for side in (ours, floor)]
        cases.append(Case(f"one event appended, {name}", "µs", *(round(each * 1e6, 1) for each in best)))
    return cases


def _measured(count: int, append: float, verify: float, single: list[float]) -> Mapping[str, list[float]]:
    rates = {"append": append, "verify": verify, "both": append + verify}
    return {**{name: [round(count / each)] for name, each in rates.items()}, "single": single}


def _row(event: AuditEvent) -> tuple[object, ...]:
    return event.at, event.actor, event.action, event.resource, event.detail


def _bare(path: Path, batches: Sequence[Sequence[AuditEvent]], few: Sequence[AuditEvent]) -> Mapping[str, list[float]]:
    rows = [[_row(event) for event in batch] for batch in batches]
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _TABLE):
            connection.execute(statement)

        def insert(batch: Sequence[tuple[object, ...]]) -> None:
            with connection:
                connection.executemany(_INSERT, batch)

        append = seconds(lambda: [insert(batch) for batch in rows])
        read = seconds(lambda: connection.execute("SELECT * FROM events ORDER BY seq").fetchall())
        single = [seconds(lambda each=each: insert([each])) for each in map(_row, few)]
    return _measured(sum(map(len, batches)), append, read, single)


def _logged(
    path: Path, batches: Sequence[Sequence[AuditEvent]], few: Sequence[AuditEvent]
) -> Mapping[str, list[float]]:
    engine = open_catalog(Url(f"sqlite:///{path}"), MemoryLocks())
    log = CatalogAuditLog(engine, lambda: KEY)
    append = seconds(lambda: [log.append(batch) for batch in batches])
    verify = seconds(lambda: verify_log(log, KEY.public))
    single = [seconds(lambda each=each: log.append([each])) for each in few]
    engine.dispose()
    return _measured(sum(map(len, batches)), append, verify, single)


def authorise(count: int) -> list[Case]:
    """Measure decisions: of principals never seen before, against Cedar with everything parsed but the entities; and
    remembered ones, against a look-up in a dictionary.
    """
    authoriser, roles = CedarAuthoriser(), frozenset({Binding(Role.ENGINEER, "model/late")})
    callers = [Principal(f"{number:026d}", "name", frozenset(KeyScope), roles=roles) for number in range(count)]
    who, what = {"type": "Key", "id": "0"}, {"type": "Model", "id": "late"}
    policy = cedarpy.PolicySet.from_str('permit (principal in Role::"engineer", action, resource);')
    entities = json.dumps([{"uid": who, "attrs": {}, "parents": [{"type": "Role", "id": "engineer"}]}])
    request = {"principal": who, "action": {"type": "Action", "id": "model.read"}, "resource": what, "context": {}}
    known: dict[tuple[Principal, Action, str], bool] = {}

    def decide(caller: Principal) -> None:
        authoriser.check(caller, Action.MODEL_READ, "model/late")

    def look_up(caller: Principal) -> None:
        known[caller, Action.MODEL_READ, "model/late"] = True

    sides = {
        "decided": (decide, lambda _: cedarpy.is_authorized(request, policy, entities)),
        "remembered": (decide, look_up),
    }
    times = {
        name: [[seconds(lambda call=call, caller=caller: call(caller)) for caller in callers] for call in both]
        for name, both in sides.items()
    }
    return [
        Case(f"{name}, {label}", "µs", *(round(quantiles(each, n=100)[at - 1] * 1e6, 1) for each in both))
        for name, both in times.items()
        for at, label in ((50, "p50"), (99, "p99"))
    ]


async def quota(folder: Path, turns: int) -> list[Case]:
    """Measure what quotas add to the gateway's own work."""
    counts, others = Counts(folder / FILE), [Counts(folder / FILE) for _ in range(7)]
    for each in others:
        each.row("another", 0)
    kit, made = Kit(log=SegmentLog(folder / "log"), clock=ManualClock(NOW)), network(KEY, INPUTS, OUTPUTS)
    kit.bundles.save(made)
    limits = (Quota("month", per="month", rows=10**9), Quota("burst", per="second", requests=10**7, by="owner"))
    free, limited = (route(Arm("1", made.digest), endpoint=name) for name in ("network", "limited"))
    kit.routes.publish([free, msgspec.structs.replace(limited, quotas=limits)])
    gateway = kit.gateway(counts)
    gateway.start()
    await gateway.preloaded()
    gc.collect()
    gc.freeze()
    cases = []
    for case, (endpoint, headers, body) in requests(kit.key()).items():
        if endpoint != "network":
            continue
        for count in (TOGETHER, 1):
            sides: dict[str, list[float]] = {"limited": [], "network": []}
            for turn in range(turns):
                for name, found in sorted(sides.items(), reverse=bool(turn % 2)):
                    path = f"/v2/models/{name}/infer"
                    found.append(await fastest(gateway.handle, path, headers, body, count, 8))
            how = f"{count} at once" if count > 1 else "alone"
            ours, floor = (round(median(found), 2) for found in sides.values())
            cases.append(Case(f"with quotas, {case}, {how}", "µs", ours, floor))
    await gateway.stop()
    kit.log.close()
    return cases


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--singles", type=int, default=1_000)
    parser.add_argument("--decisions", type=int, default=5_000)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--subjects", type=int, default=1_000_000)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--rows", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quotas = asyncio.run(quota(Path(folder), chosen.turns))
    report(
        "security",
        [
            *quotas,
            *audit(chosen.events, chosen.singles),
            *authorise(chosen.decisions),
            *at_rest(chosen.mebibytes, chosen.rows),
            *erasure(chosen.subjects),
        ],
    )


if __name__ == "__main__":
    main()
