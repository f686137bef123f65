"""One prediction over HTTP, requested like by any client."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mainspring.client.certificates import Certificates, client_is_refused, server_is_distrusted
from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import Address, Settings
from mainspring.delivery.routing import version_of
from mainspring.operations.keys import brief_key
from mainspring.operations.plane_connection import connect
from mainspring.operations.promote import gated
from mainspring.project import Project
from mainspring.project.running import where_up
from mainspring.serving.model import Route

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(T|$)")
_READ: Mapping[str, Callable[[str], Any]] = {
    "BYTES": str,
    "BOOL": lambda text: {"true": True, "false": False}[text.lower()],
    "INT": int,
    "UINT": int,
    "FP": float,
}
_WANTED = {
    "BOOL": ("true or false", "true"),
    "INT": ("a whole number, or an instant", "7, or an instant as 2026-01-05T18:30:00Z"),
    "UINT": ("a whole number", "7"),
    "FP": ("a number", "3.2"),
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Response of an endpoint."""

    endpoint: str
    model: str
    version: str
    prediction_id: str
    outputs: dict[str, Any]
    milliseconds: float
    cached: bool = False  # an earlier answer of the endpoint's cache


def ask(
    project: Project,
    endpoint: str,
    fields: Mapping[str, str],
    key: str | None = None,
    certificates: Certificates | None = None,
) -> Answer:
    """Request one prediction by entity keys and request fields, or by tensors, given as text.

    Args:
        key: An API key; by default a short-lived one is created.
        certificates: Client certificate for TLS, and an authority to trust instead of the profile's certificate.

    Raises:
        Denied: The gateway requires a client certificate, is not trusted, or rejects the key.
        NotFound: The endpoint is unknown or serves nothing yet; the message has the reason.
        Invalid: A field is unknown, missing or of another type.
        Unavailable: The gateway does not respond.
    """
    route = route_of(project, endpoint)
    call = partial(_call, where_up(project.settings), certificates)
    call("GET", "/v2/health/live")  # before a key is created in vain
    token = key or brief_key(project, "mainspring predict")
    metadata = call("GET", f"/v2/models/{endpoint}", token)
    body = {"inputs": tensors(metadata, fields)}
    began = time.perf_counter()
    reply = call("POST", f"/v2/models/{endpoint}/infer", token, body)
    took = (time.perf_counter() - began) * 1000
    return Answer(
        endpoint=endpoint,
        model=route.model,
        version=reply.get("model_version", ""),
        prediction_id=reply["parameters"]["prediction_ids"][0],
        outputs={output["name"]: first_row(output) for output in reply["outputs"]},
        milliseconds=round(took, 3),
        cached=reply["parameters"].get("cached", False),
    )


def route_of(project: Project, endpoint: str) -> Route:
    routes = project.routes.current()
    if endpoint not in routes:
        version = version_of(project.definitions.endpoint(endpoint), project.versions, gated=gated(project))
        raise Unavailable(
            f"Endpoint {endpoint!r} does not serve version {version.version} yet: its route is not published.",
            fix="run `mainspring up`, whose worker publishes it within seconds.",
        )
    return routes[endpoint]


def _call(
    settings: Settings, certificates: Certificates | None, method: str, path: str, token: str = "", body: Any = None
) -> Any:
    connection = connect(settings.gateway, settings.gateway_tls, certificates=certificates)
    try:
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        reply = msgspec.json.decode(response.read() or b"{}")
        if response.status != 200:
            raise _refused(response.status, reply)
        return reply
    except (OSError, http.client.HTTPException) as error:
        raise _lost(settings.gateway, error) from None
    finally:
        connection.close()


def _lost(address: Address, error: Exception) -> MainspringError:
    why = str(error)
    if client_is_refused(why):
        return Denied(
            f"The gateway on {address.url} requires a client certificate that it trusts ({why}).",
            fix="give one: --cert FILE --cert-key FILE.",
        )
    if server_is_distrusted(why):
        return Denied(
            f"The certificate of the gateway on {address.url} is not trusted ({why}).",
            fix="name the authority that signed it: --ca FILE; without --ca it must be the profile's own.",
        )
    return Unavailable(f"No gateway responds on {address.url}: {why}.", fix="run `mainspring up` first.")


def _refused(status: int, reply: Any) -> MainspringError:
    what = str(reply.get("error", reply)) if isinstance(reply, dict) else str(reply)
    kinds: dict[int, type[MainspringError]] = {400: Invalid, 401: Denied, 403: Denied, 404: NotFound}
    fix = "see `mainspring status`, and the gateway's log." if status >= 500 else None
    return kinds.get(status, Unavailable)(f"The gateway answered {status}: {what}", fix=fix)


