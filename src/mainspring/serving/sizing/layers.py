"""Time of a network with layers of 8 bits, predicted from the network as it is and from its layers alone.

Each product of the network is run alone, with its own shape and at each size of batch: as it is, and in 8 bits with the
scales around it. The rest of the network stays as it is, and how much of its time that is the runtime's profile says.
So the network in 8 bits is neither made nor run.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.serving.sizing.kernels import Feeds, chain, fastest, opened, product, small_product
from mainspring.serving.sizing.roofline import NEAR, Interval
from mainspring.serving.sizing.work import Work

_CHAIN = 40
_LEAST_US = 0.1
_BLURRED_US = 0.5  # of a node in the profile, which has whole µs: less than that says nothing
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")  # of the runtime, after its own fusions

_FLOATS = (np.float32, np.float64, np.float16)
_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layers:
    """Time of a network's products for a batch, µs.

    Attributes:
        within: All of them in the network, activations that the runtime fuses into them included: not less than alone.
        alone: The sum of each alone.
        small: The sum of each alone in 8 bits.
    """

    within: float
    alone: float
    small: float

    def in_int8(self, took_us: float) -> Interval:
        """Return how many times as fast a batch is in 8 bits that takes so long.

        Products in the network take longer than alone, for their inputs come from others: in 8 bits by as large a
        share. The other bound is that they take as many µs longer.
        """
        within = min(self.within, took_us)
        value = took_us - within + within * self.small / self.alone
        other = max(took_us - self.alone + self.small, value / 2)
        return Interval(
            took_us / max(value, other) / NEAR, took_us / value, took_us / min(value, other) * NEAR
        )  # fmt: skip


def measured(
    content: bytes, work: Work, sizes: Collection[int], shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[int, Layers]:
    """Measure a model's layers; return them by the rows of a batch.

    Args:
        work: Of the model, with `not_in_int8` empty.
        shapes: Of inputs of one row, as of `work_of`.

    Raises:
        Invalid: The model has inputs that are not numbers, or refuses those of chance.
    """
    one = {"x": np.ones((1, 1), np.float32)}
    call_us = fastest([(opened(chain(1)), one)])[0] * 1e6
    with _profiled(chain(_CHAIN)) as nothing:
        fastest([(nothing.session, one)])
    beside_us = least_us(nothing.events, ("Neg", "Relu")) / _CHAIN
    counts = Counter(work.products)
    both = {
        (each.operator, each.inner, each.outer): [
            opened(make(each.inner, each.outer, each.operator)) for make in (product, small_product)
        ]
        for each in counts
    }
    found = {}
    for size in sorted(sizes):
        with _profiled(content) as whole:
            feeds = _feeds(whole.session, size, shapes or {})
            try:
                whole.session.run(None, feeds)
            except Exception as error:  # the runtime's own errors share no other base
                raise Invalid(f"The model does not run with numbers by chance: {str(error).splitlines()[0]}") from error
            calls = [(whole.session, feeds)]
            for each in counts:
                feeds = {"x": np.random.default_rng(1).normal(size=(each.rows * size, each.inner)).astype(np.float32)}
                calls += [(session, feeds) for session in both[each.operator, each.inner, each.outer]]
            _, *took = (max(seconds * 1e6 - call_us, _LEAST_US) for seconds in fastest(calls))
        alone = sum(count * us for count, us in zip(counts.values(), took[::2], strict=True))
        small = sum(count * us for count, us in zip(counts.values(), took[1::2], strict=True))
        within = least_us(whole.events, _PRODUCTS) - (beside_us + _BLURRED_US) * len(work.products)
        found[size] = Layers(max(within, alone), alone, small)
    return found


class _Profiled:
    """A session, and the events of its profile once it is closed."""

    def __init__(self, session: Any) -> None:
        self.session, self.events = session, list[Any]()


@contextmanager
def _profiled(content: bytes) -> Iterator[_Profiled]:
    with tempfile.TemporaryDirectory(prefix="mainspring-profile-") as folder:
        found = _Profiled(opened(content, f"{folder}/profile"))
        yield found
        found.events = json.loads(Path(found.session.end_profiling()).read_bytes())


def least_us(events: Sequence[Mapping[str, Any]], operators: Collection[str]) -> float:
    """Return the time of all nodes of some operators in the fastest call of a profile.

    The runtime records a million events at most: the calls after that, and the one that was cut off, do not count.
    """
    calls = sorted(each["ts"] for each in events if each["name"] == "model_run")
    nodes = [
        (each["ts"], each["dur"]) for each in events
        if each["cat"] == "Node" and each["args"].get("op_name") in operators and each["name"].endswith("_kernel_time")
    ]  # fmt: skip
    if not calls or not nodes:
        return 0.0
    at, took = np.array(nodes, float).T
    of = np.searchsorted(calls, at, side="right")  # 0: before the first call
    counts, sums = np.bincount(of, minlength=len(calls) + 1), np.bincount(of, took, minlength=len(calls) + 1)
    whole = counts == np.median(counts[1:])
    return float(sums[whole].min()) if whole.any() else 0.0


def _feeds(session: Any, rows: int, shapes: Mapping[str, tuple[int, ...]]) -> Feeds:
    return {each.name: _values(each, rows, shapes.get(each.name, ())) for each in session.get_inputs()}


def _values(given: Any, rows: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return values of an input of a session."""
    kind = _TYPES.get(given.type)
    if kind is None:
        raise Invalid(f"Input {given.name!r} is a {given.type}, not numbers.")
    places = [each if isinstance(each, int) and each > 0 else 1 for each in given.shape[1:]]
    known = shape[1:] if len(shape) == len(given.shape) else places
    whole = (rows, *known)
    return np.random.default_rng(2).normal(size=whole).astype(kind) if kind in _FLOATS else np.zeros(whole, kind)
