"""Inference that must fail: with an HTTP error status, and an error object as the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.serving.conformance.check import Check
from mainspring.serving.conformance.metadata import error_of
from mainspring.serving.conformance.results import NotTested
from mainspring.serving.conformance.subject import Subject
from mainspring.serving.conformance.tensors import flat

_Change = Callable[[Mapping[str, Any]], Any]


def _refused(change: _Change) -> Callable[[Subject], str]:
    """Return a check by which a valid request, changed so, is refused."""

    def run(subject: Subject) -> str:
        subject.reply  # noqa: B018 - only a model that answers can be seen to refuse
        return error_of(subject.infer(change(subject.request)))

    return run


def _first(**fields: Any) -> _Change:
    """Return the change of fields of the first input; what is a function is given the input."""

    def change(request: Mapping[str, Any]) -> Any:
        first, *rest = request["inputs"]
        made = {name: value(first) if callable(value) else value for name, value in fields.items()}
        return {**request, "inputs": [{**first, **made}, *rest]}

    return change


def _without(field: str) -> _Change:
    def change(request: Mapping[str, Any]) -> Any:
        first, *rest = request["inputs"]
        return {**request, "inputs": [{name: value for name, value in first.items() if name != field}, *rest]}

    return change


def _unknown_model(subject: Subject) -> str:
    path = f"/v2/models/no-such-{subject.model.replace('/', '')[:40]}/infer"
    return error_of(subject.infer(subject.request, path=path))


def _unknown_version(subject: Subject) -> str:
    if not subject.versions:
        raise NotTested("no versions")
    return error_of(subject.infer(subject.request, path=f"{subject.path}/versions/no-such-version/infer"))


def _words_for_numbers(subject: Subject) -> str:
    numbers = [each["name"] for each in subject.request["inputs"] if each["datatype"] not in ("BYTES", "BOOL")]
    if not numbers:
        raise NotTested("the model takes no numbers")

    def change(request: Mapping[str, Any]) -> Any:
        inputs = [
            {**each, "data": ["word"] * len(flat(each["data"]))} if each["name"] == numbers[0] else each
            for each in request["inputs"]
        ]
        return {**request, "inputs": inputs}

    return _refused(change)(subject)


_ERROR = "Inference Response JSON Error Object"

CHECKS = (
    Check("unknown model", _ERROR, "a failed request has an error status and an 'error'", _unknown_model),
    Check("unknown version", _ERROR, "a failed request has an error status and an 'error'", _unknown_version),
    Check("no JSON", _ERROR, "the body must be the JSON object", _refused(lambda _: b'{"inputs": [')),
    Check("no object", "Inference Request JSON Object", "the body must be the JSON object", _refused(lambda _: [])),
    Check("no inputs", "Inference Request JSON Object", "'inputs' is required", _refused(lambda _: {})),
    Check("input without a name", "Request Input", "'name' is required", _refused(_without("name"))),
    Check("input without a shape", "Request Input", "'shape' is required", _refused(_without("shape"))),
    Check("input without a datatype", "Request Input", "'datatype' is required", _refused(_without("datatype"))),
    Check("input without data", "Request Input", "'data' is required", _refused(_without("data"))),
    Check(
        "unknown datatype", "Tensor Data Types", "datatypes are those of the table", _refused(_first(datatype="FP7"))
    ),
    Check(
        "negative dimension",
        "Request Input",
        "each dimension is an unsigned 64-bit integer",
        _refused(_first(shape=lambda tensor: [-1, *tensor["shape"][1:]])),
    ),
    Check(
        "too little data",
        "Request Input",
        "shape and data represent the full contents of the batch",
        _refused(_first(data=lambda tensor: flat(tensor["data"])[:-1])),
    ),
    Check(
        "too much data",
        "Request Input",
        "shape and data represent the full contents of the batch",
        _refused(_first(data=lambda tensor: [*flat(tensor["data"]), flat(tensor["data"])[0]])),
    ),
    Check("words for numbers", "Tensor Data", "elements are of the tensor's datatype", _words_for_numbers),
    Check(
        "missing input",
        "Model Metadata Response JSON Object",
        "'inputs' are those required by the model",
        _refused(lambda request: {**request, "inputs": request["inputs"][1:]}),
    ),
    Check("unknown input", "Request Input", "'name' is that of an input", _refused(_first(name="no_such_input"))),
    Check(
        "unknown output",
        "Request Output",
        "'name' is that of an output",
        _refused(lambda request: {**request, "outputs": [{"name": "no_such_output"}]}),
    ),
)
