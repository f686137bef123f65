"""Coordination of the gateway's processes: each has a slot, a number that its successor takes over.

A process answers on a Unix socket named after its slot: whether it is ready, and its numbers in Prometheus' text.
Whichever is scraped asks the others and labels each with its slot. So a scrape shows all, as they are now, nothing is
written while nobody asks, and there are never more sockets or series than slots, however often a process was started
again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mainspring.core.errors import Conflict

_ANSWER_WITHIN_S = 0.25
_LONGEST_PATH = 100  # bytes; the kernel's limit for a socket's path is 104 or 108
_UP = b"mainspring_gateway_worker_up"
_READY, _UNREADY = b"ready\n", b"unready\n"


def folder(state: Path) -> Path:
    """Return where the sockets of a project are."""
    return state / "slots"


class Slots:
    """One process's place among `count`.

    Args:
        place: Private folder of the sockets; made if missing.
        slot: This process's number, from 0.
        labels: Further labels of every sample.
    """

    def __init__(self, place: Path, slot: int = 0, count: int = 1, labels: Mapping[str, str] | None = None) -> None:
        self._labels = labels or {}
        self._folder = place
        self._slot = slot
        self._count = count
        self._own: Callable[[], bytes] = bytes
        self._ready: Callable[[], bool] = bool
        self._server: asyncio.Server | None = None

    async def start(self, own: Callable[[], bytes], ready: Callable[[], bool]) -> None:
        """Tell the others `own()`, and the supervisor `ready()`, in the place of a dead predecessor.

        Raises:
            Conflict: A process in this slot is alive.
        """
        self._own, self._ready = own, ready
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _Reach(self._folder) as reach:
            if await _ask(reach.path(self._slot)):
                raise Conflict(
                    f"The gateway's slot {self._slot} is in use by another process.",
                    fix="stop it, or choose another with --slot.",
                )
            self._server = await asyncio.start_unix_server(self._answer, reach.path(self._slot))

    async def stop(self) -> None:
        """Release the slot: its socket disappears, so the supervisor assigns no more connections to this process."""
        if self._server is None:
            return
        self._server.close()
        await self._server.wait_closed()
        self._server = None
        (self._folder / f"gateway-{self._slot}.sock").unlink(missing_ok=True)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write((_READY if self._ready() else _UNREADY) + self._own())
            await writer.drain()
        except ConnectionError:  # whoever asked is gone
            pass
        finally:
            writer.close()

    async def scrape(self) -> bytes:
        """Return the numbers of every process, and which of them answered."""
        with _Reach(self._folder) as reach:
            others = [slot for slot in range(self._count) if slot != self._slot]
            texts = await asyncio.gather(*(_ask(reach.path(slot)) for slot in others))
        found = dict(zip(others, texts, strict=True)) | {self._slot: self._own()}
        up = [b'%s{slot="%d"} %d\n' % (_UP, slot, bool(found[slot])) for slot in sorted(found)]
        heading = b"# HELP %s Whether a gateway process answers.\n# TYPE %s gauge\n" % (_UP, _UP)
        every = merged({slot: text for slot, text in sorted(found.items()) if text})
        return labelled(heading + b"".join(up) + every, self._labels)


def merged(texts: Mapping[int, bytes]) -> bytes:
    """Return one exposition of several, each sample labelled with its slot.

    The text format wants a family's samples together, under one heading.
    """
    families: dict[bytes, list[bytes]] = {}
    for slot, text in texts.items():
        label = b'slot="%d"' % slot
        family: list[bytes] = []
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                fresh = line not in families
                family = families.setdefault(line, [line])
            elif line.startswith(b"#"):
                if fresh:
                    family.append(line)
            elif line:
                family.append(_labelled(line, label))
    return b"".join(line + b"\n" for family in families.values() for line in family)


def labelled(text: bytes, labels: Mapping[str, str]) -> bytes:
    """Return an exposition with labels at every sample; their values need no escapes."""
    for name, value in labels.items():
        label = f'{name}="{value}"'.encode()
        lines = text.splitlines()
        text = b"".join((_labelled(line, label) if line[:1] not in b"#" else line) + b"\n" for line in lines)
    return text


def _labelled(sample: bytes, label: bytes) -> bytes:
    name, brace, rest = sample.partition(b"{")
    if brace:
        return name + b"{" + label + b"," + rest
    name, _, value = sample.partition(b" ")
    return name + b"{" + label + b"} " + value


def ready(place: Path, slot: int) -> bool | None:
    """Return whether the process in the slot takes traffic; `None` if none answers within a second. Blocks."""
    said = _said(place, slot)
    return None if said is None else {_READY: True, _UNREADY: False}.get(said.partition(b"\n")[0] + b"\n")


def silent(place: Path, slot: int, within_s: float) -> bool:
    """Return whether a process in the slot takes a question and does not begin to answer in time. Blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(within_s)
        try:
            with _Reach(place) as reach:
                asked.connect(reach.path(slot))
            asked.recv(1)
        except (TimeoutError, BlockingIOError):  # the latter: as many questions wait as the socket takes
            return True
        except OSError:
            return False
        return False


def _said(place: Path, slot: int) -> bytes | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(1.0)
        try:
            with _Reach(place) as reach:
                asked.connect(reach.path(slot))
            with asked.makefile("rb") as said:
                return said.read()
        except OSError:
            return None


def numbers(place: Path) -> dict[int, bytes]:
    """Return slot -> the numbers of every process that answers, in Prometheus' text. Blocks, up to a second each."""
    found = {}
    for path in place.glob("gateway-*.sock"):
        slot = path.stem.partition("-")[2]
        if slot.isdigit() and (text := _said(place, int(slot))) is not None:
            found[int(slot)] = text.partition(b"\n")[2]
    return dict(sorted(found.items()))


def given_up(place: Path, slot: int) -> bool:
    """Return whether the process in the slot has released it, because it ends. Costs one system call."""
    return not (place / f"gateway-{slot}.sock").exists()


async def _ask(path: str) -> bytes:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                await reader.readline()
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


class _Reach:
    """Paths of the sockets that the kernel takes, however deep the folder is; valid inside the block."""

    def __init__(self, place: Path) -> None:
        self._folder = str(place)
        self._descriptor: int | None = None

    def __enter__(self) -> _Reach:
        longest = len(os.fsencode(f"{self._folder}/gateway-999.sock"))
        if longest > _LONGEST_PATH and sys.platform == "linux":
            self._descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._folder = f"/proc/self/fd/{self._descriptor}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def path(self, slot: int) -> str:
        return f"{self._folder}/gateway-{slot}.sock"
