"""Conversion of a neural network into a bundle's model of tensors: export and proof.

A network is a torch module, a Keras model on torch, or a Hugging Face model. It takes tensors whose first dimension is
the batch. The second may vary: these are sequences, whose padding a mask marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.registry.model import TensorSpec
from mainspring.training.equivalence.check import Proof
from mainspring.training.equivalence.sequences import BATCH, prove_network
from mainspring.training.flavours.choosing import flavour_of, framework_of
from mainspring.training.flavours.estimators import imported
from mainspring.training.flavours.graph import content_of
from mainspring.training.flavours.model import Artefact
from mainspring.training.flavours.torch import TorchFlavour, evaluating
from mainspring.training.frames import Array

_GOLDEN = 16
_DATATYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "uint8": "UINT8", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network that is proved equivalent to the original, with golden rows."""

    artefact: Artefact
    tensors: tuple[TensorSpec, ...]
    output_tensors: tuple[TensorSpec, ...]
    proof: Proof
    golden: dict[str, dict[str, Any]]


def export(
    network: Any, examples: Mapping[str, Any], *, outputs: Sequence[str] = (), sequences: bool | None = None
) -> Exported:
    """Export a network and prove the result on 10,000 rows or more.

    Args:
        examples: Input -> rows that the network was not trained on, shape (rows, ...), at least 2; fewer than 10,000
            are resampled with replacement. torch modules take them by position, Hugging Face models by name.
        outputs: Names of the outputs, in order; for a Hugging Face model, the outputs to keep (by default `logits`, or
            else `last_hidden_state`).
        sequences: Whether the second dimension of every input is a length that may differ between requests. Default:
            true for Hugging Face models only.

    Raises:
        Invalid: The examples do not fit the network, or two tensors share a name.
        NotConvertible: The object is not a network, cannot be exported, predicts NaN, or the export differs on a row.
        MissingExtra: The exporting library is not installed.
    """
    framework = framework_of(network)
    if framework not in ("torch", "keras", "transformers"):
        raise NotConvertible(
            f"{type(network).__name__} is no network of torch, Keras or transformers.",
            fix="return it from a training function, or register its file: `mainspring models add`.",
        )
    flavour = cast(TorchFlavour, flavour_of(network))
    torch = imported("torch", f"Exporting a {type(network).__name__}", flavour.extra)
    rows = {name: np.asarray(values) for name, values in examples.items()}
    _check_examples(rows)
    of_lengths = framework == "transformers" if sequences is None else sequences
    asked = _Network(torch, network, flavour, framework, tuple(rows), tuple(outputs))
    names = asked.names(rows)
    _check_names(names, tuple(rows))
    dynamic = [{0: "rows", **({1: "length"} if of_lengths else {})} for _ in rows]
    example = {name: torch.tensor(values[: max(2, min(3, len(values)))]) for name, values in rows.items()}
    model = asked.exported(example, names, dynamic)
    artefact = Artefact("onnx", "model.onnx", content_of(model))
    proof = prove_network(asked.answers, artefact, rows, sequences=of_lengths)
    few = {name: values[:_GOLDEN] for name, values in rows.items()}
    answers = dict(zip(names, asked.answers(few), strict=True))
    return Exported(
        artefact,
        tuple(_spec(name, values, of_lengths) for name, values in rows.items()),
        tuple(_output_spec(each) for each in model.graph.output),
        proof,
        {
            "inputs": {name: values.tolist() for name, values in few.items()},
            "outputs": {name: values.tolist() for name, values in answers.items()},
        },
    )


