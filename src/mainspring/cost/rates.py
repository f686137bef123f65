"""Rates of a machine: the price of its hour, divided among cores, memory and GPUs.

A provider prices a machine as a whole. Its parts cost shares of that price in the ratio of weights: one core 1, one GiB
of memory `MEMORY_WEIGHT`, one GPU `gpu_weight` of its kind. All parts together cost the price, to rounding.

The weights are Google's list, which prices cores, memory and GPUs separately (Compute Engine, us-central1, on demand,
2024: N2 core 0.031611 and GiB 0.004237 dollars an hour; the ratio is that of N1, E2 and C2). AWS's families that differ
in memory alone give 0.07 to 0.11 (us-east-1, 2024: c7i.xlarge 0.1785, m7i.xlarge 0.2016 and r7i.xlarge 0.2646 for 4
vCPUs with 8, 16 and 32 GiB). A GPU's weight is its price there over that of a core of the machines that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.money import check_currency

MEMORY_WEIGHT = 0.134  # 0.004237 / 0.031611
USUAL_GPU_WEIGHT = 22.0
# Google's list, us-central1: T4 0.35, V100 2.48, A100-40 2.933908, A100-80 3.92808 and H100 9.796551 over a core of
# 0.031611 (N1, N2, A2); L4 0.56004 over a G2 core of 0.024988.
GPU_WEIGHTS: Mapping[str, float] = {
    "T4": 11.1, "L4": 22.4, "V100": 78.5, "A100-40": 92.8, "A100-80": 124.3, "H100": 309.9,
}  # fmt: skip


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of a machine's parts, in units of one currency.

    Attributes:
        machine_hour: Of the whole machine.
        cpu_hour: Of one core; of the cores that the machine's count counts, virtual ones with a provider.
        gpu_hour: Of one GPU; 0 on a machine without.
        storage_gib_month: By class; a class that is missing has no known price.
        in_gib, out_gib: Of a GiB that comes in and that leaves to the internet.
        source: Origin of the prices, for people.
        as_of: Their date, `2026-01-31`; empty for own prices without one.
    """

    currency: str
    machine_hour: float
    cpu_hour: float
    memory_gib_hour: float
    gpu_hour: float = 0.0
    storage_gib_month: dict[str, float] = {}
    in_gib: float = 0.0
    out_gib: float = 0.0
    source: str = ""
    as_of: str = ""

    def __post_init__(self) -> None:
        check_currency(self.currency, "A machine's price")
        named = ("machine_hour", "cpu_hour", "memory_gib_hour", "gpu_hour", "in_gib", "out_gib")
        prices = {**{name: getattr(self, name) for name in named}, **self.storage_gib_month}
        for name, price in prices.items():
            if not isfinite(price) or price < 0:
                raise Invalid(f"The price {name} is {price!r}.", fix="write a finite price of 0 or more.")


def machine_rates(
    machine_hour: float,
    currency: str,
    *,
    cores: float,
    memory_gib: float,
    gpus: int = 0,
    gpu: str = "",
    storage_gib_month: Mapping[str, float] | None = None,
    in_gib: float = 0.0,
    out_gib: float = 0.0,
    source: str = "",
    as_of: str = "",
) -> Rates:
    """Return the rates of a machine that costs `machine_hour`.

    Args:
        cores: Of the machine, counted as its use is counted.
        gpu: Kind of its GPUs, as `core.accelerators` names it; one without a known weight has the usual one.

    Raises:
        Invalid: A price is negative or not finite, the currency is none, or the machine has no cores or no memory.
    """
    for what, number in (("cores", cores), ("memory_gib", memory_gib)):
        if not isfinite(number) or number <= 0:
            raise Invalid(f"The machine has {number!r} {what}.", fix=f"state {what} above 0.")
    if gpus < 0:
        raise Invalid(f"The machine has {gpus} GPUs.", fix="state 0 or more.")
    weight = GPU_WEIGHTS.get(gpu, USUAL_GPU_WEIGHT)
    unit = machine_hour / (cores + memory_gib * MEMORY_WEIGHT + gpus * weight)
    return Rates(
        currency=currency,
        machine_hour=machine_hour,
        cpu_hour=unit,
        memory_gib_hour=unit * MEMORY_WEIGHT,
        gpu_hour=unit * weight if gpus else 0.0,
        storage_gib_month=dict(storage_gib_month or {}),
        in_gib=in_gib,
        out_gib=out_gib,
        source=source,
        as_of=as_of,
    )
