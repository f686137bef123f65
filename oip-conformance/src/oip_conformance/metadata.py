"""Checks of health, server metadata and model metadata."""

from __future__ import annotations

from typing import Any

from oip_conformance.check import Check, Failed, NotSupported
from oip_conformance.http_subject import HttpAnswer, HttpSubject
from oip_conformance.subject import Answer, Subject
from oip_conformance.tensors import DATATYPES


def server(subject: Subject) -> str:
    body = _ok(subject.server_metadata()).object()
    _text(body, "name")
    _text(body, "version")
    _texts(body, "extensions")
    return f"{body['name']} {body['version']}"


def model_is_ready(subject: Subject) -> str:
    if not subject.ready():
        raise Failed(f"{subject.model!r} is not ready")
    return ""


def unknown_is_not_ready(subject: Subject) -> str:
    if subject.ready(subject.unknown):
        raise Failed("a model that does not exist is ready")
    return ""


def model(subject: Subject) -> str:
    body = _ok(subject.model_metadata()).object()
    if _text(body, "name") != subject.model:
        raise Failed(f"'name' is {body['name']!r}, asked was {subject.model!r}")
    return f"platform {_text(body, 'platform')!r}"


def tensors(subject: Subject) -> str:
    found = []
    for side in ("inputs", "outputs"):
        described = subject.metadata.get(side)
        if not isinstance(described, list):
            raise Failed(f"{side!r} is not an array")
        for tensor in described:
            name = _text(tensor, "name")
            if _text(tensor, "datatype") not in DATATYPES:
                raise Failed(f"{side} {name!r}: there is no datatype {tensor['datatype']!r}")
            shape = tensor.get("shape")
            if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
                raise Failed(f"{side} {name!r}: {shape!r} is not a shape")
        found.append(f"{len(described)} {side}")
    return ", ".join(found)


def versions(subject: Subject) -> str:
    if "versions" not in subject.metadata:
        raise NotSupported("no versions")
    found = _texts(subject.metadata, "versions")
    if not found:
        raise NotSupported("no versions")
    for version in found:
        answer = subject.model_metadata(version=version)
        if not answer.ok:
            raise Failed(f"version {version!r} {answer.told}")
        if not subject.ready(version=version):
            raise Failed(f"version {version!r} is not ready")
    return ", ".join(found)


def unknown_model(subject: Subject) -> str:
    return subject.model_metadata(subject.unknown).error()


def unknown_version(subject: Subject) -> str:
    subject.versions  # noqa: B018 - raises where there are none
    return subject.model_metadata(version="no-such-version").error()


def _live(subject: HttpSubject) -> str:
    _answered(subject, "/v2/health/live")
    return ""


def _ready(subject: HttpSubject) -> str:
    _answered(subject, "/v2/health/ready")
    return ""


def _live_says(subject: HttpSubject) -> str:
    _says(_answered(subject, "/v2/health/live"), "live")
    return ""


def _ready_says(subject: HttpSubject) -> str:
    # The text's object for readiness says "live"; everybody reads it as a slip.
    _says(_answered(subject, "/v2/health/ready"), "ready", "live")
    return ""


def _model_ready_says(subject: HttpSubject) -> str:
    body = _says(_answered(subject, f"{subject.path}/ready"), "ready")
    if body.get("name") != subject.model:
        raise Failed(f"'name' is {body.get('name')!r}, asked was {subject.model!r}")
    return ""


def _answered(subject: HttpSubject, path: str) -> HttpAnswer:
    answer = subject.get(path)
    _ok(answer)
    return answer


def _says(answer: HttpAnswer, *words: str) -> dict[str, Any]:
    """Return the body of a probe, which has a boolean by one of these names."""
    if not answer.body.strip():
        raise NotSupported("the status alone, as in the specification's OpenAPI document")
    body = answer.object()
    if not any(isinstance(body.get(word), bool) for word in words):
        raise Failed(f"no boolean {' or '.join(map(repr, words))} in {answer.shown()}")
    return body


def _ok(answer: Answer) -> Answer:
    if not answer.ok:
        raise Failed(answer.told)
    return answer


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
    Check("server metadata", "Server Metadata Response JSON Object", "name, version and extensions", server),
    Check("model is ready", "Model Ready", "GET v2/models/$name/ready answers 200", model_is_ready),
    Check(
        "model ready, as JSON",
        "Model Ready Response JSON Object",
        'the body is {"name": $string, "ready": $bool}',
        _model_ready_says,
    ),
    Check("unknown model is not ready", "Model Ready", "readiness is of one model", unknown_is_not_ready),
    Check("model metadata", "Model Metadata Response JSON Object", "name and platform", model),
    Check("tensors of the metadata", "Model Metadata", "name, datatype and shape of every input and output", tensors),
    Check("versions of the metadata", "Model Metadata", "versions named there can be asked for explicitly", versions),
    Check("metadata of an unknown model", "Model Metadata Response JSON Error Object", _ERROR, unknown_model),
    Check("metadata of an unknown version", "Model Metadata Response JSON Error Object", _ERROR, unknown_version),
)
