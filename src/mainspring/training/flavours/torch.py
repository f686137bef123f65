"""Flavour of torch modules: ONNX, by torch's exporter.

A module returned by a training function takes one matrix of the model's features, in their order, and returns a value,
a probability, or a probability per class. It is called in evaluation mode, whatever its current mode. Its attribute
`classes_` names the classes. A module with float64 parameters gets float64 inputs, any other float32.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import imported, only_numbers
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.flavours.graph import columns_first, content_of, name_outputs, without_notes
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 4096
_EXAMPLE_ROWS = 3  # more than one: an exporter may treat a dimension of 0 or 1 as a constant
_SLACK = 1e-6


class TorchFlavour:
    extra = "torch"

    def outputs(self, module: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
        if task != "multiclass":
            return tuple(labels) or (("value",) if task == "regression" else ("probability",))
        names = tuple(str(value) for value in getattr(module, "classes_", ()))
        if not names or len(set(names)) < len(names):
            raise NotConvertible(
                f"{type(module).__name__} does not name its classes: its attribute classes_ is {list(names)}.",
                fix='set module.classes_ = ["a", "b", ...], in the order of its outputs.',
            )
        return names

    def scores(self, module: Any, frame: pd.DataFrame, task: str) -> Array:
        torch = imported("torch", f"Asking a {type(module).__name__}", self.extra)
        matrix = frame.to_numpy(_float_of(module))
        call, batches = self.call(module), []
        with evaluating(module), torch.inference_mode():
            for start in range(0, len(matrix), _BATCH):
                part = torch.tensor(matrix[start : start + _BATCH])
                batches.append(self.as_array(call(part)).reshape(len(part), -1))
        answers = np.concatenate(batches).astype(np.float64) if batches else np.empty((0, 1))
        return self._checked(module, answers, task)

    def convert(
        self, module: Any, inputs: Sequence[Input], task: str, wide: Collection[str], labels: Sequence[str] = ()
    ) -> Artefact:
        torch = imported("torch", f"Converting a {type(module).__name__} to ONNX", self.extra)
        only_numbers(module, inputs, fix="encode them as numbers in a feature.")
        kind = _float_of(module)
        if wide and kind == np.float32:
            raise NotConvertible(
                f"{type(module).__name__} has float32 parameters, which cannot represent the values of {sorted(wide)}.",
                fix="declare or cast those features as ms.Float32, subtract a constant from them, or make the module "
                "float64: module.double().",
            )
        example = torch.zeros((_EXAMPLE_ROWS, len(inputs)), dtype=torch.float64 if kind == np.float64 else None)
        model = self.exported(module, self.call(module), {"matrix": example}, ["answer"], [{0: "rows"}])
        from onnx import TensorProto, helper

        columns_first(model, [column.name for column in inputs], TensorProto.DOUBLE if kind == np.float64 else 1)
        names = self.outputs(module, task, labels)
        answer = model.graph.output[0]
        dims = [dimension.dim_value for dimension in answer.type.tensor_type.shape.dim]
        width = dims[1] if len(dims) == 2 else 1
        if len(dims) > 2 or width not in ((1, 2) if task == "binary" else (len(names),)):
            raise _wrong_shape(module, ["rows", *dims[1:]], names)
        model.graph.initializer.append(helper.make_tensor("__matrix", TensorProto.INT64, [2], [-1, width]))
        model.graph.node.append(helper.make_node("Reshape", [answer.name, "__matrix"], ["__answers"]))
        picked = [width - 1] if task == "binary" else list(range(width))
        name_outputs(model, "__answers", picked, names, double=kind == np.float64)
        return Artefact("onnx", "model.onnx", content_of(model))

    def thresholds(self, _module: Any, _held_out: pd.DataFrame, _numeric: Sequence[str]) -> Mapping[str, Array]:
        return {}

    def call(self, module: Any) -> Callable[..., Any]:
        """Return the function that computes the module's outputs as in serving."""
        return module  # type: ignore[no-any-return]

    def as_array(self, answer: Any) -> Array:
        return np.asarray(answer.detach().cpu().numpy())

    def exported(
        self,
        module: Any,
        call: Callable[..., Any],
        example: Mapping[str, Any],
        outputs: Sequence[str],
        dynamic: Sequence[Mapping[int, str]],
    ) -> Any:
        """Export the module to an ONNX model.

        Args:
            call: Calls the module: takes the tensors of `example` by position, returns one tensor or a tuple.
            example: Input -> a tensor.
            dynamic: For each input, position -> name of its dynamic dimensions.

        Raises:
            NotConvertible: torch cannot trace it; the message has torch's reason.
            MissingExtra: onnxscript is not installed.
        """
        action = f"Converting a {type(module).__name__} to ONNX"
        torch, _ = imported("torch", action, self.extra), imported("onnxscript", action, self.extra)
        wrapped = _wrapped(torch, module, call)
        dims: dict[str, Any] = {}
        shapes = tuple(
            {position: dims.setdefault(n, torch.export.Dim(n)) for position, n in dimensions.items()}
            for dimensions in dynamic
        )
        try:
            with _quiet(), evaluating(module), torch.no_grad():
                program = torch.onnx.export(
                    wrapped.eval(),
                    tuple(example.values()),
                    dynamo=True,
                    verbose=False,
                    input_names=list(example),
                    output_names=list(outputs),
                    dynamic_shapes={"inputs": shapes},
                )
                model = program.model_proto
        except Exception as error:  # tracing raises arbitrary errors
            raise NotConvertible(
                f"{type(module).__name__} cannot be exported to ONNX: {_reason(error)}",
                fix="avoid Python control flow and the batch size in forward; see torch.export.",
            ) from error
        without_notes(model)
        return model

    def _checked(self, module: Any, answers: Array, task: str) -> Array:
        names = self.outputs(module, task)
        width = answers.shape[1]
        if task != "regression" and width not in ((1, 2) if task == "binary" else (len(names),)):
            raise _wrong_shape(module, ["rows", width], names)
        known = answers[np.isfinite(answers)]
        if task != "regression" and known.size and (known.min() < -_SLACK or known.max() > 1 + _SLACK):
            raise NotConvertible(
                f"{type(module).__name__} returns {known.min():.6g} to {known.max():.6g}, which are not probabilities.",
                fix="end it with torch.nn.Sigmoid() or torch.nn.Softmax(dim=1), and train on the layers before it.",
            )
        return answers[:, -1:] if task == "binary" else answers


def _wrong_shape(module: Any, shape: Sequence[Any], names: Sequence[str]) -> NotConvertible:
    return NotConvertible(
        f"{type(module).__name__} returns the shape {list(shape)}; {len(names)} values per row are needed: "
        f"{list(names)}."
    )


def _float_of(module: Any) -> Any:
    kinds = {str(each.dtype) for each in module.parameters()} & {"torch.float64"}
    return np.float64 if kinds else np.float32


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put the module and its submodules into evaluation mode inside the block, and restore their modes after it."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which logs every missing optional package."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _wrapped(torch: Any, module: Any, call: Callable[..., Any]) -> Any:
    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Any) -> Any:
            return call(*inputs)

    return Wrapped()


FLAVOUR = TorchFlavour()
