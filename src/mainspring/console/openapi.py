"""The control plane's JSON routes as an OpenAPI 3.1 document, made of the handlers' signatures.

A handler's parameters, the type of its `Body`, and the class of its response are what the document says of it, with
the types that it declares by `answers`; the errors are those of `core.error_codes`. Pages are for browsers, and are not
in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_type_hints

import msgspec
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from mainspring.console.access.scim_answers import Scim
from mainspring.console.answers import UNITS, Answer, Body, Json, declared_answer
from mainspring.console.server import SIGNED
from mainspring.core.error_codes import CODES
from mainspring.core.errors import Corrupt, MissingExtra, NotConvertible, TooSlow, WrongEncoding
from mainspring.core.version import __version__

_REF = "#/components/schemas/{name}"
_JSON, _TEXT = "application/json", {"type": "string"}
_NEVER = (Corrupt, MissingExtra, NotConvertible, TooSlow, WrongEncoding)  # a fault here, or of the gateway alone
_REFUSED = sorted({codes.http for kind, codes in CODES.items() if kind not in _NEVER} | {401, 403})
_BODY, _HEAD = 413, 431  # too large: refused before it is read
_OPEN = (400, 403, 405)
_SCHEMAS: dict[str, Any] = {
    "Answer": {
        "type": "object",
        "required": ["units"],
        "properties": {"units": {"type": "object", "properties": {name: {"const": UNITS[name]} for name in UNITS}}},
    },
    "Json": {},
    "Scim": {"type": "object", "required": ["schemas"], "properties": {"schemas": {"type": "array", "items": _TEXT}}},
    "Error": {
        "type": "object",
        "description": "A request that is refused before its body is read gets `error` alone.",
        "required": ["error"],
        "properties": {"error": _TEXT, "fix": {"type": ["string", "null"]}, "retryable": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "ScimError": {
        "type": "object",
        "required": ["schemas", "status", "detail"],
        "properties": {"status": _TEXT, "detail": _TEXT, "scimType": _TEXT},
    },
}


def document(title: str, routes: Iterable[BaseRoute], *, keyless: Sequence[str]) -> dict[str, Any]:
    """Return the document of the routes that are in the schema.

    Args:
        keyless: Paths that need no key.
    """
    shown = [route for route in routes if isinstance(route, APIRoute) and route.include_in_schema]
    made = get_openapi(title=title, version=__version__, routes=shown)
    bodies = [each.kind for route in shown for each in _bodies(route)]
    answered = [kind for route in shown for kind in declared_answer(route.endpoint).values()]
    schemas, kinds = msgspec.json.schema_components([*bodies, *answered], ref_template=_REF)
    names = {kind: schema["$ref"] for kind, schema in zip(bodies, schemas, strict=False)}
    answers = iter(schemas[len(bodies) :])
    for route in shown:
        answer = _answer(_kind(route), {name: next(answers) for name in declared_answer(route.endpoint)})
        for method in route.methods or ():
            operation = made["paths"][route.path_format][method.lower()]
            open_ = route.path in keyless or (method == "POST" and route.path.startswith(SIGNED))
            operation["security"] = [] if open_ else [{"key": []}]
            operation["responses"] = _responses(route, method, operation["responses"], answer, open_=open_)
            if method in ("POST", "PUT", "PATCH"):
                operation["requestBody"] = _request(route, names)
    key = {"type": "http", "scheme": "bearer", "description": "An API key, msp_..."}
    made["components"] = {"schemas": {**_nullable(kinds), **_SCHEMAS}, "securitySchemes": {"key": key}}
    return made


def _answer(kind: type[Response], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a response of a class and of parts, if those are declared."""
    name = next((each.__name__ for each in (Scim, Answer, Json) if issubclass(kind, each)), "")
    schema = {"$ref": _REF.format(name=name)} if name else _TEXT
    if not parts:
        return schema
    if "" in parts:
        return {"allOf": [schema, parts[""]]}
    return {"allOf": [schema], "type": "object", "required": [*parts], "properties": _nullable(parts)}


def _nullable(schema: Any) -> Any:
    """Return a schema whose numbers can be null, as one that is not finite is."""
    if isinstance(schema, Mapping):
        found = {name: _nullable(each) for name, each in schema.items()}
        return {**found, "type": ["number", "null"]} if found.get("type") == "number" else found
    return [_nullable(each) for each in schema] if isinstance(schema, list) else schema


def _bodies(route: APIRoute) -> list[Body[Any]]:
    return [each.call for each in route.dependant.dependencies if isinstance(each.call, Body)]


def _request(route: APIRoute, names: dict[type, str]) -> dict[str, Any]:
    """Return what a route's handler takes; without a `Body` any document."""
    schema = next(({"$ref": names[each.kind]} for each in _bodies(route)), {"type": "object"})
    return {"required": False, "content": {_media(route): {"schema": schema}}}


def _kind(route: APIRoute) -> type[Response]:
    kind: type[Response] = get_type_hints(route.endpoint)["return"]
    return kind


def _media(route: APIRoute) -> str:
    return (_kind(route).media_type or _JSON).partition(";")[0]


def _responses(
    route: APIRoute, method: str, made: dict[str, Any], answer: dict[str, Any], *, open_: bool
) -> dict[str, Any]:
    kind, media = _kind(route), _media(route)
    failed = "ScimError" if kind is Scim or "scim" in route.path else "Error"
    content = {Scim.media_type if failed == "ScimError" else _JSON: {"schema": {"$ref": _REF.format(name=failed)}}}
    unread = {_JSON: {"schema": {"$ref": _REF.format(name="Error")}}, **content}
    found: dict[str, Any] = {}
    for status, says in made.items():
        if status == "422":
            continue  # a malformed parameter is a 400 here
        schema = _answer(kind, {}) if status == "202" else answer
        holds = {} if status == "204" else {"content": {media: {"schema": schema}}}
        found[status] = {"description": says["description"], **holds}
    for code in (*(_OPEN if open_ and method == "GET" else _REFUSED), _HEAD):
        if code != _BODY or method != "GET":
            said = unread if code in (_BODY, _HEAD) else content
            found.setdefault(str(code), {"description": HTTPStatus(code).phrase, "content": said})
    return found
