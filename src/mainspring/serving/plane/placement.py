"""The device of each model: this processor, or a device of this process with room for it.

A model's bytes on a device are those that were measured there, and its session may take no more, so that a model that
grows fails alone. A model that was never measured gets the room that is free, is measured with its largest batch, and
is opened again within that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from mainspring.core.cards import Use
from mainspring.core.errors import MainspringError, TooLarge, Unavailable
from mainspring.core.time import SystemClock
from mainspring.features.ports import OnlineStore
from mainspring.registry.bundles import GOLDEN, Bundles
from mainspring.registry.model import Bundle
from mainspring.registry.providers import provider_of
from mainspring.serving.devices.device import (
    AUTO,
    CPU,
    CUDA,
    ON_GPUS,
    Device,
    DeviceUnusable,
    kind_of,
    lacks_memory,
    opening,
)
from mainspring.serving.plane.executor import arrays
from mainspring.serving.plane.runtime import Runtime, file_bytes, load, load_resident
from mainspring.serving.ports import DeviceExecutors, Executor, Loader
from mainspring.serving.residency.memory import MAIN, Decisions, Memory, MemoryDecisions, Size, Sizes
from mainspring.serving.residency.residency import Residency
from mainspring.serving.residency.resident import ResidentExecutor

ROWS = 256  # of a batch on a device; larger ones are cut
_MARGIN = 1.1  # of a measured size: the memory of a session is not cut the same way twice
_FIX = (
    "raise `device_memory` in the profile's table `gateway`, name more `devices`, or have fewer `workers` or resident "
    "endpoints."
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a process.

    Attributes:
        executors: Returns what makes models on them; the runtime is imported then.
        find: Returns them, when the first endpoint asks for one; raises `MainspringError` if they cannot be used.
        use: Returns the use of a device's memory by its UUID.
        sizes: What models were measured to take.
        decisions: Returns the log of decisions on a device's models, by its name.
    """

    executors: Callable[[], DeviceExecutors]
    find: Callable[[], Sequence[Device]]
    use: Callable[[str], Use | None]
    sizes: Sizes
    decisions: Callable[[str], Decisions] = lambda _: MemoryDecisions()


class Placement:
    """Loads models where their endpoints want them. Thread-safe.

    Args:
        host: Models on this processor.
        executors: Makes their executors.
    """

    def __init__(
        self, host: Residency, executors: Loader, bundles: Bundles, online: OnlineStore, devices: Devices | None = None
    ) -> None:
        self._host = host
        self._executors = executors
        self._bundles = bundles
        self._online = online
        self._devices = devices
        self._rooms: list[_Room] | None = None
        self._pinned: tuple[Collection[str], Mapping[str, Sequence[str]] | None] = ((), None)
        self._finding = threading.Lock()

    @property
    def residencies(self) -> Mapping[str, tuple[Device, Residency]]:
        """Name -> device that is in use, and its models."""
        return {room.device.name: (room.device, room.residency) for room in self._rooms or () if room.begun}

    def pin(self, digests: Collection[str], users: Mapping[str, Sequence[str]] | None = None) -> None:
        """Let these models never leave; see `Residency.pin`."""
        self._pinned = digests, users
        for residency in (self._host, *(room.residency for room in self._rooms or ())):
            residency.pin(digests, users)

    def stop(self) -> None:
        """Load nothing any more. Idempotent."""
        for residency in (self._host, *(room.residency for room in self._rooms or ())):
            residency.stop()

    def load(self, digest: str, device: str) -> Runtime:
        """Return a bundle, ready on the device that its endpoint asks for.

        Raises:
            DeviceUnusable: It cannot run there. With "auto" it is loaded on this processor then.
            As of `runtime.load_resident`.
        """
        bundle = self._bundles.load(digest)
        sealed = kind_of(provider_of(bundle.manifest))  # a version may be made for a GPU
        if device == CPU and sealed in ON_GPUS:
            return replace(self._on(bundle, sealed), device=CPU)
        if device == CPU:
            return load_resident(bundle, self._online, self._executors, self._host)
        try:
            return replace(self._on(bundle, (sealed or CUDA) if device == AUTO else device), device=device)
        except MainspringError as error:
            if device != AUTO or sealed in ON_GPUS:
                raise
            _log.warning("Bundle %s runs on the processor, not on a GPU: %s", digest[:12], error)
            made = load_resident(bundle, self._online, self._executors, self._host)
            return replace(made, device=AUTO, fallback=error.what)

    def _on(self, bundle: Bundle, kind: str) -> Runtime:
        if self._devices is None:
            raise DeviceUnusable("This process serves from its processor alone.")
        if kind not in ON_GPUS:
            return self._beside(bundle, kind, self._devices)
        rooms = self._found(self._devices)
        failed: MainspringError | None = None
        for room in sorted(rooms, key=lambda room: room.residency.used - room.residency.budget):
            try:
                return room.load(bundle, kind, self._online)
            except MainspringError as error:
                _log.warning("Bundle %s is not loaded on %s: %s", bundle.digest[:12], room.device.name, error)
                failed = failed or error
        raise failed or DeviceUnusable("This process has no GPU.")

    def _beside(self, bundle: Bundle, kind: str, devices: Devices) -> Runtime:
        """Load a model on a device that computes in this machine's memory."""
        nodes: list[Mapping[str, int] | None] = []

        def make(one: Bundle) -> Executor:
            executor = devices.executors().make(one, opening(kind))
            nodes.append(getattr(executor, "nodes", None))
            return executor

        made = self._host.first(
            bundle.digest, file_bytes(bundle), make, lambda loader: load(bundle, self._online, loader),
            again=lambda digest: make(self._bundles.load(digest)),
        )  # fmt: skip
        return replace(made, residency=self._host, runs_on=kind, nodes=nodes[-1])

    def _found(self, devices: Devices) -> list[_Room]:
        with self._finding:
            if self._rooms is None:
                self._rooms = [_Room(each, devices, self._bundles) for each in devices.find()]
                for room in self._rooms:
                    room.residency.pin(*self._pinned)
            return self._rooms


