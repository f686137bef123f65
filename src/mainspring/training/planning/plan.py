"""Plan of a training: the fastest layout that fits, those after it, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import msgspec

from mainspring.core.errors import Invalid
from mainspring.training.distribution import Distributed
from mainspring.training.planning.layouts import AXES, Layout, layouts
from mainspring.training.planning.memory import Memory, memory
from mainspring.training.planning.model import Model
from mainspring.training.planning.remedies import remedies
from mainspring.training.planning.timing import GOOD, POOR, USUAL, Time, expected
from mainspring.training.planning.topology import Topology

RUNTIME = 1.25 * 2**30  # of a GPU: the driver's context, communicators, libraries
_RUNTIME_CPU = 0.35 * 2**30  # of a process that imports PyTorch
KEPT_FREE = 0.06  # of the memory: fragmentation
_AS_FAST = 1.005
_WORTH_SAYING = 0.1  # share of the memory
_ABOUT_AS_FAST = 1.1  # less than the times of two layouts are known to differ
SHOWN = 6
_MOST_ROWS = 1 << 24


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, from `low` to `high`."""

    low: float
    expected: float
    high: float


class AxisPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An axis of parallelism: its processes, the slowest link that they use, and why it is there."""

    axis: str
    processes: int
    link: str
    why: str


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the fullest device, at its fullest moment; `host`: in main memory, for one device."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    communication: int
    working: int
    runtime: int
    total: int
    limit: int
    host: int


class LayoutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A layout.

    Attributes:
        layout: The declaration to use it.
        accumulate: Parts in which a process computes its rows. `rows`: of a part.
        missing_bytes: How much more memory a device, or its share of main memory, would have to have; 0 if it fits.
        step_s: Expected seconds of a step. `parts_s`: what they are spent on.
        rows_s: Rows a second of all processes.
        why: Reasons for or against it.
    """

    layout: str
    said: str
    processes: int
    accumulate: int
    rows: int
    fits: bool
    missing_bytes: int
    memory: MemoryPlan
    step_s: Interval
    parts_s: dict[str, float]
    rows_s: float
    axes: list[AxisPlan]
    why: list[str]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """Memory and time of a step in one process with a combination of switches.

    Attributes:
        own: Whether it is that of the training as it is.
        rows: Rows of the step.
        memory: Bytes of tensors at the fullest moment: weights, gradients, optimiser states, activations.
    """

    amp: bool
    checkpoint_activations: bool
    own: bool
    rows: int
    memory: int
    step_s: float

    def said(self) -> str:
        """Return the switches in words."""
        on = [name for name in ("amp", "checkpoint_activations") if getattr(self, name)]
        return " and ".join(f"{name}=True" for name in on) or "neither"


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan of a training.

    Attributes:
        measured: Whether the model was measured, or described.
        considered: Layouts that were compared. `fitting`: those that fit.
        layouts: The chosen one, then the fastest of each other combination of axes; none of them may fit.
        helps: Changes with which the training would fit, each alone; none if it fits.
        switches: Memory and time of steps with and without mixed precision and the computing again of activations,
            measured on this machine; none of a described model.
    """

    model: str
    parameters: int
    trained: int
    measured: bool
    precision: str
    optimiser: str
    batch: int
    row: str
    devices: str
    considered: int
    fitting: int
    layouts: list[LayoutPlan]
    assumptions: list[str]
    helps: list[str] = []
    switches: list[Effect] = []

    @property
    def chosen(self) -> LayoutPlan:
        """The layout to use: the fastest that fits, else that which misses least."""
        return self.layouts[0]


@dataclass(frozen=True, slots=True)
class _Found:
    layout: Layout
    memory: Memory
    time: Time
    low: float  # seconds of a step
    high: float
    missing: float
    host: bool  # main memory is what is missing

    @property
    def order(self) -> tuple[float, ...]:
        """Order layouts: those that fit first, then by time; of equals the simpler one first."""
        told = self.layout.distributed
        parts = self.layout.accumulate + told.checkpoint_activations + told.offload + told.tensor + told.pipeline
        return (self.missing, round(self.time.total, 9), told.size, parts)

    @property
    def simplicity(self) -> tuple[int, ...]:
        """Processes, axes in use, and switches that are on."""
        told = self.layout.distributed
        return (told.size, sum(self.layout.size(axis) > 1 for axis in AXES), told.checkpoint_activations + told.offload)


def plan(model: Model, topology: Topology, batch: int) -> TrainingPlan:
    """Plan a training with `batch` rows a step, whatever the number of processes.

    Raises:
        Invalid: The batch is impossible.
    """
    if not 0 < batch <= _MOST_ROWS:
        raise Invalid(f"A batch has {batch} rows.", fix=f"plan with 1 to {_MOST_ROWS:,}.")
    every = sorted(_evaluated(model, topology, batch), key=lambda each: each.order)
    chosen = _chosen(every)
    kinds: dict[tuple[object, ...], _Found] = {_kind(chosen.layout): chosen}
    for each in every:
        kinds.setdefault(_kind(each.layout), each)
    shown = [_shown(topology, each, chosen, batch) for each in list(kinds.values())[:SHOWN]]
    return TrainingPlan(
        model=model.name,
        parameters=model.parameters,
        trained=sum(part.trained for part in model.parts),
        measured=model.measured,
        precision=model.precision.name,
        optimiser=model.optimiser.name,
        batch=batch,
        row=model.row,
        devices=topology.said(),
        considered=len(every),
        fitting=sum(each.missing == 0 for each in every),
        layouts=shown,
        helps=_helps(model, topology, batch) if chosen.missing else [],
        assumptions=_assumptions(model, topology),
    )


def best(model: Model, topology: Topology, batch: int, accumulate: int) -> tuple[Distributed, LayoutPlan]:
    """Return the declaration to train with, whose parts of a batch are given, and its plan.

    Of layouts that fit and are about as fast as the fastest, the one with the fewest processes, axes and switches. A
    process alone is trained without switches, which are its launcher's.

    Raises:
        Invalid: None fits.
    """
    every = sorted(_evaluated(model, topology, batch, accumulate), key=lambda each: each.order)
    every = [each for each in every if each.layout.distributed.size > 1 or not each.layout.switched]
    first = every[0]
    if first.missing:
        least = min(_evaluated(model, topology, batch), key=lambda each: each.order)
        parts = f"give fit_torch accumulate={least.layout.accumulate}."
        raise Invalid(
            f"The training does not fit {topology.said()}: the nearest layout, {first.layout.said()}, misses "
            f"{first.missing:,.0f} bytes for each device.",
            fix="; or ".join(_helps(model, topology, batch)) + "." if least.missing else parts,
        )
    near = [each for each in every if not each.missing and each.time.total <= first.time.total * _ABOUT_AS_FAST]
    found = min(near, key=lambda each: (*each.simplicity, each.time.total))
    return found.layout.distributed, _shown(topology, found, first, batch)


def _chosen(every: list[_Found]) -> _Found:
    """Return the layout with the least memory of those that are as fast as the first; the nearest if none fits."""
    first = every[0]
    if first.missing:
        return first
    equal = [each for each in every if not each.missing and each.time.total <= first.time.total * _AS_FAST]
    return min(equal, key=lambda each: (each.layout.distributed.size, each.memory.total, each.time.total))


def _kind(layout: Layout) -> tuple[object, ...]:
    """Return which axes and switches a layout uses; of equal ones, the best alone is shown."""
    return (*(layout.size(axis) > 1 for axis in AXES), layout.distributed.offload)


def _evaluated(model: Model, topology: Topology, batch: int, accumulate: int | None = None) -> Iterator[_Found]:
    for layout in layouts(model, topology, batch, accumulate):
        taken, missing, host = _room(model, topology, layout)
        yield _Found(layout, taken, *expected(model, layout, topology), missing, host)


def _room(model: Model, topology: Topology, layout: Layout) -> tuple[Memory, float, bool]:
    """Return the memory of a layout, how much of it a device misses, and whether main memory is what is missing."""
    taken = memory(model, layout, _runtime(topology), gpu=not topology.measured)
    own, host = taken.total - _limit(topology, layout), 0.0
    if layout.distributed.offload:
        host = taken.host * layout.distributed.processes - topology.host_gib * 2**30 * (1 - KEPT_FREE)
    return taken, max(0.0, own, host / layout.distributed.processes), host > 0 and host > own


def _helps(model: Model, topology: Topology, batch: int) -> list[str]:
    def fits(model: Model, topology: Topology, batch: int) -> bool:
        return any(not _room(model, topology, layout)[1] for layout in layouts(model, topology, batch))

    def host_gib(model: Model, topology: Topology, batch: int) -> float:
        found = [(_room(model, topology, layout), layout) for layout in layouts(model, topology, batch)]
        needed = [taken.host * layout.distributed.processes for (taken, missing, _), layout in found if not missing]
        return min(needed, default=0.0) / 2**30 / (1 - KEPT_FREE)

    return remedies(model, topology, batch, fits, host_gib)


def _runtime(topology: Topology) -> float:
    return _RUNTIME_CPU if topology.measured else RUNTIME


def _limit(topology: Topology, layout: Layout) -> float:
    """Bytes that a process can have; the cores of a processor share its memory."""
    shared = topology.devices / layout.distributed.processes if topology.measured else 1.0
    return topology.device.memory * (1 - KEPT_FREE) * shared


def _shown(topology: Topology, found: _Found, chosen: _Found, batch: int) -> LayoutPlan:
    layout, taken = found.layout, found.memory
    sizes = {name: round(value) for name, value in asdict(taken).items()}
    return LayoutPlan(
        layout=f"ms.Distributed({layout.distributed.shown()})",
        said=layout.said(),
        processes=layout.distributed.size,
        accumulate=layout.accumulate,
        rows=layout.rows,
        fits=found.missing == 0,
        missing_bytes=-int(-found.missing // 1),
        memory=MemoryPlan(**sizes, total=round(taken.total), limit=int(_limit(topology, layout))),
        step_s=Interval(low=found.low, expected=found.time.total, high=found.high),
        parts_s={name: value for name, value in asdict(found.time).items() if value},
        rows_s=batch / found.time.total if found.time.total else 0.0,
        axes=[_axis(layout, topology, axis) for axis in AXES if layout.size(axis) > 1],
        why=_why(topology, found, chosen),
    )


_WHY = {
    "tensor": "activations are summed twice in each layer, so it has the fastest link",
    "shard": "weights are gathered and gradients scattered once for each part of a batch, beside the computing",
    "copies": "gradients are summed once a step, so that a slower link is enough",
    "pipeline": "a stage passes one activation on, which the slowest link can carry",
}


def _axis(layout: Layout, topology: Topology, axis: str) -> AxisPlan:
    link, _ = topology.between(layout.size(axis), layout.stride(axis))
    return AxisPlan(axis=axis, processes=layout.size(axis), link=link.said(), why=_WHY[axis])


def _why(topology: Topology, found: _Found, chosen: _Found) -> list[str]:
    """Return the reasons for the chosen layout, or those against another."""
    taken, spent, told = found.memory, found.time, found.layout.distributed
    reasons = []
    if found.missing:
        where = "main memory for each device" if found.host else "a device"
        reasons.append(f"does not fit: {found.missing:,.0f} bytes of {where} are missing")
    elif found is chosen:
        reasons.append("fastest layout that fits, and of those as fast the one with the least memory")
    elif spent.total < chosen.time.total * _AS_FAST:
        more = taken.total - chosen.memory.total
        reasons.append(f"as fast as the chosen layout, with {abs(more):,.0f} bytes {'more' if more > 0 else 'less'}")
    else:
        reasons.append(f"{spent.total / chosen.time.total:.2f} times the time of the chosen layout")
    names = {"bubble": "the pipeline's bubble", "waits": "messages of a few numbers",
             "recompute": "computing activations again", "update": "the optimiser",
             "transfer": "moving shards to and from main memory"}  # fmt: skip
    parts = {name: value for name, value in asdict(spent).items() if value and name != "compute"}
    most = max(parts, key=lambda name: parts[name], default="")
    if most and parts[most] > 0.02 * spent.total:
        said = names.get(most, f"communication of {most}")
        reasons.append(f"{parts[most] / spent.total:.0%} of the step is {said}")
    largest = max(("weights", "gradients", "optimiser", "activations", "communication", "working"),
                  key=lambda name: getattr(taken, name))  # fmt: skip
    share = getattr(taken, largest) / max(1.0, taken.total)
    if share >= _WORTH_SAYING:
        taking = {"optimiser": "optimiser states take", "working": "working memory takes"}
        reasons.append(f"{taking.get(largest, f'{largest} take')} most memory, {share:.0%}")
    if (unused := topology.size - told.size) and found is chosen and not found.missing:
        left = "1 device is left out" if unused == 1 else f"{unused} devices are left out"
        reasons.append(f"{left}: communication would cost more than it saves")
    return reasons


def _assumptions(model: Model, topology: Topology) -> list[str]:
    if topology.measured:
        rates = (
            "Passes, optimiser and messages at the rates measured on this machine, in its quietest moments; other work "
            "makes steps longer."
        )
    else:
        rates = (
            f"Computing at {USUAL.compute:.0%} of the datasheet's rate ({POOR.compute:.0%} to {GOOD.compute:.0%}), "
            f"links at {USUAL.link:.0%} ({POOR.link:.0%} to {GOOD.link:.0%})."
        )
    found = [
        rates,
        f"Communication of shards and copies is hidden behind {topology.overlaps:.0%} of the computing beside it.",
        f"{KEPT_FREE:.0%} of a device's memory is kept free; {_runtime(topology) / 2**30:.2f} GiB are the runtime's.",
    ]
    if not topology.offloads:
        found.append("Main memory is not known (host_gib), so nothing is kept there.")
    kinds = topology.device.tflops
    if model.precision.compute == 2 and not topology.measured and "bf16" not in kinds:
        found.append(f"{topology.device.name} has no bfloat16: rates are those of {next(iter(kinds))}.")
    return [*found, *topology.notes, *model.notes]
