"""Experiments in a running system: an A/B and a bandit find the better version by its labels, an A/A finds none."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from kit.depot import MODEL, Depot, Up, keyed, opened
from kit.depth import deep, examples
from kit.waiting import wait_until
from mainspring.operations.opened import OpenedProject
from mainspring.project import Project

FLOOR = 0.2
SERVICE = f'''\
"""Experiments on one model; `late` comes within seconds, and being late is bad."""

import mainspring as ms

for name in ("ab", "aa", "bandit", "same"):
    ms.Endpoint(name, model="late-parcel@champion", deadline="30s")
late = dict(within="{examples(gate="8s", deep="12s")}", higher_is_better=False)
errors = [ms.guards.errors(at_most=0.2)]
ms.Rollout(
    "ab", kind="ab", hold="1s", least_requests=50, guards=errors, goals=[ms.guards.outcome("late", **late)]
)
ms.Rollout(
    "aa", kind="ab", hold="1s", least_requests=50, guards=errors, goals=[ms.guards.outcome("late", effect=0.5, **late)]
)
ms.Rollout(
    "bandit",
    kind="bandit",
    assign="key",
    floor={FLOOR},
    hold="1s",
    least_requests={examples(gate=400, deep=3000)},
    on_success="wait",
    guards=errors,
    goals=[ms.guards.outcome("late", **late)],
)
ms.Rollout(
    "same", kind="bandit", hold="1s", longest="{examples(gate="16s", deep="4m")}", guards=errors,
    goals=[ms.guards.outcome("late", **late)]
)
'''
ENOUGH = examples(gate=480, deep=4000)  # parcels of an endpoint until its share moves
LATE = examples(gate={"1": 0.9, "2": 0.1}, deep={"1": 0.6, "2": 0.4})  # share of late parcels, by version
DIFFERENT = ("ab", "bandit")  # endpoints of which the version decides how many parcels come late
FAITHFUL = [f"faithful-{number}" for number in range(12)]  # parcels that are asked for in every round


@dataclass
class Life:
    """Parcels that are posted, predicted and delivered."""

    up: Up
    project: Project
    key: str
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    number: Any = field(default_factory=itertools.count)
    asked: Counter[str] = field(default_factory=Counter)  # parcels by endpoint
    answered: Counter[tuple[str, int, str]] = field(default_factory=Counter)  # endpoint, status, version

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.up.depot.gateway, timeout=60)

    def close(self) -> None:
        self.connection.close()

    def version(self, endpoint: str, parcel: str) -> str:
        headers = {"Authorization": f"Bearer {self.key}"}
        self.connection.request("POST", f"/v2/models/{endpoint}/infer", json.dumps(keyed(parcel)), headers)
        reply = self.connection.getresponse()
        found = str(json.loads(reply.read()).get("model_version", ""))
        self.answered[endpoint, reply.status, found] += 1
        return found

    def round(self, endpoints: list[str], parcels: int) -> None:
        """Ask each endpoint for so many parcels, and tell which of them came late."""
        delivered = []
        for endpoint in endpoints:
            known = FAITHFUL if endpoint in self.asked else ()
            self.asked[endpoint] += parcels
            for parcel in (*FAITHFUL, *(f"p{next(self.number)}-{endpoint}" for _ in range(parcels))):
                version = self.version(endpoint, parcel)
                share = LATE[version] if endpoint in DIFFERENT else 0.5
                if parcel not in known:
                    delivered.append({"parcel": parcel, "late": self.chance.random() < share})
        at = datetime.now(UTC)
        OpenedProject(self.project).ingest("deliveries", [{**each, "delivered_at": at} for each in delivered])


def status(depot: Depot, endpoint: str) -> Any:
    return depot.json("rollout", "status", endpoint)


@deep
def test_experiments_end_as_their_labels_say(depot: Depot, capsys: pytest.CaptureFixture[str]) -> None:
    (depot.root / "parcels" / "service.py").write_text(SERVICE)
    depot.json("apply")
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
    project = opened(depot)
    begun = time.monotonic()
    ended: dict[str, str] = {}
    with depot.up() as up, closing(Life(up, project, key)) as life:
        up.until_serving()
        for endpoint in ("ab", "aa", "bandit", "same"):
            depot.json("rollout", "start", endpoint, "--candidate", "2")
        wait_until(lambda: {each.status for each in project.rollouts.live()} == {"running"}, "all to begin")

        def go_on() -> bool:
            live = [each for each in project.rollouts.live() if each.status == "running"]
            for endpoint in {"ab", "aa", "bandit", "same"} - {each.endpoint for each in live} - ended.keys():
                ended[endpoint] = f"{time.monotonic() - begun:.0f} s"
            # Labels come after a while. A bandit is to move before it has its requests.
            due = [each.endpoint for each in live if life.asked[each.endpoint] < ENOUGH or each.share != 0.5]
            if due:
                life.round(due, 40)
            return not live

        wait_until(go_on, "every experiment to end", within_s=400, every_s=0.2)
        found = {endpoint: status(depot, endpoint) for endpoint in ("ab", "aa", "bandit", "same")}
        assert found["ab"]["status"] == "waiting", (ended, found["ab"])
        promoted = depot.json("rollout", "promote", "ab")
        wait_until(lambda: life.version("ab", "after") == "2", "the winner to have every request")
    requests = {endpoint: assigned(project, found[endpoint]["id"]) for endpoint in DIFFERENT}
    moves = [look for look in project.rollouts.looks(found["bandit"]["id"]) if look.decision == "share"]
    followed = min(each.at for each in requests["bandit"] if each.share == moves[0].share) - moves[0].at
    with capsys.disabled():
        print(f"\n{ended}; {sum(life.answered.values())} requests; a new share met after {followed / 1e6:.2f} s")
        for endpoint, document in found.items():
            print(f"{endpoint}: {document['status']}: {document['why']}; share {document['share']}")
            print("\n".join(document["decisions"]))

    assert {status for _, status, _ in life.answered} == {200}
    assert {endpoint: document["status"] for endpoint, document in found.items()} == {
        "ab": "waiting",
        "aa": "inconclusive",
        "bandit": "waiting",
        "same": "inconclusive",
    }
    assert found["ab"]["why"].startswith("outcome late -")
    assert found["aa"]["why"].startswith("no improvement that matters: outcome late ")
    assert found["same"]["why"].startswith("no decision within ")
    assert promoted["status"] == "done"
    assert project.versions.get(MODEL, "champion").version == "2"
    assert found["bandit"]["share"] == 1 - FLOOR
    held = {each.share for each in requests["bandit"]}
    assert 0.5 in held
    assert 1 - FLOOR in held
    assert FLOOR <= min(held) <= max(held) <= 1 - FLOOR
    for endpoint in DIFFERENT:
        arms: dict[int, list[Assigned]] = defaultdict(list)
        for each in requests[endpoint]:
            arms[each.unit].append(each)
        faithful = [units for units in arms.values() if len(units) > 3]
        assert len(faithful) >= len(FAITHFUL)
        # A key has one place: where the candidate has it at some share, it has it at every larger one.
        for units in faithful:
            without = max((each.share for each in units if not each.mine), default=0.0)
            assert without < min((each.share for each in units if each.mine), default=1.0)
    project.close()


class Assigned(NamedTuple):
    """A logged request, with the candidate's share then and whether the candidate had it."""

    at: int
    unit: int
    share: float
    mine: bool


def assigned(project: Project, rollout: str) -> list[Assigned]:
    """Return the requests of a rollout that had a choice of arm."""
    project.predictions.compact()
    found = project.predictions.observations(rollout)
    assert found is not None
    requests = []
    for row in (row for batch in found.batches for row in batch.to_pylist()):
        mine, at = row["version"] == "2", int(row["at"].timestamp() * 1e6)
        share = round(row["weight"] if mine else 1 - row["weight"], 6)
        if 0 < share < 1:
            requests.append(Assigned(at, row["unit"], share, mine))
    return requests
