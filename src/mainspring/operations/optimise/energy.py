"""Energy of calls: of the processor by RAPL's counters in Linux's powercap, of GPUs by NVML's power."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mainspring.core.gpus import gpu_reader

_MEASURED_S = 0.3
_POWERCAP = Path("/sys/class/powercap")

Call = Callable[[int], object]


def energy_source(*, gpu: bool = False, place: Path = _POWERCAP) -> str:
    """Return where energy is read, or why it is not, for people."""
    if gpu:
        read = gpu_reader()
        known = read is not None and all(each.watts is not None for each in read())
        return "power of the GPUs by NVML" if known else "not read: NVML tells no power of a GPU here"
    zones = _packages(place)
    if not zones:
        return f"not read: this system has no RAPL counters in {place}"
    if not _counters(place):
        return f"not read: the RAPL counters in {place} are open to root alone"
    return f"RAPL counters of {len(zones)} processor package{'s'[: len(zones) != 1]}"


def energy_uj(call: Call, rows: int, *, gpu: bool = False, place: Path = _POWERCAP) -> float | None:
    """Return the energy that a row takes, µJ, of the whole processor or of all GPUs; `None` where it cannot be read.

    Args:
        call: Runs a batch, given the number of the turn.
        rows: Of a batch.
    """
    return _by_power(call, rows) if gpu else _by_counters(call, rows, place)


def _by_counters(call: Call, rows: int, place: Path) -> float | None:
    before = _counters(place)
    if not before:
        return None
    turns = _repeated(call, lambda: None)[0]
    after = _counters(place)
    spent = [after[name] - at for name, at in before.items() if name in after]
    if not spent or min(spent) < 0:  # a counter began anew
        return None
    return sum(spent) / (turns * rows)


def _by_power(call: Call, rows: int) -> float | None:
    read = gpu_reader()
    if read is None:
        return None
    watts: list[float] = []

    def look() -> None:
        found = [each.watts for each in read() if each.watts is not None]
        watts.append(sum(found) if found else np.nan)

    turns, took_s = _repeated(call, look)
    found = float(np.mean(watts)) * took_s * 1e6 / (turns * rows)
    return found if np.isfinite(found) else None


def _repeated(call: Call, look: Callable[[], None]) -> tuple[int, float]:
    """Return how many calls were made and the seconds that they took."""
    turns, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + _MEASURED_S:
        call(turns)
        look()
        turns += 1
    return turns, time.perf_counter() - begun


def _packages(place: Path) -> list[Path]:
    """Return the zones of the processor's packages. That of a whole laptop, "psys", would count them twice."""
    return [each for each in sorted(place.glob("intel-rapl:[0-9]*")) if _name(each).startswith("package")]


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _counters(place: Path) -> dict[str, int]:
    """Return the counters of the packages, µJ."""
    found = {}
    for each in _packages(place):
        try:
            found[each.name] = int((each / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return found
