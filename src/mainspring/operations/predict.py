"""One prediction over HTTP, as any client requests it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from mainspring.client.certificates import Certificates, client_is_refused, server_is_distrusted
from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import Address, Settings
from mainspring.delivery.routing import version_of
from mainspring.operations.keys import brief_key
from mainspring.operations.plane_connection import connect
from mainspring.operations.promote import gated
from mainspring.operations.request_values import first_row, tensors
from mainspring.project import Project
from mainspring.project.running import where_up
from mainspring.serving.model import Route


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Response of an endpoint."""

    endpoint: str
    model: str
    version: str
    prediction_id: str
    outputs: dict[str, Any]
    milliseconds: float


def ask(
    project: Project,
    endpoint: str,
    fields: Mapping[str, str],
    key: str | None = None,
    certificates: Certificates | None = None,
) -> Answer:
    """Ask for one prediction by entity keys and request fields, or by tensors, given as text.

    Args:
        key: An API key; a brief one is made where it is not given.
        certificates: What to show the gateway over TLS, and whom to trust instead of its certificate in the profile.

    Raises:
        Denied: The gateway wants a client's certificate, or is not trusted; or the key may not.
        NotFound: The endpoint is unknown or serves nothing yet, and why.
        Invalid: A field is unknown, missing or not of its type.
        Unavailable: The gateway does not answer.
    """
    route = route_of(project, endpoint)
    call = partial(_call, where_up(project.settings), certificates)
    call("GET", "/v2/health/live")  # before a key is made that nobody could use
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
    )


def route_of(project: Project, endpoint: str) -> Route:
    routes = project.routes.current()
    if endpoint not in routes:
        version = version_of(project.definitions.endpoint(endpoint), project.versions, gated=gated(project))
        raise Unavailable(
            f"Endpoint {endpoint!r} is about to serve version {version.version}: its route is not published yet.",
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
            f"The gateway on {address.url} wants a client's certificate that it trusts ({why}).",
            fix="give one: --cert FILE --cert-key FILE.",
        )
    if server_is_distrusted(why):
        return Denied(
            f"The certificate of the gateway on {address.url} is not trusted ({why}).",
            fix="name the authority that signed it: --ca FILE; without --ca it must be the profile's own.",
        )
    return Unavailable(f"No gateway answers on {address.url}: {why}.", fix="run `mainspring up` first.")


def _refused(status: int, reply: Any) -> MainspringError:
    what = str(reply.get("error", reply)) if isinstance(reply, dict) else str(reply)
    kinds: dict[int, type[MainspringError]] = {400: Invalid, 401: Denied, 403: Denied, 404: NotFound}
    return kinds.get(status, Unavailable)(f"The gateway answered {status}: {what}")
