"""Process that starts the ranks of one of several machines, and answers how they are.

`python -m mainspring.training.distributed.machine ENTRY FOLDER OWNER THREADS ASKED TELL`

Requests come and answers go as lines of JSON, over two file descriptors. Who asks decides; see `conducting`. Ranks end
with this process. It ends when nobody has asked for half a minute, and when the folder has another owner: ranks that
their launcher cannot reach any more must not write checkpoints beside those of the next one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from torch.distributed import TCPStore

from mainspring.core.errors import MainspringError
from mainspring.training.distributed.ends import End
from mainspring.training.distributed.ports import OWNER
from mainspring.training.distributed.ranks import Ranks

_LEASE_S = 30.0
_LOOK_S = 1.0  # for another owner
_WAIT_S = 60.0  # of ranks for their store
_MOST_TOLD = 1 << 16  # bytes of stages read at once


class Machine:
    """Ranks of this machine, and the store where all ranks meet, if they meet here."""

    def __init__(self, entry: str, folder: Path, threads: int) -> None:
        self._telling, self._tell = os.pipe()  # of the first rank
        os.set_blocking(self._telling, False)
        os.set_blocking(self._tell, False)
        self.ranks = Ranks(entry, folder, threads, self._told)
        self._store: Any = None
        self._deeds: Mapping[str, Callable[..., Mapping[str, Any]]] = {
            "store": self._meet,
            "start": self._start,
            "look": self._look,
            "hang": self._hang,
            "signal": self._signal,
            "kill": self._kill,
        }

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what `request["do"]` names, with its other values as arguments."""
        given = dict(request)
        return self._deeds[given.pop("do")](**given)

    def _meet(self, address: str) -> Mapping[str, Any]:
        """Open a store for the next attempt on one address of this machine."""
        listening = socket.create_server((address, 0))  # the store itself would listen on every interface
        port = listening.getsockname()[1]
        self._store = TCPStore(
            address, port, 1, True, timedelta(seconds=_WAIT_S), False, master_listen_fd=listening.detach()
        )
        return {"port": port}

    def _start(self, ranks: list[int], variables: Mapping[str, str], interface: str) -> Mapping[str, Any]:
        found = _interface_of(interface)
        usual = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), found) if found is not None else {}
        self.ranks.start({rank: number for number, rank in enumerate(ranks)}, variables, usual)
        return {}

    def _look(self) -> Mapping[str, Any]:
        self.ranks.reap()
        now, ends, self.ranks.ends = time.monotonic(), self.ranks.ends, []
        return {
            "ends": [_shown(end, now) for end in ends],
            "beats": {rank: astuple(beat) for rank, beat in self.ranks.beats().items()},
            "stopped": [rank for rank, stopped in self.ranks.stopped().items() if stopped],
            "stages": self._stages(),
        }

    def _hang(self, rank: int, why: str) -> Mapping[str, Any]:
        if rank in self.ranks.running:
            self.ranks.end_hanging(rank, why)
        return {}

    def _signal(self, number: int) -> Mapping[str, Any]:
        self.ranks.signal_all(number)
        return {}

    def _kill(self) -> Mapping[str, Any]:
        self.ranks.kill_all()
        self._store = None
        return {}

    def _told(self, stage: str, share: float) -> None:
        """Tell of a stage, in the first rank's process. One that the pipe does not hold is left out."""
        try:
            os.write(self._tell, json.dumps([stage[:200], share]).encode() + b"\n")
        except BlockingIOError:
            return

    def _stages(self) -> list[Any]:
        try:
            lines = os.read(self._telling, _MOST_TOLD).splitlines()
        except BlockingIOError:
            return []
        return [json.loads(line) for line in lines]


def _shown(end: End, now: float) -> Mapping[str, Any]:
    """Return an end for another machine, whose clock is another one."""
    return {"rank": end.rank, "code": end.code, "error": end.error, "why": end.why, "ago_s": max(0.0, now - end.at)}


def _interface_of(address: str) -> str | None:
    """Return the network interface that has an address, or "lo" for all of loopback; `None` if none has it."""
    if address.startswith("127."):
        return "lo" if sys.platform == "linux" else None
    every = import_module("psutil").net_if_addrs()
    return next((name for name, each in every.items() if any(one.address == address for one in each)), None)


def _asked(requests: IO[bytes], file: Path, owner: str) -> bool:
    """Return whether a request has come, once it is known that one comes or none will."""
    until = time.monotonic() + _LEASE_S
    while time.monotonic() < until and _has(file, owner):
        if select.select([requests], [], [], _LOOK_S)[0]:
            return True
    return False


def _has(file: Path, owner: str) -> bool:
    try:
        return file.read_text() == owner
    except OSError:
        return False


def main() -> int:
    """Answer until nobody asks any more."""
    entry, folder, owner, threads, asked, tell = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_module("mainspring.training.loop.fit")
    machine = Machine(entry, Path(folder), int(threads))
    try:
        with os.fdopen(int(asked), "rb") as requests, os.fdopen(int(tell), "wb") as answers:
            while _asked(requests, Path(folder) / OWNER, owner) and (line := requests.readline()):
                try:
                    answer = machine.answer(json.loads(line))
                except (MainspringError, OSError) as error:
                    answer = {"failed": str(error)}
                answers.write(json.dumps(answer).encode() + b"\n")
                answers.flush()
    finally:
        machine.ranks.kill_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
