"""Changes with which a training would fit that fits no layout: each is tried, alone, and the least of its kind told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model
from mainspring.training.planning.topology import NETWORK_GB_S, Link, Topology

_MOST_MACHINES = 64
_PLENTY_GIB = 1 << 20  # of main memory

Fits = Callable[[Model, Topology, int], bool]
Host = Callable[[Model, Topology, int], float]


def remedies(model: Model, topology: Topology, batch: int, fits: Fits, host_gib: Host) -> list[str]:
    """Return what would make a training fit, in words.

    Args:
        fits: Returns whether any layout fits.
        host_gib: Returns the least main memory of a machine with which a layout fits, in GiB; 0 if none does.
    """
    found = [*_smaller(model, topology, batch, fits), *_larger(model, topology, batch, fits, host_gib)]
    return found or ["a smaller model: neither 8-bit states, nor more devices or main memory suffice"]


def _smaller(model: Model, topology: Topology, batch: int, fits: Fits) -> Iterator[str]:
    """Yield changes of the training; fewer rows are none, as a batch is computed in parts of a row if need be."""
    less = replace(model, optimiser=OPTIMISERS["adam8bit"])
    if model.optimiser.states >= less.optimiser.states and not model.optimiser.bits:
        if fits(less, topology, batch):
            yield "states of the optimiser in 8 bits (adam8bit)"
        elif model.precision.weight > 2:
            both = replace(less, precision=PRECISIONS["bf16"])
            if fits(both, topology, batch):
                yield "states of the optimiser in 8 bits (adam8bit) and weights in 16 (bf16), which trains less exactly"


def _larger(model: Model, topology: Topology, batch: int, fits: Fits, host_gib: Host) -> Iterator[str]:
    """Yield more of the devices, or of the main memory."""
    if not topology.measured:
        gib = host_gib(model, msgspec.structs.replace(topology, host_gib=_PLENTY_GIB), batch)
        if gib:
            yield f"{-int(-gib // 1):,} GiB of main memory in each machine, to keep shards in (--host-gib)"
    machines = topology.machines * 2
    while machines <= _MOST_MACHINES and not topology.measured:
        if fits(model, _more(topology, machines), batch):
            yield f"{machines:,} machines of {topology.devices}x{topology.device.name}, not {topology.machines}"
            return
        machines *= 2


def _more(topology: Topology, machines: int) -> Topology:
    inside = [link for link in topology.links if link.joins <= topology.devices]
    network = topology.links[-1] if topology.machines > 1 else Link(joins=2, name="network", gb_s=NETWORK_GB_S)
    links = (*inside, msgspec.structs.replace(network, joins=topology.devices * machines))
    return msgspec.structs.replace(topology, machines=machines, links=links)
