"""Machines that a Ray cluster gives to a training: an actor on each, whose process of ours forks the ranks.

The project's folder and its state folder have the same paths on every node of the cluster.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mainspring.core.errors import Invalid, MainspringError, Unavailable
from mainspring.core.files import write_atomic
from mainspring.core.locks import FileLocks
from mainspring.training.distributed.asking import MACHINES_LOG, MachineProcess
from mainspring.training.distributed.conducting import Place
from mainspring.training.distributed.ports import DECLARED, OWNER
from mainspring.training.distribution import Distributed

_ANSWER_S = 15.0  # for a machine to answer; one that does not is lost
_START_S = 300.0  # the same for its first answer: it imports PyTorch, from a slow disk perhaps
_PING_S = 1.0
_LOOK = json.dumps({"do": "look"})
_READY_S = 0.5
_OF_MEMORY = re.compile(r"Memory on the node .*? was (.*used / \S+)")  # why Ray has ended an actor, in its error


class _Machine:
    """A machine's process, in an actor on it. Ray sends this class by its name, and texts and numbers."""

    def __init__(self, entry: str, folder: str, owner: str, threads: int, at: str, request: str | None) -> None:
        self._process: MachineProcess | None = None
        self._folder = Path(folder)
        self._apart = request is not None and not (self._folder / DECLARED).exists()
        if self._apart and request is not None:
            at = str(Path.cwd())  # Ray's copy of the project
            self._prepare(owner, import_module(entry).moved(request, self._folder, Path.cwd()))
        if self._owner() == owner:
            self._process = MachineProcess(entry, self._folder, owner, threads, Path(at))

    def _owner(self) -> str:
        try:
            return (self._folder / OWNER).read_text()
        except OSError:
            return ""

    def _prepare(self, owner: str, request: str) -> None:
        """Make the folder of the job on this node, unless another machine of the job on the same node did."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLocks(self._folder.parent / "locks").hold(self._folder.name, wait_s=_READY_S * 60):
            if self._owner() == owner:
                return
            for path in self._folder.iterdir():
                if path.is_file():
                    path.unlink()
            (self._folder / "request.json").write_text(request, encoding="utf-8")
            (self._folder / OWNER).write_text(owner)

    def files(self) -> dict[str, bytes]:
        """Return the files that ranks have written in a folder that the launcher does not see."""
        if not self._apart:
            return {}
        found = {path.name: path for path in self._folder.iterdir() if path.is_file()}
        ours = (OWNER, "request.json", MACHINES_LOG)
        return {name: path.read_bytes() for name, path in found.items() if name not in ours}

    def where(self) -> tuple[str, str, bool]:
        """Return the node's name, its address, and whether it sees the folder of the job."""
        node = ray.get_runtime_context().get_node_id()
        return f"{platform.node()}/{node[:8]}", ray.util.get_node_ip_address(), self._process is not None

    def answer(self, request: str) -> str:
        return self._process.answer(request) if self._process is not None else ""


@dataclass(slots=True)
class _Slot:
    """A machine: its bundle of the placement group, its actor, and its place once it is ready."""

    bundle: int
    actor: Any
    where: Any
    place: Place | None = None
    first: Any = None  # its first answer, until it has come
    lost: bool = False


