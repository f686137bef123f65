"""Checks of inference: the answers to valid requests."""

from __future__ import annotations

import math
from typing import Any

from oip_conformance.check import Check, Failed, NotSupported, NotTested
from oip_conformance.http_subject import HttpSubject
from oip_conformance.subject import Subject, outputs_of, same_outputs
from oip_conformance.tensors import DATATYPES, flat, nested


def answers(subject: Subject) -> str:
    answer = subject.infer(subject.request)
    if not answer.ok and subject.beyond_json:
        raise NotTested("an input is FP16, which JSON does not carry")
    if not answer.ok:
        raise Failed(answer.told)
    name = answer.object().get("model_name")
    if name != subject.model:
        raise Failed(f"'model_name' is {name!r}, asked was {subject.model!r}")
    return ", ".join(f"{each['name']}: {each['datatype']} {each['shape']}" for each in subject.outputs)


def _answers_json(subject: HttpSubject) -> str:
    said = answers(subject)
    kind = subject.infer(subject.request).headers.get("content-type", "").partition(";")[0]
    if kind != "application/json":
        raise Failed(f"the content type is {kind!r}")
    return said


def outputs(subject: Subject) -> str:
    for tensor in subject.outputs:
        name, shape = tensor.get("name"), tensor.get("shape")
        if not isinstance(name, str):
            raise Failed(f"an output's name is {name!r}")
        if tensor.get("datatype") not in DATATYPES:
            raise Failed(f"output {name!r}: there is no datatype {tensor.get('datatype')!r}")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise Failed(f"output {name!r}: {shape!r} is not a shape")
        if not isinstance(tensor.get("data"), list):
            raise Failed(f"output {name!r} has no data")
        count = len(flat(tensor["data"]))
        if count != math.prod(shape):
            raise Failed(f"output {name!r} has the shape {shape} and {count} elements")
    return ""


def as_declared(subject: Subject) -> str:
    declared = {each["name"]: each for each in subject.declared("outputs")}
    for tensor in subject.outputs:
        said = declared.get(tensor["name"])
        if said is None:
            raise Failed(f"output {tensor['name']!r} is not in the metadata")
        if tensor["datatype"] != said["datatype"]:
            raise Failed(f"output {tensor['name']!r} is {tensor['datatype']}, its metadata says {said['datatype']}")
        if len(said["shape"]) != len(tensor["shape"]) or any(
            size not in (-1, real) for size, real in zip(said["shape"], tensor["shape"], strict=True)
        ):
            raise Failed(f"output {tensor['name']!r} is {tensor['shape']}, its metadata says {said['shape']}")
    return ""


def all_outputs(subject: Subject) -> str:
    missing = {each["name"] for each in subject.declared("outputs")} - {each["name"] for each in subject.outputs}
    if missing:
        raise Failed(f"missing: {', '.join(sorted(missing))}")
    return ""


def chosen_outputs(subject: Subject) -> str:
    wanted = subject.outputs[-1]["name"]
    found = [each["name"] for each in asked(subject, outputs=[{"name": wanted}])]
    if found != [wanted]:
        raise Failed(f"asked was {wanted!r}, answered {found}")
    if len(subject.outputs) == 1:
        return "the model has one output only"
    return ""


def id_is_returned(subject: Subject) -> str:
    subject.reply  # noqa: B018
    answer = subject.infer({**subject.request, "id": "conformance-42"})
    found = answer.object().get("id") if answer.ok else answer.told
    if found != "conformance-42":
        raise Failed(f"sent was 'conformance-42', back came {found!r}")
    return ""


def _nested(subject: Subject) -> str:
    inputs = subject.request["inputs"]
    if all(len(each["shape"]) < 2 for each in inputs):
        raise NotTested("no input has more than one dimension")
    as_nested = [{**each, "data": nested(flat(each["data"]), each["shape"])} for each in inputs]
    as_flat = [{**each, "data": flat(each["data"])} for each in inputs]
    same_outputs(asked(subject, inputs=as_nested), asked(subject, inputs=as_flat))
    return ""


def _empty_parameters(subject: Subject) -> str:
    inputs = [{**each, "parameters": each.get("parameters", {})} for each in subject.request["inputs"]]
    outputs = [{"name": each["name"], "parameters": {}} for each in subject.outputs]
    same_outputs(asked(subject, inputs=inputs, outputs=outputs, parameters={}), subject.outputs)
    return ""


def _strange_parameter(subject: Subject) -> str:
    subject.reply  # noqa: B018
    answer = subject.infer({**subject.request, "parameters": {"conformance_unknown": "x"}})
    if not answer.ok:
        raise NotSupported(answer.told)
    return "ignored"


def any_order(subject: Subject) -> str:
    inputs = subject.request["inputs"]
    if len(inputs) < 2:
        raise NotTested("the model has one input only")
    same_outputs(asked(subject, inputs=inputs[::-1]), subject.outputs)
    return ""


def by_version(subject: Subject) -> str:
    subject.reply  # noqa: B018
    for version in subject.versions:
        answer = subject.infer(subject.request, version=version)
        if not answer.ok:
            raise Failed(f"version {version!r} {answer.told}")
        found = answer.object().get("model_version")
        if found != version:
            raise Failed(f"asked was version {version!r}, answered {found!r}")
    return ""


def asked(subject: Subject, **changes: Any) -> list[dict[str, Any]]:
    """Return the outputs of a request with these fields changed, which the model must answer."""
    subject.reply  # noqa: B018 - a model that answers nothing is another check's
    answer = subject.infer({**subject.request, **changes})
    if not answer.ok:
        raise Failed(answer.told)
    return outputs_of(answer.object())


_OUTPUT = "Response Output"

CHECKS = (
    Check("a valid request", "Inference Response JSON Object", "200, and a JSON object with model_name", _answers_json),
    Check("outputs are tensors", _OUTPUT, "name, shape, datatype, and data as the shape says", outputs),
    Check("outputs as declared", "Model Metadata", "datatypes and shapes are those of the metadata", as_declared),
    Check("all outputs by default", "Inference Request JSON Object", "without 'outputs' all are returned", all_outputs),
    Check("chosen outputs", "Request Output", "'outputs' says which tensors are returned", chosen_outputs),
    Check("id is returned", "Inference Request JSON Object", "an identifier given must be returned", id_is_returned),
    Check("nested and flat data", "Tensor Data", "elements may be nested by dimension or flattened", _nested),
    Check("empty parameters", "Parameters", "zero or more, on the request, inputs and outputs", _empty_parameters),
    Check("unknown parameter", "Parameters", "none are defined; servers may have their own", _strange_parameter),
    Check("inputs in any order", "Request Input", "inputs are known by their names", any_order),
    Check(
        "inference by version", "Inference", "the version of the path answers, and model_version says so", by_version
    ),
)
