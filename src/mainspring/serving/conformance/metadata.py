"""Checks of health, server metadata and model metadata."""

from __future__ import annotations

from typing import Any

from mainspring.serving.conformance.check import Check
from mainspring.serving.conformance.results import Failed, NotSupported, NotTested
from mainspring.serving.conformance.subject import Subject
from mainspring.serving.conformance.tensors import DATATYPES
from mainspring.serving.conformance.wire import Answer


def _ok(answer: Answer) -> Answer:
    if not answer.ok:
        raise Failed(f"answered {answer.status}: {answer.shown()}")
    return answer


def _live(subject: Subject) -> str:
    _ok(subject.get("/v2/health/live"))
    return ""


def _ready(subject: Subject) -> str:
    _ok(subject.get("/v2/health/ready"))
    return ""


def _model_ready(subject: Subject) -> str:
    _ok(subject.get(f"{subject.path}/ready"))
    return ""


def _probe_says(subject: Subject, path: str, words: tuple[str, ...]) -> str:
    answer = _ok(subject.get(path))
    if not answer.body.strip():
        raise NotSupported("the status alone, as in the specification's OpenAPI document")
    body = answer.object()
    if not any(isinstance(body.get(word), bool) for word in words):
        raise Failed(f"no boolean {' or '.join(map(repr, words))} in {answer.shown()}")
    return ""


def _live_says(subject: Subject) -> str:
    return _probe_says(subject, "/v2/health/live", ("live",))


def _ready_says(subject: Subject) -> str:
    # The text's object for readiness says "live"; everybody reads it as a slip.
    return _probe_says(subject, "/v2/health/ready", ("ready", "live"))


def _model_ready_says(subject: Subject) -> str:
    found = _probe_says(subject, f"{subject.path}/ready", ("ready",))
    name = subject.get(f"{subject.path}/ready").object().get("name")
    if name != subject.model:
        raise Failed(f"'name' is {name!r}, asked was {subject.model!r}")
    return found


def _strangers_are_not_ready(subject: Subject) -> str:
    answer = subject.get(f"/v2/models/no-such-{subject.model.replace('/', '')[:40]}/ready")
    if answer.ok:
        raise Failed("a model that does not exist answered 200")
    return f"answered {answer.status}"


def _server(subject: Subject) -> str:
    body = _ok(subject.get("/v2")).object()
    _text(body, "name")
    _text(body, "version")
    _texts(body, "extensions")
    return f"{body['name']} {body['version']}"


def _model(subject: Subject) -> str:
    body = _ok(subject.get(subject.path)).object()
    if _text(body, "name") != subject.model:
        raise Failed(f"'name' is {body['name']!r}, asked was {subject.model!r}")
    return f"platform {_text(body, 'platform')!r}"


def _tensors(subject: Subject) -> str:
    found = []
    for side in ("inputs", "outputs"):
        tensors = subject.metadata.get(side)
        if not isinstance(tensors, list):
            raise Failed(f"{side!r} is no array")
        for tensor in tensors:
            name = _text(tensor, "name")
            if _text(tensor, "datatype") not in DATATYPES:
                raise Failed(f"{side} {name!r}: there is no datatype {tensor['datatype']!r}")
            shape = tensor.get("shape")
            if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
                raise Failed(f"{side} {name!r}: {shape!r} is no shape")
        found.append(f"{len(tensors)} {side}")
    return ", ".join(found)


def _versions(subject: Subject) -> str:
    if "versions" not in subject.metadata:
        raise NotSupported("no versions")
    versions = _texts(subject.metadata, "versions")
    if not versions:
        raise NotSupported("no versions")
    for version in versions:
        for path in (f"{subject.path}/versions/{version}", f"{subject.path}/versions/{version}/ready"):
            answer = subject.get(path)
            if not answer.ok:
                raise Failed(f"{path} answered {answer.status}: {answer.shown()}")
    return ", ".join(versions)


def _strangers(subject: Subject) -> str:
    return error_of(subject.get(f"/v2/models/no-such-{subject.model.replace('/', '')[:40]}"))


def _strange_version(subject: Subject) -> str:
    if not subject.versions:
        raise NotTested("no versions")
    return error_of(subject.get(f"{subject.path}/versions/no-such-version"))


def error_of(answer: Answer) -> str:
    """Return the message of an error response.

    Raises:
        Failed: It is none, or its body is not the specification's error object.
    """
    if answer.status < 400:
        raise Failed(f"answered {answer.status}: {answer.shown()}")
    body = answer.object()
    if not isinstance(body.get("error"), str):
        raise Failed(f"answered {answer.status} without a text in 'error': {answer.shown()}")
    return f"answered {answer.status}"


def _text(body: Any, field: str) -> str:
    value = body.get(field) if isinstance(body, dict) else None
    if not isinstance(value, str):
        raise Failed(f"{field!r} is {value!r}, no string")
    return value


def _texts(body: dict[str, Any], field: str) -> list[str]:
    value = body.get(field)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Failed(f"{field!r} is {value!r}, no array of strings")
    return value


_ERROR = 'an HTTP error status, and {"error": $string} as the body'

CHECKS = (
    Check("server is live", "Server Live", "GET v2/health/live answers 200", _live),
    Check("live, as JSON", "Server Live Response JSON Object", 'the body is {"live": $bool}', _live_says),
    Check("server is ready", "Server Ready", "GET v2/health/ready answers 200 where all models are", _ready),
    Check("ready, as JSON", "Server Ready Response JSON Object", 'the body is {"ready": $bool}', _ready_says),
    Check("server metadata", "Server Metadata Response JSON Object", "name, version and extensions", _server),
    Check("model is ready", "Model Ready", "GET v2/models/$name/ready answers 200", _model_ready),
    Check(
        "model ready, as JSON",
        "Model Ready Response JSON Object",
        'the body is {"name": $string, "ready": $bool}',
        _model_ready_says,
    ),
    Check("unknown model is not ready", "Model Ready", "readiness is of one model", _strangers_are_not_ready),
    Check("model metadata", "Model Metadata Response JSON Object", "name and platform", _model),
    Check("tensors of the metadata", "Model Metadata", "name, datatype and shape of every input and output", _tensors),
    Check("versions of the metadata", "Model Metadata", "versions named there can be asked for explicitly", _versions),
    Check("metadata of an unknown model", "Model Metadata Response JSON Error Object", _ERROR, _strangers),
    Check("metadata of an unknown version", "Model Metadata Response JSON Error Object", _ERROR, _strange_version),
)
