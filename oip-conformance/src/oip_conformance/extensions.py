"""Checks of optional extensions: binary tensors, compression, and the calls of Triton's clients. An extension can fail
only if the server's metadata announces it, or if the server implements half of it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from oip_conformance.check import Check, Failed, NotSupported, NotTested
from oip_conformance.http_subject import HttpAnswer, HttpSubject
from oip_conformance.subject import outputs_of, same_outputs
from oip_conformance.tensors import FORMATS, flat, pack, unpack

_BINARY = "binary_tensor_data"
_HEADER = "inference-header-content-length"
_MANY_ROWS = 256


def _lacking(subject: HttpSubject, extension: str, told: str) -> Exception:
    if extension in subject.extensions:
        return Failed(f"announced as {extension!r}, and {told}")
    return NotSupported(told)


def _packed(subject: HttpSubject) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the subject's request with binary inputs."""
    if any(each["datatype"] not in (*FORMATS, "BYTES") for each in subject.request["inputs"]):
        raise NotTested("an input's datatype has no binary form in the extension")
    parts = [pack(each["datatype"], flat(each["data"])) for each in subject.request["inputs"]]
    inputs = [
        {
            **{name: value for name, value in each.items() if name != "data"},
            "parameters": {**each.get("parameters", {}), "binary_data_size": len(part)},
        }
        for each, part in zip(subject.request["inputs"], parts, strict=True)
    ]
    request = {**subject.request, "inputs": inputs}
    if subject.beyond_json:
        request["parameters"] = {"binary_data_output": True}
    head = json.dumps(request).encode()
    headers = {"content-type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + b"".join(parts), headers


def _binary_inputs(subject: HttpSubject) -> str:
    expected = [] if subject.beyond_json else subject.outputs
    answer = subject.post(*_packed(subject))
    if not answer.ok:
        raise _lacking(subject, _BINARY, answer.told)
    same_outputs(_unpacked(answer), expected)
    return "same answer as to JSON" if expected else "there is nothing in JSON to compare with"


def _binary_outputs(subject: HttpSubject) -> str:
    expected = subject.outputs
    answer = subject.infer({**subject.request, "parameters": {"binary_data_output": True}})
    if not answer.ok or _HEADER not in answer.headers:
        raise _lacking(subject, _BINARY, f"binary_data_output gets {answer.status} in JSON")
    same_outputs(_unpacked(answer), expected)
    return ""


def _one_binary_output(subject: HttpSubject) -> str:
    expected = subject.outputs
    wanted = [{"name": each["name"], "parameters": {"binary_data": place == 0}} for place, each in enumerate(expected)]
    answer = subject.infer({**subject.request, "outputs": wanted})
    if not answer.ok or _HEADER not in answer.headers:
        raise _lacking(subject, _BINARY, f"binary_data gets {answer.status} in JSON")
    found = _unpacked(answer)
    same_outputs(found, expected)
    in_json = [each["name"] for each in found if "binary_data_size" not in each.get("parameters", {})]
    if in_json != [each["name"] for each in expected[1:]]:
        raise Failed(f"in JSON were {in_json}")
    return ""


def _cut_off(subject: HttpSubject) -> str:
    body, headers = _packed(subject)
    if not subject.post(body, headers).ok:
        raise NotSupported("no binary inputs")
    return subject.post(body[:-1], headers).error()


def _wrong_header_length(subject: HttpSubject) -> str:
    body, headers = _packed(subject)
    if not subject.post(body, headers).ok:
        raise NotSupported("no binary inputs")
    return subject.post(body, {**headers, "Inference-Header-Content-Length": str(len(body) + 1)}).error()


def _compressed(subject: HttpSubject, encoding: str, body: bytes) -> str:
    expected = subject.outputs
    answer = subject.post(body, {"content-type": "application/json", "content-encoding": encoding})
    if not answer.ok:
        raise NotSupported(answer.told)
    same_outputs(outputs_of(answer.object()), expected)
    return ""


def _gzip_in(subject: HttpSubject) -> str:
    return _compressed(subject, "gzip", gzip.compress(json.dumps(subject.request).encode()))


def _deflate_in(subject: HttpSubject) -> str:
    return _compressed(subject, "deflate", zlib.compress(json.dumps(subject.request).encode()))


def _gzip_out(subject: HttpSubject) -> str:
    subject.reply  # noqa: B018
    request = subject.request_of(_MANY_ROWS)  # servers leave small answers as they are
    expected = subject.infer(request)
    headers = {"content-type": "application/json", "accept-encoding": "gzip"}
    answer = subject.post(json.dumps(request).encode(), headers)
    if not (answer.ok and expected.ok):
        raise Failed(f"a request of {_MANY_ROWS} rows answered {expected.status}, with Accept-Encoding {answer.status}")
    if answer.headers.get("content-encoding") != "gzip":
        raise NotSupported(f"{len(answer.body)} bytes came as they are")
    try:
        plain = HttpAnswer(200, answer.headers, gzip.decompress(answer.body))
    except (OSError, EOFError, zlib.error):
        raise Failed("the reply says gzip and is not") from None
    same_outputs(outputs_of(plain.object()), outputs_of(expected.object()))
    return ""


def _repository(subject: HttpSubject) -> str:
    answer = subject.index()
    if not answer.ok:
        raise _lacking(subject, "model_repository", f"answered {answer.status}")
    names = {each.get("name") for each in answer.json()}
    if subject.model not in names:
        raise Failed(f"{subject.model!r} is not among {sorted(map(str, names))}")
    return ""


def _statistics(subject: HttpSubject) -> str:
    return _triton(subject, "statistics", "stats", "model_stats")


def _configuration(subject: HttpSubject) -> str:
    return _triton(subject, "model_configuration", "config", "name")


def _triton(subject: HttpSubject, extension: str, path: str, field: str) -> str:
    answer = subject.get(f"{subject.path}/{path}")
    if not answer.ok:
        raise _lacking(subject, extension, f"answered {answer.status}")
    if field not in answer.object():
        raise Failed(f"no {field!r} in {answer.shown()}")
    return ""


def _unpacked(answer: HttpAnswer) -> list[dict[str, Any]]:
    """Return a reply's tensors with their data, whichever way it came.

    Raises:
        Failed: The sizes that the reply says do not add up.
    """
    size = answer.headers.get(_HEADER)
    if size is None:
        return outputs_of(answer.object())
    if not size.isdigit() or int(size) > len(answer.body):
        raise Failed(f"Inference-Header-Content-Length is {size}, of {len(answer.body)} bytes")
    outputs = outputs_of(HttpAnswer(200, answer.headers, answer.body[: int(size)]).object())
    at = int(size)
    for tensor in outputs:
        length = tensor.get("parameters", {}).get("binary_data_size")
        if length is not None:
            tensor["data"] = unpack(tensor["datatype"], answer.body[at : at + length])
            at += length
    if at != len(answer.body):
        raise Failed(f"the tensors end at byte {at}, the body at {len(answer.body)}")
    return outputs


_SECTION = "Binary Tensor Data Extension"
_LITTLE = "little-endian, row-major bytes after the JSON"

CHECKS = (
    Check("binary inputs", _SECTION, f"binary_data_size: {_LITTLE}", _binary_inputs),
    Check("all outputs binary", _SECTION, "binary_data_output: bytes after the JSON", _binary_outputs),
    Check("one output binary", _SECTION, "binary_data on an output overrides the rest", _one_binary_output),
    Check("binary input cut off", _SECTION, "the body has as many bytes as the sizes say", _cut_off),
    Check("wrong length of the JSON", _SECTION, "Inference-Header-Content-Length is the JSON's", _wrong_header_length),
    Check("gzip in", "HTTP Content-Encoding", "a compressed request", _gzip_in),
    Check("deflate in", "HTTP Content-Encoding", "a compressed request", _deflate_in),
    Check("gzip out", "HTTP Accept-Encoding", "a compressed reply", _gzip_out),
    Check("repository index", "Model Repository Extension", "POST v2/repository/index lists the models", _repository),
    Check("statistics", "Statistics Extension", "GET v2/models/$name/stats", _statistics),
    Check("configuration", "Model Configuration Extension", "GET v2/models/$name/config", _configuration),
)
