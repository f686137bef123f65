"""Every variant of an ONNX model that needs no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from mainspring.core.errors import MainspringError
from mainspring.training.optimise.blockwise import in_blocks
from mainspring.training.optimise.half import in_half
from mainspring.training.optimise.onnx_models import Array, folded
from mainspring.training.optimise.static_int8 import quantised
from mainspring.training.optimise.trees import cut, merged, narrow, trees_in

CUTS = (75, 50, 25, 12)  # percents of the trees

Rows = Callable[[], Mapping[str, Array]]
_Make = Callable[[bytes, Rows], bytes]


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a model, not yet measured: its file, or the reason why there is none."""

    name: str
    how: str
    content: bytes = b""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make a variant.

    Attributes:
        how: What it does, for people.
        make: Takes the model's file, and what gives training rows as graph input -> rows.
    """

    how: str
    make: _Make


def _narrow_merged(content: bytes, _: Rows) -> bytes:
    small = narrow(content)
    try:
        return merged(small)
    except MainspringError:
        return small


def _cut(content: bytes, rows: Rows, percent: int) -> bytes:
    return cut(content, percent / 100, rows())


NETWORKS: Mapping[str, Kind] = {
    "fp16": Kind("weights of 16 bits", lambda content, _: in_half(content)),
    "int8-static": Kind("8 bits, scales calibrated on training rows", lambda content, rows: quantised(content, rows())),
    "int8-dynamic": Kind(
        "weights of 8 bits in blocks, a scale for each row as it comes", lambda content, _: in_blocks(content, 8)
    ),
    "int4-weights": Kind("weights of 4 bits in blocks", lambda content, _: in_blocks(content, 4)),
}
TREES: Mapping[str, Kind] = {
    "trees-merged": Kind("splits with equal leaves merged", lambda content, _: merged(content)),
    "trees-fp32": Kind("trees in FP32, equal leaves merged", _narrow_merged),
    **{
        f"trees-{percent}": Kind(f"the first {percent} % of the trees", partial(_cut, percent=percent))
        for percent in CUTS
    },
}
GRAPH: Mapping[str, Kind] = {"graph": Kind("constants folded, dead nodes removed", lambda content, _: folded(content))}
KINDS: Mapping[str, Kind] = {**GRAPH, **NETWORKS, **TREES}


def kinds_for(content: bytes) -> tuple[str, ...]:
    """Return the names of the kinds that a model may have: those of trees, or those of networks."""
    return (*GRAPH, *(TREES if trees_in(content) else NETWORKS))


def variants(content: bytes, names: tuple[str, ...], rows: Rows) -> Iterator[Variant]:
    """Yield the variants of an ONNX model, those that cannot be made with the reason.

    Args:
        names: Names of `KINDS`.
        rows: Returns training rows as graph input -> rows; called once a variant needs some.
    """
    for name in names:
        kind = KINDS[name]
        try:
            yield Variant(name, kind.how, kind.make(content, rows))
        except MainspringError as error:
            yield Variant(name, kind.how, why_not=error.what)
