"""Checks of requests that must be refused, with the error of the specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oip_conformance.check import Check, NotTested
from oip_conformance.subject import Subject
from oip_conformance.tensors import flat

Change = Callable[[Mapping[str, Any]], Any]


def refused(change: Change) -> Callable[[Subject], str]:
    """Return a check that a valid request, with this change, is refused."""

    def run(subject: Subject) -> str:
        subject.reply  # noqa: B018 - only a model that answers can be seen to refuse
        return subject.infer(change(subject.request)).error()

    return run


def first(**fields: Any) -> Change:
    """Return a change of the first input's fields. A function is called with the input."""

    def change(request: Mapping[str, Any]) -> Any:
        one, *rest = request["inputs"]
        made = {name: value(one) if callable(value) else value for name, value in fields.items()}
        return {**request, "inputs": [{**one, **made}, *rest]}

    return change


def _without(field: str) -> Change:
    def change(request: Mapping[str, Any]) -> Any:
        one, *rest = request["inputs"]
        return {**request, "inputs": [{name: value for name, value in one.items() if name != field}, *rest]}

    return change


def unknown_model(subject: Subject) -> str:
    return subject.infer(subject.request, model=subject.unknown).error()


def unknown_version(subject: Subject) -> str:
    subject.versions  # noqa: B018 - raises where there are none
    return subject.infer(subject.request, version="no-such-version").error()


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

    return refused(change)(subject)


unknown_datatype = refused(first(datatype="FP7"))
negative_dimension = refused(first(shape=lambda tensor: [-1, *tensor["shape"][1:]]))
too_little = refused(first(data=lambda tensor: flat(tensor["data"])[:-1]))
too_much = refused(first(data=lambda tensor: [*flat(tensor["data"]), flat(tensor["data"])[0]]))
missing_input = refused(lambda request: {**request, "inputs": request["inputs"][1:]})
unknown_input = refused(first(name="no_such_input"))
unknown_output = refused(lambda request: {**request, "outputs": [{"name": "no_such_output"}]})

_ERROR = "Inference Response JSON Error Object"

CHECKS = (
    Check("unknown model", _ERROR, "a failed request has an error status and an 'error'", unknown_model),
    Check("unknown version", _ERROR, "a failed request has an error status and an 'error'", unknown_version),
    Check("no JSON", _ERROR, "the body must be the JSON object", refused(lambda _: b'{"inputs": [')),
    Check("no object", "Inference Request JSON Object", "the body must be the JSON object", refused(lambda _: [])),
    Check("no inputs", "Inference Request JSON Object", "'inputs' is required", refused(lambda _: {})),
    Check("input without a name", "Request Input", "'name' is required", refused(_without("name"))),
    Check("input without a shape", "Request Input", "'shape' is required", refused(_without("shape"))),
    Check("input without a datatype", "Request Input", "'datatype' is required", refused(_without("datatype"))),
    Check("input without data", "Request Input", "'data' is required", refused(_without("data"))),
    Check("unknown datatype", "Tensor Data Types", "datatypes are those of the table", unknown_datatype),
    Check(
        "negative dimension",
        "Request Input",
        "each dimension is an unsigned 64-bit integer",
        negative_dimension,
    ),
    Check(
        "too little data",
        "Request Input",
        "shape and data represent the full contents of the batch",
        too_little,
    ),
    Check(
        "too much data",
        "Request Input",
        "shape and data represent the full contents of the batch",
        too_much,
    ),
    Check("words for numbers", "Tensor Data", "elements are of the tensor's datatype", _words_for_numbers),
    Check(
        "missing input",
        "Model Metadata Response JSON Object",
        "'inputs' are those required by the model",
        missing_input,
    ),
    Check("unknown input", "Request Input", "'name' is that of an input", unknown_input),
    Check(
        "unknown output",
        "Request Output",
        "'name' is that of an output",
        unknown_output,
    ),
)
