"""Every variant of an ONNX model that needs no training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from mainspring.core.errors import MainspringError
from mainspring.training.optimise.blockwise import in_blocks
from mainspring.training.optimise.half import in_half
from mainspring.training.optimise.onnx_models import Array, folded, not_quantised
from mainspring.training.optimise.static_int8 import quantised
from mainspring.training.optimise.trees import cut, merged, narrow, trees_in

CUTS = (75, 50, 25, 12)  # percents of the trees

Rows = Callable[[], Mapping[str, Array]]
_Make = Callable[[bytes, Rows], bytes]


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a model, not yet measured: its file, or the reason why there is none.

    Attributes:
        provider: Execution provider of ONNX Runtime that it needs, if not the processor's.
        kept: Operators that were not quantised, and why.
    """

    name: str
    how: str
    content: bytes = b""
    why_not: str = ""
    provider: str = ""
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make a variant.

    Attributes:
        how: What it does, for people.
        make: Takes the model's file, and what gives training rows as graph input -> rows.
        quantises: Whether products get 8 or 4 bits.
    """

    how: str
    make: _Make
    quantises: bool = False


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
    "int8-static": Kind(
        "8 bits, scales calibrated on rows", lambda content, rows: quantised(content, rows()), quantises=True
    ),
    "int8-dynamic": Kind(
        "weights of 8 bits in blocks, a scale for each row as it comes",
        lambda content, _: in_blocks(content, 8),
        quantises=True,
    ),
    "int4-weights": Kind("weights of 4 bits in blocks", lambda content, _: in_blocks(content, 4), quantises=True),
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


_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@dataclass(frozen=True, slots=True)
class Provided:
    """A model on an execution provider of ONNX Runtime.

    Attributes:
        targets: Those for which it is made.
        half: Whether its weights are FP16.
    """

    provider: str
    how: str
    targets: tuple[str, ...] = ("cuda",)
    half: bool = False


PROVIDED: Mapping[str, Provided] = {
    "openvino": Provided("OpenVINOExecutionProvider", "run by OpenVINO", ("cpu",)),
    "cuda": Provided(_CUDA, "run by CUDA"),
    "cuda-fp16": Provided(_CUDA, "weights of 16 bits, run by CUDA", half=True),
    "tensorrt": Provided(_TENSORRT, "run by TensorRT"),
    "tensorrt-fp16": Provided(_TENSORRT, "weights of 16 bits, run by TensorRT", half=True),
}


def on_providers(content: bytes, target: str, only: Collection[str], available: Collection[str]) -> Iterator[Variant]:
    """Yield a model on the execution providers of a target that are here, and those that are asked for with the reason.

    Args:
        only: Names that are asked for; by default all.
        available: The execution providers that ONNX Runtime has here; none for an encoder, which runs on the processor.
    """
    for name, each in PROVIDED.items():
        if target in each.targets and each.provider in available and (not only or name in only):
            try:
                yield Variant(name, each.how, in_half(content) if each.half else content, provider=each.provider)
            except MainspringError as error:
                yield Variant(name, each.how, why_not=error.what, provider=each.provider)
        elif name in only:
            why = "An encoder of texts runs on the processor."
            if available:
                why = f"ONNX Runtime has no {each.provider} here; it has {', '.join(available)}."
            if target not in each.targets:
                why = f"It is made for {', '.join(each.targets)}, and --for is {target}."
            yield Variant(name, each.how, why_not=why, provider=each.provider)


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
            made = kind.make(content, rows)
            kept = not_quantised(made) if kind.quantises else ""
            yield Variant(name, kind.how, made, kept=kept)
        except MainspringError as error:
            yield Variant(name, kind.how, why_not=error.what)
