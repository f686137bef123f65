"""Checks of a server over gRPC. Those of health, metadata, inference and refusals that HTTP has too are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance import inference, metadata, refusals
from oip_conformance.check import Check, Failed, NotTested
from oip_conformance.grpc_subject import CONTENTS, GrpcSubject
from oip_conformance.refusals import refused
from oip_conformance.subject import outputs_of, same_outputs


def _live(subject: GrpcSubject) -> str:
    if not subject.call("ServerLive").object()["live"]:
        raise Failed("'live' is false")
    return ""


def _ready(subject: GrpcSubject) -> str:
    if not subject.call("ServerReady").object()["ready"]:
        raise Failed("'ready' is false")
    return ""


def _typed_contents(subject: GrpcSubject) -> str:
    _check_typed(subject)
    _answered_as_expected(subject, subject.message(subject.request, raw=False))
    return ""


def _raw_contents(subject: GrpcSubject) -> str:
    _answered_as_expected(subject, subject.message(subject.request, raw=True))
    return ""


def _answered_as_expected(subject: GrpcSubject, message: Any) -> None:
    expected = subject.outputs
    answer = subject.call("ModelInfer", message)
    if not answer.ok:
        raise Failed(answer.told)
    same_outputs(outputs_of(answer.object()), expected)


def _check_typed(subject: GrpcSubject) -> None:
    if any(each["datatype"] not in CONTENTS for each in subject.request["inputs"]):
        raise NotTested("an input is FP16, which typed contents do not carry")


def _refused_message(change: Callable[[Any], None], *, raw: bool = True) -> Callable[[GrpcSubject], str]:
    """Return a check that a valid message, changed in place, is refused."""

    def run(subject: GrpcSubject) -> str:
        subject.reply  # noqa: B018 - only a model that answers can be seen to refuse
        if not raw:
            _check_typed(subject)
        message = subject.message(subject.request, raw=raw)
        change(message)
        return subject.call("ModelInfer", message).error()

    return run


def _cut(message: Any) -> None:
    message.raw_input_contents[0] = message.raw_input_contents[0][:-1]


def _drop(message: Any) -> None:
    del message.raw_input_contents[-1]


def _spare(message: Any) -> None:
    message.raw_input_contents.append(b"\0")


def _both(subject: GrpcSubject) -> str:
    subject.reply  # noqa: B018
    _check_typed(subject)
    message = subject.message(subject.request, raw=False)
    message.raw_input_contents.extend(subject.message(subject.request, raw=True).raw_input_contents)
    return subject.call("ModelInfer", message).error()


def _in_another_field(message: Any) -> None:
    contents = message.inputs[0].contents
    of_texts = bool(contents.bytes_contents)
    contents.Clear()
    if of_texts:
        contents.int64_contents.append(0)
    else:
        contents.bytes_contents.append(b"word")


_STATUS = "the OK code indicates success and other codes indicate failure"
_SIZE = "the size must match the tensor's shape and datatype"
_CONTENTS = "Tensor Data"

GROUPS = (
    (
        "Health and metadata",
        (
            Check("server is live", "Server Live", "'live' is true", _live),
            Check("server is ready", "Server Ready", "'ready' is true where all models are", _ready),
            Check("server metadata", "Server Metadata", "name, version and extensions", metadata.server),
            Check("model is ready", "Model Ready", "'ready' is true", metadata.model_is_ready),
            Check(
                "unknown model is not ready", "Model Ready", "readiness is of one model", metadata.unknown_is_not_ready
            ),
            Check("model metadata", "Model Metadata", "name and platform", metadata.model),
            Check(
                "tensors of the metadata",
                "Model Metadata",
                "name, datatype and shape of every input and output",
                metadata.tensors,
            ),
            Check("versions of the metadata", "Model Metadata", "versions can be requested", metadata.versions),
            Check("metadata of an unknown model", "Model Metadata", _STATUS, metadata.unknown_model),
            Check("metadata of an unknown version", "Model Metadata", _STATUS, metadata.unknown_version),
        ),
    ),
    (
        "Inference",
        (
            Check("a valid request", "Inference", "OK, and the model's name", inference.answers),
            Check("outputs are tensors", _CONTENTS, "name, shape, datatype, and data as they say", inference.outputs),
            Check(
                "outputs as declared",
                "Model Metadata",
                "datatypes and shapes are those of the metadata",
                inference.as_declared,
            ),
            Check("all outputs by default", "Inference", "without 'outputs' all are returned", inference.all_outputs),
            Check("chosen outputs", "Inference", "'outputs' says which tensors are returned", inference.chosen_outputs),
            Check("id is returned", "Inference", "an identifier given must be returned", inference.id_is_returned),
            Check("inputs in any order", "Inference", "inputs are known by their names", inference.any_order),
            Check("inference by version", "Inference", "model_version says which answered", inference.by_version),
            Check("typed contents", _CONTENTS, "data in the field of their datatype", _typed_contents),
            Check("raw contents", _CONTENTS, "data as bytes, for each input in order", _raw_contents),
        ),
    ),
    (
        "Refusals",
        (
            Check("unknown model", "Inference", _STATUS, refusals.unknown_model),
            Check("unknown version", "Inference", _STATUS, refusals.unknown_version),
            Check(
                "no inputs",
                "Inference",
                "the metadata's inputs are required",
                refused(lambda request: {**request, "inputs": []}),
            ),
            Check("unknown datatype", "Tensor Data Types", "those of the table", refusals.unknown_datatype),
            Check("negative dimension", "Inference", "a shape is one of data", refusals.negative_dimension),
            Check("too little data", _CONTENTS, _SIZE, refusals.too_little),
            Check("too much data", _CONTENTS, _SIZE, refusals.too_much),
            Check("missing input", "Inference", "the metadata's inputs are required", refusals.missing_input),
            Check("unknown input", "Inference", "inputs are those of the metadata", refusals.unknown_input),
            Check("unknown output", "Inference", "outputs are those of the metadata", refusals.unknown_output),
            Check(
                "contents of another datatype",
                _CONTENTS,
                "data are in the field that matches the datatype",
                _refused_message(_in_another_field, raw=False),
            ),
            Check("raw contents cut off", _CONTENTS, _SIZE, _refused_message(_cut)),
            Check("raw contents of one input less", _CONTENTS, "one for each input", _refused_message(_drop)),
            Check("raw contents of one input more", _CONTENTS, "one for each input", _refused_message(_spare)),
            Check("raw and typed contents", _CONTENTS, "contents must not be specified beside raw contents", _both),
        ),
    ),
)
