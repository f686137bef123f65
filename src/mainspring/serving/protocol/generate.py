"""The generate extension of the Open Inference Protocol: one row, whose inputs and outputs are fields of JSON objects.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/generate_rest.yaml, with the names of
the model's own tensors, as Triton has it:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.core.json_content import decoded
from mainspring.registry.model import TensorSpec
from mainspring.serving.protocol.asked import Answered

_OTHERS = ("id", "parameters")


def as_infer(body: bytes | memoryview, inputs: Sequence[TensorSpec]) -> bytes:
    """Return a request of the extension as the body of an `infer`.

    Raises:
        Invalid: It is no object of inputs, or an input is missing or unevenly nested.
    """
    try:
        given = decoded(body, dict[str, Any])
    except msgspec.DecodeError as error:
        raise Invalid(f"The request does not follow the protocol: {error}.") from None
    known = {spec.name: spec for spec in inputs}
    for name in given:
        if name not in known and name not in _OTHERS:
            raise Invalid(f"There is no input {name[:100]!r}.", fix=f"the inputs are {', '.join(known)}.")
    tensors = []
    for name, spec in known.items():
        if name not in given:
            raise Invalid(f"Input {name!r} is missing.")
        tensors.append({"name": name, "datatype": spec.datatype, **_flat(given[name], spec)})
    document = {"inputs": tensors, **{name: given[name] for name in _OTHERS if name in given}}
    return msgspec.json.encode(document)


def generated(answered: Answered) -> bytes:
    """Return an answer to one row as an event's data: output -> value, beside the model and its version."""
    values = {each.name: _of_one(np.asarray(each.data)) for each in answered.outputs}
    named = {"model_name": answered.model_name, "model_version": answered.model_version}
    identified = {"id": answered.id} if answered.id is not None else {}
    return msgspec.json.encode({**named, **identified, "parameters": answered.parameters, **values})


def _flat(value: Any, spec: TensorSpec) -> dict[str, Any]:
    array = np.empty((), object) if not isinstance(value, list) else np.array(value, object)
    if not isinstance(value, list):
        array[()] = value
    shape = [1, *array.shape]
    if len(shape) < len(spec.shape) and array.size == 1:  # one value where the model has a vector of one
        shape += [1] * (len(spec.shape) - len(shape))
    return {"shape": shape, "data": array.ravel().tolist()}


def _of_one(array: np.ndarray[Any, Any]) -> Any:
    value = array[0].tolist() if hasattr(array[0], "tolist") else array[0]
    return value[0] if isinstance(value, list) and len(value) == 1 else value