class _Network:
    """Adapter that calls the network by its framework's conventions and returns arrays."""

    def __init__(
        self, torch: Any, network: Any, flavour: TorchFlavour, framework: str, inputs: Sequence[str], wanted: Any
    ) -> None:
        self._torch, self._network, self._flavour = torch, network, flavour
        self._framework, self._inputs = framework, tuple(inputs)
        self._wanted: tuple[str, ...] = wanted

    def names(self, rows: Mapping[str, Array]) -> tuple[str, ...]:
        """Return the names of the network's outputs."""
        found = self._raw({name: values[:2] for name, values in rows.items()})
        if isinstance(found, Mapping):
            if not self._wanted:
                usual = [name for name in ("logits", "last_hidden_state") if name in found]
                self._wanted = tuple(usual[:1] or found)
            missing = sorted(set(self._wanted) - set(found))
            if missing:
                raise Invalid(f"The network does not answer {missing}; it answers {sorted(found)}.")
            return self._wanted
        count = len(found) if isinstance(found, tuple | list) else 1
        names = self._wanted or (("output",) if count == 1 else tuple(f"output{place}" for place in range(count)))
        if len(names) != count:
            raise Invalid(f"The network gives {count} outputs, {len(names)} names were given: {list(names)}.")
        return names

    def answers(self, rows: Mapping[str, Array]) -> list[Array]:
        """Return one array per output, of shape (rows, ...)."""
        count, parts = len(next(iter(rows.values()))), []
        for start in range(0, count, BATCH):
            found = self._picked(self._raw({name: values[start : start + BATCH] for name, values in rows.items()}))
            parts.append([self._flavour.as_array(each) for each in found])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def exported(self, example: Mapping[str, Any], names: Sequence[str], dynamic: Sequence[Mapping[int, str]]) -> Any:
        def call(*inputs: Any) -> tuple[Any, ...]:
            return self._picked(self._call(inputs))

        return self._flavour.exported(self._network, call, example, names, dynamic)

    def _raw(self, rows: Mapping[str, Array]) -> Any:
        try:
            with evaluating(self._network), self._torch.inference_mode():
                return self._call([self._torch.tensor(values) for values in rows.values()])
        except Exception as error:
            raise Invalid(
                f"{type(self._network).__name__} does not take the examples: {str(error).strip().splitlines()[0]}",
                fix="give each input as an array of the type and shape that the network takes.",
            ) from error

    def _call(self, inputs: Sequence[Any]) -> Any:
        call = self._flavour.call(self._network)
        if self._framework == "transformers":
            return call(**dict(zip(self._inputs, inputs, strict=True)))
        if self._framework == "keras" and len(inputs) > 1:
            return call(list(inputs))
        return call(*inputs)

    def _picked(self, found: Any) -> tuple[Any, ...]:
        if isinstance(found, Mapping):
            return tuple(found[name] for name in self._wanted)
        return tuple(found) if isinstance(found, tuple | list) else (found,)


def _check_examples(rows: Mapping[str, Array]) -> None:
    counts = {len(values) for values in rows.values() if values.ndim}
    if len(counts) != 1 or min(counts) < 2 or any(not values.ndim for values in rows.values()):
        raise Invalid(
            f"The examples have {sorted(counts) or 'no'} rows; each input needs the same number, at least 2.",
            fix="give input -> array of shape (rows, ...).",
        )
    for name, values in rows.items():
        if values.dtype.name not in _DATATYPES:
            raise Invalid(f"The example {name!r} is of the type {values.dtype}, which no network takes.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Invalid(f"The example {name!r} holds NaN or infinity.", fix="a tensor has no null: replace them.")


def _check_names(names: Sequence[str], inputs: Sequence[str]) -> None:
    doubled = sorted({name for name in names if list(names).count(name) > 1} | (set(names) & set(inputs)))
    if doubled:
        raise Invalid(f"{doubled} would be the name of two tensors.", fix="give each output a name of its own.")


def _spec(name: str, values: Array, of_lengths: bool) -> TensorSpec:
    rest = list(values.shape[1:])
    if of_lengths and rest:
        rest[0] = -1
    return TensorSpec(name, _DATATYPES[values.dtype.name], (-1, *rest))


def _output_spec(each: Any) -> TensorSpec:
    from onnx import helper

    tensor = each.type.tensor_type
    kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return TensorSpec(each.name, _DATATYPES[kind], (-1, *dims[1:]))
