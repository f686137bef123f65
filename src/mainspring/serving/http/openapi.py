"""The data plane as an OpenAPI document, with each endpoint's inputs and outputs by name, type and shape.

OpenAPI 3.1, whose schemas are JSON Schema 2020-12. It is made of what is served at this moment, so it is asked for
anew after a promotion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mainspring.core.version import __version__
from mainspring.serving.explanation import Explanation
from mainspring.serving.http.tensor_schemas import Schema, reply_schema, request_schema
from mainspring.serving.plane.live import Served

_BINARY_HEADER = "Inference-Header-Content-Length"
_ERRORS = {
    "400": "The body is not JSON, does not follow the protocol, or has wrong names, types, shapes or values.",
    "401": "The API key is missing, unknown, revoked or expired.",
    "403": "The API key lacks the permission, or the Host is not served here.",
    "404": "There is no such endpoint, version or path.",
    "405": "The path does not support this method.",
    "408": "The body was not received in time.",
    "413": "The body is too large, as sent or decompressed.",
    "415": "The Content-Encoding is not one of gzip, deflate, identity.",
    "429": "The queue is full, or a quota of the caller is spent.",
    "431": "The headers are too large.",
    "500": "The model failed.",
    "503": "The response would miss the deadline, or a part of the server does not respond.",
    "507": "The prediction log has no space left; nothing was predicted.",
}
_RETRIED = ("429", "503")
_OPEN = ("400", "403")  # what may come of any request at all
_ASKED = (*_OPEN, "401", "404")
_INFERRED = (*_ASKED, "408", "413", "415", "429", "500", "503", "507")

# Template -> what it is for, and what it answers with: a schema of `_ANSWERS`, or nothing that has one. Routes that are
# not here only refuse Triton's clients, in words.
_GENERATE = "/v2/models/{model}/generate_stream"
_SAYS: dict[str, tuple[str, str]] = {
    "/v2/health/live": ("The process responds.", "Live"),
    "/v2/health/ready": ("Every endpoint can be served.", "Ready"),
    "/v2": ("Name, version and extensions of the server.", "Server"),
    "/v2/openapi.json": ("This document.", ""),
    "/v2/models/{model}": ("Inputs and outputs of the endpoint.", "Model"),
    "/v2/models/{model}/ready": ("Readiness of the endpoint.", "ModelReady"),
    "/v2/models/{model}/infer": ("A prediction.", ""),
    _GENERATE: ("A prediction in events, of a model that yields.", ""),
    "/v2/models/{model}/explain": ("A prediction, and how much each input moved it.", ""),
    "/v2/models/{model}/config": ("The model's configuration, in Triton's schema.", "Any"),
    "/v2/models/{model}/stats": ("Number and duration of predictions, in Triton's schema.", "Any"),
    "/v2/models/stats": ("The statistics of every model, in Triton's schema.", "Any"),
    "/v2/repository/index": ("Names, versions and states of the served models.", "Index"),
    "/metrics": ("Prometheus text.", ""),
}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_TENSORS = {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
_ANSWERS: dict[str, Schema] = {
    "Any": {"type": "object"},
    "Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
    "IndexRequest": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    "Index": {
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT, "version": _TEXT}},
    },
    "Live": {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}},
    "Ready": {
        "type": "object",
        "required": ["ready"],
        "properties": {
            "ready": {"type": "boolean"},
            "error": _TEXT,
            "catalog_stale_since": _TEXT,
            "catalog_went_back": {"type": "boolean"},
        },
    },
    "Server": {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {"name": _TEXT, "version": _TEXT, "extensions": _TEXTS},
    },
    "Tensor": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array", "items": {"type": "integer"}}},
    },
    "Model": {
        "type": "object",
        "required": ["name", "platform", "inputs", "outputs"],
        "properties": {
            "name": _TEXT,
            "versions": _TEXTS,
            "platform": _TEXT,
            "inputs": _TENSORS,
            "outputs": _TENSORS,
            "parameters": {"type": "object"},
        },
    },
    "ModelReady": {
        "type": "object",
        "required": ["name", "ready"],
        "properties": {"name": _TEXT, "version": _TEXT, "ready": {"type": "boolean"}},
    },
    "Parameters": {
        "type": "object",
        "description": "Other parameters are ignored, as the protocol requires.",
        "properties": {
            "feature_statuses": {"type": "boolean", "description": "Return the status of each stored feature."},
            "timeout": {"type": "integer", "minimum": 0, "maximum": 2**62, "description": "Microseconds."},
            "priority": {
                "type": "integer",
                "minimum": 0,
                "maximum": 2**32,
                "description": "1 is the highest priority, 0 the lowest.",
            },
            "binary_data_output": {"type": "boolean", "description": "Return outputs as bytes after the JSON."},
        },
    },
}


Further = tuple[Schema, Schema]  # paths and schemas


def document(
    served: Mapping[str, Served], routes: Iterable[tuple[str, str, bool]], further: Further | None = None
) -> Schema:
    """Return the document.

    Args:
        served: Endpoint -> what serves it.
        routes: Method and template of each route, and whether it needs a key.
        further: Paths and schemas of further routes.
    """
    paths: Schema = {}
    _, explanation = msgspec.json.schema_components([Explanation], ref_template="#/components/schemas/{name}")
    schemas = _ANSWERS | explanation
    for name, each in sorted(served.items()):
        for version, lane in sorted(each.lanes.items()):
            schemas[f"{name}.{version}.request"] = request_schema(lane.runtime)
            reply = schemas[f"{name}.{version}.reply"] = reply_schema(name, lane.runtime)
            schemas[f"{name}.{version}.explained"] = _explained(reply)
    for method, template, keyed in routes:
        if _plain(template) not in _SAYS:
            continue
        for path, endpoint, version in _paths(template, served):
            if _plain(template) == _GENERATE and not _yields(served[endpoint], version):
                continue
            operation = _operation(method, template, endpoint, version, keyed=keyed)
            paths.setdefault(path, {})[method.lower()] = operation
    if further is not None:
        paths |= further[0]
        schemas |= further[1]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mainspring: predictions",
            "version": __version__,
            "description": "Open Inference Protocol, version 2, of the endpoints that are served.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "msp_..."}},
            "responses": {status: _refusal(status, says) for status, says in _ERRORS.items()},
        },
    }


def _paths(template: str, served: Mapping[str, Served]) -> Iterable[tuple[str, str, str]]:
    """Return a template's paths, each with the endpoint and version in it. Ids need no quoting."""
    if "{model}" not in template:
        return [(template, "", "")]
    return [
        (template.format(model=name, version=version), name, version)
        for name, each in sorted(served.items())
        for version in (sorted(each.lanes) if "{version}" in template else [each.heaviest])
    ]


