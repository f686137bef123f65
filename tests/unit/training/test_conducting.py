"""Ranks on several machines: which end is the cause, who goes on, and what is said where the cluster has no room."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.training.distributed.conducting import Conductor, Place
from mainspring.training.distributed.ends import ORDERLY
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import COMPUTING, WAITING

STEPS = 4  # looks at a rank until it ends
LOST_PEER = {"kind": "MainspringError", "what": "closed by peer", "fix": None, "lost_peer": True}
ERROR = {"kind": "Invalid", "what": "There is no shop 7.", "fix": "name another shop."}
STOPPED = {"kind": "Interrupted", "what": "checkpoint 3 is written", "fix": None}


class Cluster:
    """Machines whose ranks end after some looks, or by a deed: (attempt, rank or machine, look) -> what happens."""

    def __init__(self, *machines: str, spare: Sequence[str] = (), deeds: Mapping[tuple[int, int, int], str]) -> None:
        self.there, self.spare, self.deeds = list(machines), list(spare), dict(deeds)
        self.lost: set[str] = set()
        self.why: Mapping[str, str] | None = None  # the answer of one that is lost
        self.attempt = -1
        self.ranks: dict[str, list[int]] = {}
        self.looks: dict[int, int] = {}
        self.ended: dict[str, list[dict[str, Any]]] = {}
        self.signalled = 0
        self.asked: list[str] = []

    def place(self, count: int) -> list[Place]:
        self.there = [each for each in self.there if each not in self.lost]
        while self.spare and len(self.there) < count:
            self.there.append(self.spare.pop(0))
        return [Place(each, each) for each in self.there[:count]]

    def ask(self, requests: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any] | None]:
        self.asked += [request["do"] for request in requests.values()]
        return {number: self._answer(self.there[number], dict(request)) for number, request in requests.items()}

    def _answer(self, machine: str, request: dict[str, Any]) -> Mapping[str, Any] | None:
        if machine in self.lost:
            return self.why
        answer: Mapping[str, Any] = getattr(self, f"_{request.pop('do')}")(machine, **request)
        return self.why if machine in self.lost else answer

    def _store(self, machine: str, address: str) -> Mapping[str, Any]:
        assert address in (machine, "127.0.0.1")
        return {"port": 1234}

    def _start(self, machine: str, ranks: list[int], variables: Mapping[str, str], interface: str) -> Mapping[str, Any]:
        assert variables["LOCAL_WORLD_SIZE"] == str(len(ranks))
        assert interface in (machine, "127.0.0.1")
        self.attempt = int(variables["TORCHELASTIC_RESTART_COUNT"])
        self.ranks[machine], self.ended[machine] = list(ranks), []
        self.looks.update(dict.fromkeys(ranks, 0))
        return {}

    def _look(self, machine: str) -> Mapping[str, Any]:
        beats = {}
        for rank in list(self.ranks.get(machine, [])):
            self.looks[rank] += 1
            deed = self.deeds.get((self.attempt, rank, self.looks[rank]))
            if deed == "lose":
                self.lost.add(machine)
                return {}
            if deed or self.signalled or self.looks[rank] > STEPS or self._peer_is_gone():
                self._end(machine, rank, deed)
            else:
                beats[str(rank)] = [self.looks[rank], self.looks[rank], COMPUTING]
        ends, self.ended[machine] = self.ended.get(machine, []), []
        return {"ends": ends, "beats": beats, "stopped": [], "stages": [["train", 0.5]] if beats else []}

    def _peer_is_gone(self) -> bool:
        deeds = [(rank, look) for (attempt, rank, look) in self.deeds if attempt == self.attempt]
        return any(self.looks.get(rank, 0) >= look for rank, look in deeds)

    def _end(self, machine: str, rank: int, deed: str | None) -> None:
        self.ranks[machine].remove(rank)
        end = {"rank": rank, "code": 0, "error": {}, "why": "", "ago_s": 0.0}
        if self.signalled:
            end |= {"code": ORDERLY, "error": STOPPED}
        elif deed == "kill":
            end |= {"code": -9, "why": "was killed by SIGKILL"}
        elif deed == "fail":
            end |= {"code": 1, "error": ERROR}
        elif self._peer_is_gone():
            end |= {"code": 1, "error": LOST_PEER, "ago_s": 1.0, "why": "lost its connection to the others"}
        self.ended[machine].append(end)

    def _signal(self, machine: str, number: int) -> Mapping[str, Any]:
        self.signalled = number
        return {}

    def _kill(self, machine: str) -> Mapping[str, Any]:
        self.ranks[machine] = []
        return {}

    def shown(self) -> str:
        return f"{len(self.there)} nodes"

    def wanted(self) -> str:
        return "2 CPU"


def run(cluster: Cluster, stop_after: int = 0, **declared: Any) -> tuple[bool, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    conductor = Conductor(
        "run", Distributed(**{"processes": 2, "machines": 2, "restarts": 1} | declared), cluster,
        lambda **what: said.append(what),
        lambda: signal.SIGTERM if stop_after and cluster.asked.count("look") > stop_after else 0,
        wait_s=0.05, look_s=0.001,
    )  # fmt: skip
    return conductor.run(), [each for each in said if "stage" not in each and "step" not in each]


def started(size: int, attempt: int) -> dict[str, Any]:
    return {"started": size, "attempt": attempt}


def lost(rank: int, why: str, size: int, before: int = 4) -> dict[str, Any]:
    return {"lost": rank, "why": why, "size": size, "before": before, "printed": ""}


def test_ranks_are_laid_out_by_machine_and_all_end_well() -> None:
    cluster = Cluster("a", "b", deeds={})
    assert run(cluster) == (True, [started(4, 0)])
    assert set(cluster.looks) == {0, 1, 2, 3}


def test_a_killed_rank_is_the_cause_although_its_peers_failed_first_and_all_start_again() -> None:
    done, said = run(Cluster("a", "b", deeds={(0, 3, 2): "kill"}))
    assert done
    assert said == [started(4, 0), lost(3, "on machine b was killed by SIGKILL", 4), started(4, 1)]


@pytest.mark.parametrize(
    ("why", "said"), [(None, ""), ({"lost": "its memory was used up"}, ": its memory was used up")]
)
def test_a_lost_machine_is_named_and_replaced_by_another_one(why: Mapping[str, str] | None, said: str) -> None:
    cluster = Cluster("a", "b", spare=["c"], deeds={(0, 2, 2): "lose"})
    cluster.why = why
    done, told = run(cluster)
    assert done
    assert told == [started(4, 0), lost(2, f"was lost with its machine b{said}", 4), started(4, 1)]
    assert cluster.there == ["a", "c"]


def test_a_signal_while_machines_are_waited_for_starts_none() -> None:
    cluster = Cluster("a", deeds={})
    assert run(cluster, stop_after=2) == (False, [{"stopped": signal.SIGTERM, "what": "", "preempted": False}])
    cluster = Cluster("a", "b", deeds={(0, 2, 2): "lose"})
    done, said = run(cluster, stop_after=10)
    assert not done
    assert said[-1]["stopped"] == signal.SIGTERM
    assert [each["attempt"] for each in said if "started" in each] == [0]


def test_without_another_machine_as_many_go_on_as_there_is_room_for() -> None:
    done, said = run(Cluster("a", "b", deeds={(0, 0, 2): "lose"}), at_least=2)
    assert done
    assert said == [
        started(4, 0),
        lost(0, "was lost with its machine a, and the cluster has 1 nodes", 2),
        started(2, 1),
    ]


def test_without_another_machine_and_with_all_needed_that_is_the_end() -> None:
    done, said = run(Cluster("a", "b", deeds={(0, 0, 2): "lose"}))
    assert not done
    assert said[-1] == lost(0, "was lost with its machine a, and the cluster has 1 nodes", 0)


def test_parts_that_belong_together_are_not_torn_apart() -> None:
    cluster = Cluster("a", "b", deeds={(0, 0, 2): "lose"})
    done, said = run(cluster, processes=3, shard=2, at_least=2)
    assert done
    assert [each.get("started") for each in said if "started" in each] == [6, 2]


def test_machines_that_stay_are_asked_while_the_cluster_looks_for_another_one() -> None:
    cluster = Cluster("a", "b", deeds={(0, 2, 2): "lose"})
    run(cluster)
    last = len(cluster.asked) - cluster.asked[::-1].index("kill")
    assert "look" in cluster.asked[last:]


def test_an_error_ends_all_and_is_not_tried_again() -> None:
    cluster = Cluster("a", "b", deeds={(0, 1, 2): "fail"})
    done, said = run(cluster)
    assert not done
    assert said[1:] == [{"failed": {**ERROR, "where": "on machine a ", "rank": 1, "size": 4}}]


def test_a_signal_reaches_the_ranks_of_all_machines() -> None:
    cluster = Cluster("a", "b", deeds={})
    done, said = run(cluster, stop_after=4)
    assert not done
    assert said[1:] == [{"stopped": signal.SIGTERM, "what": "checkpoint 3 is written", "preempted": False}]
    assert cluster.ranks == {"a": [], "b": []}


def test_no_room_is_said_with_what_was_asked_and_what_is_there() -> None:
    with pytest.raises(Unavailable, match=r"no room for 2 x 2 CPU: 1 of 2 came within 0\.05 s\. It has 1 nodes\."):
        run(Cluster("a", deeds={}))


def test_a_machine_that_cannot_start_its_ranks_is_named() -> None:
    class Full(Cluster):
        def _start(self, machine: str, **_: Any) -> Mapping[str, Any]:
            return {"failed": "No space left on device"}

    with pytest.raises(MainspringError, match="Machine a: No space left on device"):
        run(Full("a", "b", deeds={}))


def test_a_rank_that_hangs_on_one_machine_is_told_from_those_that_wait_on_another() -> None:
    class Hangs(Cluster):
        hung: list[int] = []

        def _look(self, machine: str) -> Mapping[str, Any]:
            if self.attempt or self.hung:
                return super()._look(machine)
            phase = COMPUTING if machine == "b" else WAITING
            return {"ends": [], "beats": {str(each): [1, 7, phase] for each in self.ranks[machine][:1]}, "stopped": [],
                    "stages": []}  # fmt: skip

        def _hang(self, machine: str, rank: int, why: str) -> Mapping[str, Any]:
            self.hung.append(rank)
            self.deeds[0, rank, 0] = "kill"
            self.ranks[machine].remove(rank)
            self.ended[machine].append({"rank": rank, "code": -9, "error": {}, "why": why, "ago_s": 0.0})
            return {}

    cluster = Hangs("a", "b", deeds={})
    done, said = run(cluster, silence_s=0.05)
    assert done
    assert cluster.hung == [2]
    assert said[1] == lost(2, "on machine b told nothing for 0.05 s after step 7", 4)
