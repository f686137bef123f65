"""Conversion of a neural network into a bundle's model of tensors: export, and proof that it equals the network.

A network is a torch module, a Keras model on torch, or a Hugging Face model. It takes tensors whose first dimension is
the batch. The second may vary: these are sequences, whose padding a mask marks. The proof compares rows in batches,
one by one, at other lengths, and with padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.registry.model import TensorSpec
from mainspring.training.equivalence.check import TOLERANCE, Proof, answer_afresh
from mainspring.training.equivalence.rows import ROWS
from mainspring.training.flavours.estimators import imported
from mainspring.training.flavours.flavour import Artefact, flavour_of, framework_of
from mainspring.training.flavours.graph import content_of
from mainspring.training.flavours.torch import TorchFlavour, evaluating
from mainspring.training.frames import Array

_GOLDEN = 16
_DATATYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "uint8": "UINT8", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64",
}  # fmt: skip
Answers = Callable[[Mapping[str, Array]], Sequence[Array]]

BATCH = 128  # rows of a batch; a network may need millions of intermediate values per row
_MIXED, _ALONE, _OTHER_ROWS = 17, 16, 500
_LIMIT_S = 3600  # an encoder of usual size takes minutes
_MASK = "attention_mask"


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
            f"{type(network).__name__} is not a network of torch, Keras or transformers.",
            fix="return it from a training function, or register its file: `mainspring models add`.",
        )
    flavour = cast(TorchFlavour, flavour_of(network))
    torch = imported("torch", f"Exporting a {type(network).__name__}", flavour.extra)
    rows = {name: np.asarray(values) for name, values in examples.items()}
    _check_examples(rows)
    of_lengths = framework == "transformers" if sequences is None else sequences
    wrapper = _Network(torch, network, flavour, framework, tuple(rows), tuple(outputs))
    names = wrapper.names(rows)
    _check_names(names, tuple(rows))
    dynamic = [{0: "rows", **({1: "length"} if of_lengths else {})} for _ in rows]
    example = {name: torch.tensor(values[: max(2, min(3, len(values)))]) for name, values in rows.items()}
    model = wrapper.exported(example, names, dynamic)
    artefact = Artefact("onnx", "model.onnx", content_of(model))
    proof = prove_network(wrapper.answers, artefact, rows, sequences=of_lengths)
    few = {name: values[:_GOLDEN] for name, values in rows.items()}
    answers = dict(zip(names, wrapper.answers(few), strict=True))
    return Exported(
        artefact,
        tuple(_spec(name, values, of_lengths) for name, values in rows.items()),
        tuple(_output_spec(output) for output in model.graph.output),
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
        result = self._raw({name: values[:2] for name, values in rows.items()})
        if isinstance(result, Mapping):
            if not self._wanted:
                usual = [name for name in ("logits", "last_hidden_state") if name in result]
                self._wanted = tuple(usual[:1] or result)
            missing = sorted(set(self._wanted) - set(result))
            if missing:
                raise Invalid(f"The network does not return {missing}; it returns {sorted(result)}.")
            return self._wanted
        count = len(result) if isinstance(result, tuple | list) else 1
        names = self._wanted or (("output",) if count == 1 else tuple(f"output{place}" for place in range(count)))
        if len(names) != count:
            raise Invalid(f"The network returns {count} outputs, but {len(names)} names were given: {list(names)}.")
        return names

    def answers(self, rows: Mapping[str, Array]) -> list[Array]:
        """Return one array per output, of shape (rows, ...)."""
        count, parts = len(next(iter(rows.values()))), []
        for start in range(0, count, BATCH):
            outputs = self._picked(self._raw({name: values[start : start + BATCH] for name, values in rows.items()}))
            parts.append([self._flavour.as_array(output) for output in outputs])
        return [np.concatenate(batches) for batches in zip(*parts, strict=True)]

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
                f"{type(self._network).__name__} does not accept the examples: {str(error).strip().splitlines()[0]}",
                fix="give each input as an array of the type and shape that the network takes.",
            ) from error

    def _call(self, inputs: Sequence[Any]) -> Any:
        call = self._flavour.call(self._network)
        if self._framework == "transformers":
            return call(**dict(zip(self._inputs, inputs, strict=True)))
        if self._framework == "keras" and len(inputs) > 1:
            return call(list(inputs))
        return call(*inputs)

    def _picked(self, result: Any) -> tuple[Any, ...]:
        if isinstance(result, Mapping):
            return tuple(result[name] for name in self._wanted)
        return tuple(result) if isinstance(result, tuple | list) else (result,)


def _check_examples(rows: Mapping[str, Array]) -> None:
    counts = {len(values) for values in rows.values() if values.ndim}
    if len(counts) != 1 or min(counts) < 2 or any(not values.ndim for values in rows.values()):
        raise Invalid(
            f"The examples have {sorted(counts) or 'no'} rows; each input needs the same number, at least 2.",
            fix="give input -> array of shape (rows, ...).",
        )
    for name, values in rows.items():
        if values.dtype.name not in _DATATYPES:
            raise Invalid(f"The example {name!r} has the type {values.dtype}, which networks do not accept.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Invalid(f"The example {name!r} contains NaN or infinity.", fix="a tensor has no null: replace them.")


def _check_names(names: Sequence[str], inputs: Sequence[str]) -> None:
    doubled = sorted({name for name in names if list(names).count(name) > 1} | (set(names) & set(inputs)))
    if doubled:
        raise Invalid(f"{doubled} would name two tensors.", fix="give each output a unique name.")


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


def prove_network(answers: Answers, artefact: Artefact, examples: Mapping[str, Array], *, sequences: bool) -> Proof:
    """Compare a network with its exported model on 10,000 rows or more drawn from `examples`, alone and in batches.

    Args:
        answers: Calls the network: takes input -> rows, returns one array per output, each of shape (rows, ...).
        sequences: Whether the second dimension may vary; if so, shorter and padded rows are compared as well.

    Raises:
        NotConvertible: A row differs, or the network's output is NaN or depends on other rows or on the padding.
    """
    rng = np.random.default_rng(0)
    count, length = len(next(iter(examples.values()))), next(iter(examples.values())).shape[1:2]
    extremes = {name: _extremes(values) for name, values in examples.items()}
    drawn = rng.integers(0, count, max(ROWS, count))
    augmented = {name: np.concatenate([values[drawn], extremes[name]]) for name, values in examples.items()}
    cases = [("", _attended(augmented))]
    if sequences and length:
        for short in sorted({1, length[0] // 2} - {0, length[0]}):
            some = rng.integers(0, count, _OTHER_ROWS)
            cut = {name: values[some][:, :short] for name, values in examples.items()}
            cases.append((f" of length {short}", _attended(cut)))
    largest: dict[str, float] = {}
    none = True
    for case, rows in cases:
        differences, none_too = _compared(answers, artefact, rows, case)
        none &= none_too
        for batching, worst in differences.items():
            name = "other lengths" if case else batching
            largest[name] = max(largest.get(name, 0.0), worst)
    if sequences and _MASK in examples:
        largest["padding"] = _check_padding(
            answers, artefact, cases[-1][1] if len(cases) > 1 else cases[0][1], int(length[0])
        )
    total = sum(len(next(iter(rows.values()))) for _, rows in cases)
    return Proof(total, total - len(drawn), max(largest.values()), largest, none)


def _compared(
    answers: Answers, artefact: Artefact, rows: Mapping[str, Array], what: str
) -> tuple[dict[str, float], bool]:
    """Return kind of batching -> largest difference, and whether the model accepts an empty batch."""
    expected = _flat(answers, rows)
    if not np.isfinite(expected).all():
        row = int(np.flatnonzero(~np.isfinite(expected).all(axis=1))[0])
        raise NotConvertible(
            f"The network returns NaN or infinity for {int((~np.isfinite(expected).all(axis=1)).sum())} rows{what}, "
            f"such as {_shown(rows, row)}.",
            fix="check for a division by zero, a logarithm of zero, or a row whose mask hides all of it.",
        )
    for row in np.linspace(0, len(expected) - 1, _ALONE).astype(int):
        alone = _flat(answers, {name: values[row : row + 1] for name, values in rows.items()})[0]
        if not np.allclose(alone, expected[row], rtol=TOLERANCE, atol=TOLERANCE):
            raise NotConvertible(
                "The network's prediction for a row depends on the rows beside it, or on chance: "
                f"{np.abs(alone - expected[row]).max():.3g} off, for {_shown(rows, int(row))}.",
                fix="use statistics that training stores, and no dropout in predictions.",
            )
    batched = answer_afresh(artefact, rows, whole=BATCH, mixed=_MIXED, limit_s=_LIMIT_S)
    unit = max(1.0, float(np.std(expected)))
    largest: dict[str, float] = {}
    for actual, reference, batching in (
        (batched["whole"], expected, "in one batch"),
        (batched["mixed"], expected, "in small batches"),
        (batched["alone"], expected[batched["alone_rows"]], "one by one"),
    ):
        if actual.shape != reference.shape:
            raise NotConvertible(
                f"The export returns {actual.shape[1]} values per row, the network {reference.shape[1]}."
            )
        off = np.abs(actual - reference).max(axis=1)
        off[np.isnan(off)] = np.inf
        largest[batching] = float(off.max()) / unit
        if largest[batching] > TOLERANCE:
            row = int(off.argmax())
            row = int(batched["alone_rows"][row]) if batching == "one by one" else row
            raise NotConvertible(
                f"The export's predictions differ from the network's for {int((off > TOLERANCE * unit).sum())} of "
                f"{len(off)} rows{what} ({batching}), by up to {off.max():.3g}: {_shown(rows, row)}.",
                fix="remove from forward what depends on the other rows or on the batch size.",
            )
    return largest, "none" in batched


def _check_padding(answers: Answers, artefact: Artefact, rows: Mapping[str, Array], length: int) -> float:
    """Raise if padding a sequence changes the network's output, for then batching would change predictions.

    Return the largest difference of the export from the network on padded rows.
    """
    few = {name: values[:_ALONE] for name, values in rows.items()}
    short = few[_MASK].shape[1]
    if short == length:
        return 0.0
    padded = {
        name: np.pad(values, [(0, 0), (0, length - short), *[(0, 0)] * (values.ndim - 2)])
        for name, values in few.items()
    }
    for plain, longer in zip(answers(few), answers(padded), strict=True):
        by_position = longer.shape[1:2] == (length,) and plain.shape[1:2] == (short,)
        off = float(np.abs(plain - (longer[:, :short] if by_position else longer)).max())
        if off > TOLERANCE * max(1.0, float(np.std(plain))):
            raise NotConvertible(
                f"The network's prediction for a sequence of {short} changes when it is padded to {length}, by "
                f"{off:.3g}: its {_MASK} does not hide the padding.",
                fix="use the mask in forward, as attention and as pooling over positions do.",
            )
    return max(_compared(answers, artefact, padded, f" padded to {length}")[0].values())


def _attended(rows: dict[str, Array]) -> dict[str, Array]:
    """Return rows with at least one unmasked position: the output for a fully masked row is meaningless."""
    if _MASK in rows:
        rows[_MASK] = rows[_MASK].copy()
        rows[_MASK][:, 0] = 1
    return rows


def _extremes(values: Array) -> Array:
    """Return rows with the smallest, the largest and the value closest to zero seen at each position."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.stack([low, high, np.clip(np.zeros_like(low), low, high)]).astype(values.dtype)


def _flat(answers: Answers, rows: Mapping[str, Array]) -> Array:
    """Return all outputs concatenated, float64 of shape (rows, values), as `fresh` does."""
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in answers(rows)], axis=1)


def _shown(rows: Mapping[str, Array], row: int) -> str:
    return ", ".join(f"{name}={values[row].tolist()}" for name, values in rows.items())[:300]