class RayMachines:
    """`Machines` of the cluster that this process is connected to.

    Args:
        folder: Folder of the job, with the name of its owner and the request.
        cpus: Processors of one rank.
        gpus: GPUs of one rank; `None`: one if the cluster has them for all, else none.
        apart: Whether nodes that do not see the folder have one of their own, with Ray's copy of the project.
    """

    def __init__(
        self, entry: str, folder: Path, owner: str, distributed: Distributed, *, cpus: int, gpus: int | None,
        apart: bool = False,
    ) -> None:  # fmt: skip
        request = (folder / "request.json").read_text(encoding="utf-8") if apart else None
        self._folder, self._given = folder, (entry, str(folder), owner, cpus, str(Path.cwd()), request)
        count, each = distributed.machines, distributed.processes
        if gpus is None:
            gpus = int(sum(_of(node, "GPU") >= each for node in _nodes()) >= count)
        self._bundle = {"CPU": cpus * each, **({"GPU": gpus * each} if gpus else {})}
        self._group = placement_group([self._bundle] * count, strategy="SPREAD" if count > 1 else "PACK")
        self._slots: list[_Slot] = []

    def place(self, count: int) -> Sequence[Place]:
        self._slots = [slot for slot in self._slots if not slot.lost]
        free = sorted(set(range(count)) - {slot.bundle for slot in self._slots})
        self._slots += [self._slot(bundle) for bundle in free]
        if waiting := [slot for slot in self._slots if slot.place is None]:
            ready, _ = ray.wait([slot.where for slot in waiting], num_returns=len(waiting), timeout=_READY_S)
            for slot in waiting:
                if slot.where in ready:
                    self._take(slot)
        self._slots.sort(key=lambda slot: slot.lost or slot.place is None)  # stable: those that stay keep their order
        return [slot.place for slot in self._slots if slot.place is not None and not slot.lost]

    def _slot(self, bundle: int) -> _Slot:
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
        options = {"num_cpus": self._bundle["CPU"], "num_gpus": self._bundle.get("GPU", 0)}
        make: Any = ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy=strategy, **options)(_Machine)
        actor = make.remote(*self._given)
        return _Slot(bundle, actor, actor.where.remote())

    def _take(self, slot: _Slot) -> None:
        try:
            name, address, sees = ray.get(slot.where)
        except ray.exceptions.RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                raise _broken(error) from None
            slot.lost = True
            return
        except ray.exceptions.RayError as error:
            raise _broken(error) from None
        slot.place, slot.first = Place(name, address), slot.actor.answer.remote(_LOOK)
        if not sees:
            raise Invalid(
                f"Node {slot.place} of the Ray cluster does not see the folder {self._folder}.",
                fix='name a place for checkpoints that all nodes see, checkpoints = "s3://bucket/prefix", and Ray '
                "copies the project; or give the profile a folder, `state`, that all nodes mount at the same path.",
            )

    def ask(self, requests: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any] | None]:
        self._warm()
        asked = {
            number: self._slots[number].actor.answer.remote(json.dumps(request))
            for number, request in requests.items()
            if not self._slots[number].lost
        }
        answered: Sequence[Any] = []
        if asked:
            answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        found: dict[int, Mapping[str, Any] | None] = dict.fromkeys(requests)
        for number, reference in asked.items():
            text, why = _got(reference) if reference in answered else ("", f"it gave no answer in {_ANSWER_S:g} s")
            if text:
                found[number] = json.loads(text)
            else:
                self._lose(self._slots[number])
                found[number] = {"lost": why} if why else None
        return found

    def _warm(self) -> None:
        """Wait until the processes of new machines have started; others hear that they are not forgotten."""
        until = time.monotonic() + _START_S
        while starting := [slot for slot in self._slots if slot.first is not None and not slot.lost]:
            ready, _ = ray.wait([slot.first for slot in starting], num_returns=len(starting), timeout=_PING_S)
            for slot in starting:
                if slot.first in ready:
                    if not _got(slot.first)[0]:
                        self._lose(slot)
                    slot.first = None
                elif time.monotonic() > until:
                    self._lose(slot)
            for slot in self._slots:
                if slot.place is not None and slot.first is None and not slot.lost:
                    slot.actor.answer.remote(_LOOK)

    def _lose(self, slot: _Slot) -> None:
        slot.lost = True
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(slot.actor)

    def bring(self) -> None:
        """Copy what ranks have written elsewhere to the folder of the job."""
        asked = [slot.actor.files.remote() for slot in self._slots if slot.place is not None and not slot.lost]
        if not asked:
            return
        for answered in ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)[0]:
            with suppress(ray.exceptions.RayError):
                for name, content in ray.get(answered).items():
                    write_atomic(self._folder / Path(name).name, content)

    def shown(self) -> str:
        nodes = [f"{node['NodeManagerAddress']} with {_amounts(node.get('Resources', {}))}" for node in _nodes()]
        free = dict(ray.available_resources())
        if placement_group_table(self._group).get("state") == "CREATED":  # what this training has is free for it
            for kind, amount in self._bundle.items():
                free[kind] = free.get(kind, 0.0) + amount * self._group.bundle_count
        return f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}: {', '.join(nodes)}; {_amounts(free)} are free"

    def wanted(self) -> str:
        return _amounts(self._bundle)

    def close(self) -> None:
        """Give the machines back; what runs there ends."""
        with suppress(ray.exceptions.RayError, ValueError):
            for slot in self._slots:
                ray.kill(slot.actor)
            remove_placement_group(self._group)


def _got(answer: Any) -> tuple[str, str]:
    """Return an answer that has come; of a machine that is lost an empty text, and why, if Ray says it."""
    try:
        return str(ray.get(answer)), ""
    except ray.exceptions.RayError as error:
        used = _OF_MEMORY.search(str(error))
        return "", f"Ray ended it, for the node's memory was {used[1]}" if used else ""


def _nodes() -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _of(node: Mapping[str, Any], kind: str) -> int:
    return int(node.get("Resources", {}).get(kind, 0))


def _amounts(resources: Mapping[str, float]) -> str:
    """Return amounts as `4 CPU and 1 GPU`."""
    named = [f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if kind == "CPU" or resources.get(kind)]
    return " and ".join(named)


def _broken(error: Exception) -> MainspringError:
    told = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return Unavailable(
        f"A node of the Ray cluster cannot start a machine's process: {told[-1].strip()}",
        fix="install the same mainspring there, with the extras torch and ray.",
    )
