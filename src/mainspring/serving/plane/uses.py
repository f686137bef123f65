"""Counts of what each endpoint, version and caller had of a gateway process, for its costs.

Plain numbers of the event loop, told in a file of the process while they change, which the worker reads: a request
takes no lock and writes nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mainspring.security.model import Principal

FOLDER = "usage"
_EVERY_S = 1.0
_REST = 1000  # times as long as the event loop was kept
_MOST_CALLERS = 4096  # of a version; further ones are counted together
_UNKNOWN = ""


class Had(msgspec.Struct):
    """Requests of a caller that were answered or refused, since the process began. Bytes are those of bodies."""

    requests: int = 0
    rows: int = 0
    received: int = 0
    sent: int = 0
    prompt: int = 0
    completion: int = 0
    micros: int = 0
    teams: tuple[str, ...] = ()


class LaneUses(msgspec.Struct):
    """Counts of one version behind an endpoint, or of a language model.

    Attributes:
        loop_us: Time that its model and its reads kept the event loop. `thread_us`: threads and other processes.
        memory: Bytes of its model now.
        callers: Id of the caller -> what it had.
        caller, its: The last one, and what it had.
    """

    loop_us: float = 0.0
    thread_us: float = 0.0
    memory: int = 0
    callers: dict[str, Had] = {}
    caller: Principal | None = None
    its: Had | None = None

    def of(self, caller: Principal | None) -> Had:
        """Return the counts of a caller, which the groups pay for that it is in now."""
        id = _UNKNOWN if caller is None else caller.id
        found = self.callers.get(id)
        if found is None:
            if len(self.callers) >= _MOST_CALLERS:
                return self.callers.setdefault(_UNKNOWN, Had())
            found = self.callers[id] = Had()
        if caller is not None:
            found.teams = tuple(sorted(caller.groups))
        self.caller, self.its = caller, found
        return found

    def answered(self, caller: Principal | None, rows: int, received: int, sent: int) -> None:
        """Count a request that is answered."""
        its = self.its
        if its is None or caller is not self.caller:
            its = self.of(caller)
        its.requests += 1
        its.rows += rows
        its.received += received
        its.sent += sent

    def refused(self, caller: Principal | None) -> None:
        """Count a request that is refused, or that failed."""
        self.of(caller).requests += 1


class LaneCounts(msgspec.Struct):
    """Counts of a lane as they are told: of an endpoint, or of a language model without a version."""

    endpoint: str
    version: str
    model: str
    uses: LaneUses


class ProcessCounts(msgspec.Struct):
    """Counts of a process.

    Attributes:
        started: Start of it, which tells it from another with its id.
        loop_s, all_s: Processor time of its first thread, and of all of it, until it began to serve.
    """

    pid: int
    started: int
    lanes: list[LaneCounts]
    loop_s: float = 0.0
    all_s: float = 0.0


class Uses:
    """Counts of one process.

    Args:
        folder: Where its file is; `None` for none.
        started: Start of this process, UTC epoch microseconds.
    """

    def __init__(self, folder: Path | None, started: int) -> None:
        self._path = None if folder is None else folder / f"{os.getpid()}-{started}.json"
        self._started = started
        self._lanes: dict[tuple[str, str, str], LaneUses] = {}
        self._told = b""
        self._begun = (0.0, 0.0)
        self._task: asyncio.Task[None] | None = None
        self.memory: Callable[[], Mapping[tuple[str, str], int]] = dict  # (endpoint, version) -> bytes of its model

    def lane(self, endpoint: str, version: str, model: str) -> LaneUses:
        """Return the counts of a version behind an endpoint."""
        return self._lanes.setdefault((endpoint, version, model), LaneUses(callers={}))

    def start(self) -> None:
        """Begin to tell the counts. Call it in the event loop's thread."""
        self._begun = time.thread_time(), time.process_time()
        if self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._task = asyncio.create_task(self._tell_often())

    async def stop(self) -> None:
        """Tell the last counts."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self._tell()

    async def _tell_often(self) -> None:
        kept_s = 0.0
        while True:
            await asyncio.sleep(max(_EVERY_S, _REST * kept_s))
            kept_s = await self._tell()

    async def _tell(self) -> float:
        """Write the counts if they changed. Returns for how long that kept the event loop, seconds."""
        begun = time.perf_counter()
        sizes = self.memory()
        for (endpoint, version, _), uses in self._lanes.items():
            uses.memory = sizes.get((endpoint, version), 0)
        lanes = [
            LaneCounts(*key, LaneUses(uses.loop_us, uses.thread_us, uses.memory, uses.callers))
            for key, uses in self._lanes.items()
        ]
        content = msgspec.json.encode(ProcessCounts(os.getpid(), self._started, lanes, *self._begun))
        kept_s = time.perf_counter() - begun
        if content != self._told and self._path is not None:
            with suppress(OSError):  # a full disk: the counts grow until there is room
                await asyncio.to_thread(_replace, self._path, content)
                self._told = content
        return kept_s


def _replace(path: Path, content: bytes) -> None:
    """Write a file that a reader sees whole; it need not outlive the machine's fall, as the process does not."""
    beside = path.with_suffix(".partial")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)


def told(folder: Path) -> Iterator[tuple[Path, ProcessCounts]]:
    """Yield the counts of processes, those that ended included, with their files."""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, msgspec.MsgspecError):
            yield path, msgspec.json.decode(path.read_bytes(), type=ProcessCounts)