class _Room:
    """The models of one device."""

    def __init__(self, device: Device, devices: Devices, bundles: Bundles) -> None:
        self.device = device
        self.begun = False
        self.residency = Residency(
            Memory(device.memory, _Unkept(), devices.decisions(device.name)), self._unknown,
            where=f"{device.name} in each process", fix=_FIX, measure=lambda work: (work(), 0),
        )  # fmt: skip
        self._devices = devices
        self._bundles = bundles
        self._beginning = threading.Lock()
        self._opening = threading.RLock()  # one at a time: what another takes meanwhile would count as its own

    def load(self, bundle: Bundle, kind: str, online: OnlineStore) -> Runtime:
        """Return the bundle, ready; errors as of `Placement.load`."""
        self._begin(kind)
        place = f"{kind} on {self.device.model}, {self._devices.executors().runtime}"
        known = self._devices.sizes.find(bundle.digest, place)
        known = known if known is not None and known.nbytes > 0 and known.rows > 0 else None
        if known is not None:
            try:
                return self._load(bundle, kind, online, known, known.nbytes)[0]
            except MainspringError as error:
                if not lacks_memory(error.what):
                    raise
                _log.warning("Bundle %s is measured again on %s: %s", bundle.digest[:12], self.device.name, error)
        made, size = self._measured(bundle, kind, online)
        self._devices.sizes.keep(bundle.digest, size, place)
        model = made.executor
        if isinstance(model, ResidentExecutor):
            model.make = lambda digest: self._make(self._bundles.load(digest), kind, size, size.nbytes)
            if kind == CUDA:
                self.residency.renew(model, size.nbytes)
            else:  # TensorRT's memory knows no limit, and another compilation takes minutes
                self.residency.reserve(model, size.nbytes)
        return made

    def _measured(self, bundle: Bundle, kind: str, online: OnlineStore) -> tuple[Runtime, Size]:
        """Load a model of unknown size. If it lacks memory, others leave for it; if they may not, batches shrink."""
        rows, least = ROWS, file_bytes(bundle)
        reserved, full = least, ""
        while True:
            try:
                made, grown = self._load(bundle, kind, online, _size(0, rows), reserved)
            except MainspringError as error:
                lacking = lacks_memory(error.what)
                if not lacking and not (full and isinstance(error, (TooLarge, Unavailable))):
                    raise
                full, more = error.what if lacking else full, min(self.residency.budget, 2 * self._room(reserved))
                if lacking and more > reserved:
                    reserved = more
                elif rows > 1:
                    rows, reserved = rows // 2, least
                else:
                    raise TooLarge(
                        f"The model of bundle {bundle.digest[:12]} does not run in the {self._room(0):,} bytes that "
                        f"{self.device.name} has beside models that stay, even row by row: {full}",
                        fix=_FIX,
                    ) from error
                continue
            nbytes = min(int(max(grown, least) * _MARGIN), self.residency.budget)
            return made, _size(nbytes, rows)

    def _load(self, bundle: Bundle, kind: str, online: OnlineStore, size: Size, reserved: int) -> tuple[Runtime, int]:
        """Return the bundle, and the memory that it took."""
        nodes: list[Mapping[str, int] | None] = []
        grown: list[int] = []

        def make(one: Bundle) -> Executor:
            executor = self._make(one, kind, size, reserved)
            nodes.append(getattr(executor, "nodes", None))
            return executor

        def ready(loader: Loader) -> Runtime:
            with self._opening:
                made, taken = self._growth(lambda: load(bundle, online, loader))
            grown.append(taken)
            return made

        made = self.residency.first(
            bundle.digest, reserved, make, ready,
            again=lambda digest: self._make(self._bundles.load(digest), kind, size, reserved),
        )  # fmt: skip
        on = self.device.name if kind == CUDA else f"{self.device.name} ({kind})"
        return replace(made, residency=self.residency, runs_on=on, nodes=nodes[-1]), grown[-1]

    def _room(self, reserved: int) -> int:
        """Return the bytes that are free of models, with those of one that has reserved some."""
        return max(1, self.residency.budget - self.residency.used + reserved)

    def _make(self, bundle: Bundle, kind: str, size: Size, reserved: int) -> Executor:
        """Return an executor that has taken its memory: by a whole batch, within its size, else within what is free."""
        limit, use = size.nbytes or self._room(reserved), self._devices.use(self.device.uuid)
        if use is not None and use.free < reserved:
            raise Unavailable(
                f"{self.device.name} has {use.free:,} bytes free, and the model of bundle {bundle.digest[:12]} takes "
                f"{reserved:,}: other programs have taken the rest."
            )
        if use is not None:
            limit = min(limit, use.free)
        with self._opening:
            executor = self._devices.executors().make(bundle, opening(kind, self.device, limit, size.rows))
            try:
                _fill(executor, bundle, size.rows)
            except BaseException:
                executor.close()
                raise
        return executor

    def _unknown(self, digest: str) -> Executor:
        raise Unavailable(f"The model of bundle {digest[:12]} has no place on {self.device.name}.")

    def _begin(self, kind: str) -> None:
        """Have the device ready, once; what that takes is not for models."""
        with self._beginning:
            if self.begun:
                return
            _, taken = self._growth(lambda: self._devices.executors().begin(opening(kind, self.device)))
            if taken >= self.device.memory:
                raise DeviceUnusable(
                    f"{self.device.name} has {self.device.memory:,} bytes for each process, and the runtime's own "
                    f"memory there is {taken:,}.",
                    fix=_FIX,
                )
            self.residency.budget = self.device.memory - taken
            self.begun = True
            _log.info(
                "Models have %s bytes of %s (%s)", f"{self.residency.budget:,}", self.device.name, self.device.model
            )

    def _growth(self, work: Callable[[], _T]) -> tuple[_T, int]:
        before, done, after = self._devices.use(self.device.uuid), work(), self._devices.use(self.device.uuid)
        if before is None or after is None:
            return done, 0
        own = 0 if after.own is None else after.own - (before.own or 0)
        # In a container the driver's process ids are others: it may tell nothing of this process, or another's.
        return done, own if own > 0 else max(0, after.by_all - before.by_all)


class _Unkept:
    """Sizes that a room measures itself."""

    def find(self, digest: str, place: str = MAIN) -> Size | None:
        del digest, place
        return None

    def keep(self, digest: str, size: Size, place: str = MAIN) -> None:
        pass


def _size(nbytes: int, rows: int) -> Size:
    return Size(nbytes=nbytes, load_s=0.0, at=SystemClock().now(), sure=True, rows=rows)


def _fill(executor: Executor, bundle: Bundle, rows: int) -> None:
    """Compute a batch of so many rows, made of the golden ones. Golden rows that cannot be read are refused later."""
    try:
        given: dict[str, list[Any]] = msgspec.json.decode(bundle.files[GOLDEN])["inputs"]
        count = len(next(iter(given.values())))
        repeated = {name: (values * (rows // count + 1))[:rows] for name, values in given.items()}
        inputs = arrays(repeated, executor, bundle.manifest, rows)
    except (msgspec.DecodeError, KeyError, StopIteration, TypeError, ZeroDivisionError, MainspringError):
        return
    executor.predict(inputs, rows)