def tensors(metadata: Mapping[str, Any], fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row of tensors: by key if the names are the endpoint's keys and fields, else its full inputs.

    Args:
        metadata: The gateway's metadata of the endpoint.
        fields: Name -> text. For a tensor, a JSON list of one row's values, nested like its shape; or `@FILE` with it.

    Raises:
        Invalid: A field is unknown, missing, or of another type or shape.
        NotFound: There is no such file.
    """
    parameters = metadata["parameters"]
    keyed = {tensor["name"]: tensor for tensor in parameters["keyed_inputs"]}
    optional = set(parameters["optional_keyed_inputs"])
    full = {tensor["name"]: tensor for tensor in metadata["inputs"]}
    for specs, needed in ((keyed, set(keyed) - optional), (full, set(full))):
        if specs and needed <= set(fields) <= set(specs):
            return [_tensor(specs[name], text) for name, text in fields.items()]
    required = set(keyed) - optional or set(full)
    parts = {"missing": sorted(required - set(fields)), "unknown": sorted(set(fields) - set(keyed or full))}
    problems = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in parts.items() if names)
    fix = f"give {_pairs(name for name in keyed or full if name in required)}"
    raise Invalid(
        f"The fields do not match: {problems}.", fix=f"{fix}; optional: {_pairs(sorted(optional))}" if optional else fix
    )


def _pairs(names: Iterable[str]) -> str:
    return " ".join(f"{name}=..." for name in names)


def first_row(output: Mapping[str, Any]) -> Any:
    """Return the values of an output's first row, nested like its shape."""
    shape, data = output["shape"][1:], list(output["data"])
    size = 1
    for length in reversed(shape):
        size *= length
    row = data[:size]
    for length in reversed(shape[1:]):
        row = [row[start : start + length] for start in range(0, len(row), length)] if length else []
    return row if shape else row[0]


def _tensor(spec: Mapping[str, Any], text: str) -> dict[str, Any]:
    if len(spec["shape"]) > 1:
        return _nested(spec, text)
    name, datatype = spec["name"], spec["datatype"]
    if datatype == "INT64" and _INSTANT.match(text):
        datatype = "BYTES"  # an instant may be sent as text
    kind = datatype.rstrip("0123456789")
    try:
        value: Any = _READ[kind](text)
    except (KeyError, ValueError):
        what, example = _WANTED[kind]
        raise Invalid(
            f"Field {name!r} is {text!r}, which is not {what}, as the endpoint requires ({datatype}).",
            fix=f"give {name}={example}.",
        ) from None
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


def _nested(spec: Mapping[str, Any], text: str) -> dict[str, Any]:
    name, expected = spec["name"], list(spec["shape"][1:])
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except FileNotFoundError:
            raise NotFound(f"There is no file {text[1:]}.", fix=f"give {name}=@FILE with a JSON list.") from None
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    try:
        row = msgspec.json.decode(text)
        shape = _shape(row)
    except (msgspec.DecodeError, ValueError) as error:
        raise Invalid(
            f"Field {name!r} is {shown!r}, which is not a JSON list with rows of equal length: {error}.", fix=_fix(spec)
        ) from None
    if len(shape) == len(expected) + 1 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != len(expected) or any(-1 != size != actual for size, actual in zip(expected, shape, strict=True)):
        raise Invalid(
            f"Field {name!r} has the shape {shape}; a row must have {expected} (-1: any length).", fix=_fix(spec)
        )
    return {"name": name, "shape": [1, *shape], "datatype": spec["datatype"], "data": _flat(row)}


def _fix(spec: Mapping[str, Any]) -> str:
    inner = "1, 2" if spec["datatype"] != "BYTES" else '"a", "b"'
    depth = len(spec["shape"]) - 1
    return f"give {spec['name']}='{'[' * depth}{inner}{']' * depth}', or a file with such a list: {spec['name']}=@FILE."


def _shape(value: Any) -> list[int]:
    """Return the lengths of nested lists.

    Raises:
        ValueError: Lists at one level differ in length or depth.
    """
    if not isinstance(value, list):
        return []
    shapes = [_shape(each) for each in value]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("lists at the same level differ in length")
    return [len(value), *(shapes[0] if shapes else [])]


def _flat(value: Any) -> Sequence[Any]:
    return [each for part in value for each in _flat(part)] if isinstance(value, list) else [value]
