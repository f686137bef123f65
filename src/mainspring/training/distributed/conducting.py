"""Training whose ranks run on several machines of a cluster, watched from one place.

A machine starts, watches and ends its own ranks (`machine`). Which rank failed first, which one hangs and how many go
on is decided here, of all: the rules are those of one machine (`agent`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.training.distributed.ends import End, cause, said_at_stop
from mainspring.training.distributed.silence import Silences
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import OUTSIDE, Beat

_AFTER_S = 1.0  # for the other ranks to end by themselves after the first
_STOP_S = 30.0  # for all ranks to write a checkpoint after a signal
_TELL_EVERY_S = 0.5
_PATIENCE_S = 2.0  # before it is said that the cluster gives no room
_LOOPBACK = "127.0.0.1"

Request = Mapping[str, Any]


def _all(machines: Sequence[object]) -> dict[int, Request]:
    """Return a request without arguments for each machine."""
    return {number: {} for number in range(len(machines))}


@dataclass(frozen=True, slots=True)
class Place:
    """Machine that a cluster has given: its name for people, and its address for the other machines."""

    name: str
    address: str

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


class Machines(Protocol):
    """Machines that a cluster gives to one training. They are numbered as they were given."""

    def place(self, count: int) -> Sequence[Place]:
        """Return those that are ready, at most `count`. Asked for again, the cluster may have more.

        It takes a second at most. Machines that are lost are left out, and others come after those that stay.

        Raises:
            MainspringError: A machine cannot take part.
        """
        ...

    def ask(self, requests: Mapping[int, Request]) -> Mapping[int, Request | None]:
        """Return the answer of `machine.Machine` to each request, by machine's number.

        `None` from one that is lost, or `{"lost": why}` where the cluster knows why.
        """
        ...

    def shown(self) -> str:
        """Return what the cluster has, as `2 nodes: a (4 CPU, 1 free), b (2 CPU, 0 free)`."""
        ...

    def wanted(self) -> str:
        """Return what one machine is asked for, as `2 CPU and 2 GPU`."""
        ...


class Conductor:
    """Conductor of one training.

    Args:
        id: Id of the run.
        say: Called with what a launcher hears from an agent; see `hearing`.
        stopping: Number of a signal that has come, or 0.
        wait_s: Time for the cluster to give machines.
        look_s: Time between two looks at the ranks.
    """

    def __init__(
        self, id: str, distributed: Distributed, machines: Machines, say: Callable[..., object],
        stopping: Callable[[], int], *, wait_s: float, look_s: float = 0.1,
    ) -> None:  # fmt: skip
        self._id, self._distributed, self._machines, self._say = id, distributed, machines, say
        self._stopping, self._wait_s, self._look_s = stopping, wait_s, look_s
        self._silences = Silences(distributed.silence_s)
        self._places: Sequence[Place] = []
        self._ranks: list[range] = []  # of each machine
        self._running: set[int] = set()
        self._stopped: dict[int, bool] = {}  # ranks of which a signal has stopped the process
        self._beats: dict[int, Beat] = {}
        self._ends: list[End] = []
        self._attempt = 0
        self._looked = self._told = time.monotonic()

    def run(self) -> bool:
        """Train, and return whether all ranks ended well; if they did not, all has been said.

        Raises:
            MainspringError: The cluster has no room, or a machine cannot take part.
        """
        size, restarts = self._distributed.size, self._distributed.restarts
        if self._room(size) < size:
            if not self._stopping():
                raise self._no_room()
            self._stop(self._stopping())
            return False
        while True:
            self._start(size)
            failed = self._watch()
            if failed is None:
                return True
            if self._stopping() or failed.orderly:
                self._stop(self._stopping() or signal.SIGTERM)
                return False
            self._end_others()
            if not failed.killed and not failed.lost_peer:
                self._say(failed={**failed.error, "rank": failed.rank, "size": size})
                return False
            failed = cause(self._ends, running=False) or failed  # a machine may have been found lost meanwhile
            after, restarts = (size, restarts - 1) if restarts else (self._distributed.fewer(size), 0)
            why = failed.why
            if after and (room := self._room(after)) < after:
                if self._stopping():
                    self._running.clear()
                    self._stop(self._stopping())
                    return False
                after = self._distributed.fewer(room + 1)
                why = f"{why}, and the cluster has {self._machines.shown()}"
            self._say(lost=failed.rank, why=why, size=after, before=size, printed=failed.error.get("printed", ""))
            if not after:
                return False
            size, self._attempt = after, self._attempt + 1

    def _room(self, size: int) -> int:
        """Return for how many ranks there are machines, once it is enough for `size` or the time is over."""
        began, said, self._ranks = time.monotonic(), False, []
        while True:
            self._places = self._machines.place(self._distributed.machines)
            room = len(self._places) * self._distributed.processes
            waited_s = time.monotonic() - began
            if room >= size or self._stopping() or waited_s > self._wait_s:
                return room
            if not said and waited_s > _PATIENCE_S:
                self._say(stage=f"wait for {self._wanted()}; {self._machines.shown()}", share=0.02)
                said = True
            self._ask("look", _all(self._places))  # they must not think that they are forgotten

    def _wanted(self) -> str:
        count = self._distributed.machines
        return f"{count} x {self._machines.wanted()}" if count > 1 else self._machines.wanted()

    def _no_room(self) -> MainspringError:
        within = f"{len(self._places)} of {self._distributed.machines} came within {self._wait_s:g} s"
        return Unavailable(
            f"The cluster has no room for {self._wanted()}: {within}. It has {self._machines.shown()}.",
            fix="ask for fewer processes or machines, wait until others have ended, or give the cluster more nodes.",
        )

    def _start(self, size: int) -> None:
        per = self._distributed.processes
        self._ranks = [range(first, min(size, first + per)) for first in range(0, size, per)]
        self._ends, self._beats, self._stopped, self._running = [], {}, {}, set(range(size))
        self._silences.clear()
        together = len({place.address for place in self._places[: len(self._ranks)]}) == 1
        address = _LOOPBACK if together else self._places[0].address
        self._say(started=size, attempt=self._attempt)
        met = self._ask("store", {0: {"address": address}}).get(0)
        if met is None:
            return  # `_watch` sees it
        variables = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(met["port"]),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(self._attempt),
            "TORCHELASTIC_RUN_ID": self._id,
        }
        requests: dict[int, Request] = {
            number: {
                "ranks": list(ranks),
                "variables": {**variables, "LOCAL_WORLD_SIZE": str(len(ranks))},
                "interface": _LOOPBACK if together else self._places[number].address,
            }
            for number, ranks in enumerate(self._ranks)
        }
        self._ask("start", requests)

    def _watch(self) -> End | None:
        """Return the end of a rank that ended the others, or of any at a signal; `None` once all have ended well."""
        while True:
            self._look()
            if not self._running and all(end.well for end in self._ends):
                return None
            if self._stopping():
                return End(0, 0)
            if (failed := cause(self._ends, running=bool(self._running))) is not None:
                return failed
            self._end_hanging()
            time.sleep(self._look_s)

    def _look(self) -> None:
        for number, answer in self._ask("look").items():
            if answer is None:
                continue
            where = f"on machine {self._places[number]} " if len(self._ranks) > 1 else ""
            for end in answer["ends"]:
                at, why = time.monotonic() - end["ago_s"], f"{where}{end['why']}"
                self._end(End(end["rank"], end["code"], {**end["error"], "where": where}, at, why=why))
            self._beats.update({int(rank): Beat(*beat) for rank, beat in answer["beats"].items()})
            self._stopped.update({int(rank): int(rank) in answer["stopped"] for rank in answer["beats"]})
            for stage, share in answer["stages"]:
                self._say(stage=stage, share=share)
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S and self._beats.get(0, Beat()).phase != OUTSIDE:
            self._told = now
            self._say(step=self._beats[0].step)

    def _end(self, end: End) -> None:
        if end.rank in self._running:
            self._running.remove(end.rank)
            self._beats.pop(end.rank, None)
            self._ends.append(end)

    def _end_hanging(self) -> None:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self._silences.look(self._beats, passed)
        first_ended = any(end.rank == 0 for end in self._ends)
        for rank in self._silences.hanging(self._stopped, first_ended=first_ended):
            number = rank // self._distributed.processes
            why = self._silences.why(self._beats[rank])
            self._ask("hang", {number: {"rank": rank, "why": why}})

    def _ask(self, deed: str, requests: Mapping[int, Request] | None = None) -> Mapping[int, Request | None]:
        """Ask machines, by default those with ranks. The ranks of one that is lost have ended.

        Raises:
            MainspringError: A machine could not do it.
        """
        asked = _all(self._ranks) if requests is None else requests
        answers = dict(self._machines.ask({number: {"do": deed, **request} for number, request in asked.items()}))
        for number, answer in answers.items():
            if answer is None or "lost" in answer:
                said = "" if answer is None else f": {answer['lost']}"
                for rank in self._ranks[number] if number < len(self._ranks) else ():
                    why = f"was lost with its machine {self._places[number]}{said}"
                    self._end(End(rank, -signal.SIGKILL, why=why))
                answers[number] = None
            elif "failed" in answer:
                raise MainspringError(f"Machine {self._places[number]}: {answer['failed']}")
        return answers

    def _end_others(self) -> None:
        """Let ranks that lost a peer end by themselves, for what they have logged to be written; kill the rest."""
        until = time.monotonic() + _AFTER_S
        while self._running and time.monotonic() < until:
            self._look()
            time.sleep(self._look_s)
        self._ask("kill")

    def _stop(self, number: int) -> None:
        """Tell all ranks of a signal, and wait for their end."""
        self._ask("signal", {each: {"number": number} for each in range(len(self._ranks))})
        until = time.monotonic() + _STOP_S
        while self._running and time.monotonic() < until:
            self._look()
            time.sleep(self._look_s)
        self._ask("kill")
        said, preempted = said_at_stop(self._ends)
        self._say(stopped=number, what=said, preempted=preempted)