def _yields(served: Served, version: str) -> bool:
    return bool(getattr(served.lanes[version].runtime.executor, "yields", False))


def _plain(template: str) -> str:
    return template.replace("/versions/{version}", "")


def _operation(method: str, template: str, endpoint: str, version: str, *, keyed: bool) -> Schema:
    plain = _plain(template)
    says, answer = _SAYS[plain]
    explains = plain.endswith("/explain")
    infers = explains or plain.endswith("/infer")
    names = [part for part in plain.split("/")[1:] if part not in ("v2", "{model}")] or ["server"]
    by_version = [version] if "{version}" in template else []
    made: Schema = {
        "operationId": "_".join([method.lower(), *names, *filter(None, [endpoint]), *by_version]).replace(".", "_"),
        "summary": says,
        "security": [{"key": []}] if keyed else [],
        "responses": {"200": _answer(plain, answer), **_refusals(_INFERRED if infers else _ASKED if keyed else _OPEN)},
    }
    if "{region}" in template:
        made["parameters"] = [{"name": "region", "in": "path", "required": True, "schema": _TEXT}]
    if endpoint:
        made["tags"] = [endpoint]
        made["responses"] |= _refusals(("503",))
    if plain == "/v2/health/ready":
        made["responses"]["503"] = _json("Not ready, with the reason.", "Ready")
    if infers:
        sides = ("request", "explained" if explains else "reply")
        request, reply = (f"{endpoint}.{version}.{side}" for side in sides)
        made["requestBody"] = {"required": True, "content": {**_content(request), **_bytes_after(request)}}
        made["responses"]["200"] = {
            "description": "The prediction, once it is logged.",
            "content": _content(reply) if explains else {**_content(reply), **_bytes_after(reply)},
        }
    elif plain == _GENERATE:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        events = {"schema": {"type": "string", "description": "Server-sent events; the last one may be an `error`."}}
        made["responses"]["200"] = {"description": "Events as they come.", "content": {"text/event-stream": events}}
        made["responses"] |= _refusals(_INFERRED)
    elif method == "POST":
        made["requestBody"] = {"required": False, "content": _content("IndexRequest")}
        made["responses"] |= _refusals(("408", "413", "415"))
    return made


def _explained(reply: Schema) -> Schema:
    """Return a reply's schema with an explanation of each row."""
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Explanation"}}
    return {
        **reply,
        "required": [*reply.get("required", ()), "explanations"],
        "properties": {**reply["properties"], "explanations": rows},
    }


def _answer(plain: str, schema: str) -> Schema:
    if plain == "/metrics":
        return {"description": "Prometheus text.", "content": {"text/plain": {"schema": _TEXT}}}
    return _json("", schema)


def _json(description: str, schema: str) -> Schema:
    return {"description": description, "content": _content(schema)}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else {}}}


def _bytes_after(schema: str) -> Schema:
    says = f"The JSON of {schema}, of the length in {_BINARY_HEADER}, then the tensors that have binary_data_size."
    return {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "description": says}}}


def _refusals(statuses: Iterable[str]) -> Schema:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _refusal(status: str, says: str) -> Schema:
    made = _json(says, "Error")
    if status in _RETRIED:
        made["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return made
