"""Client side of the Open Inference Protocol, as sans-I/O talks: no connection, no event loop.

https://github.com/kserve/open-inference-protocol, REST, with Triton's binary tensor data extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from mainspring.client.events import question
from mainspring.client.failures import ServerFailed, lost
from mainspring.client.results import Inference, ModelInfo, Predictions, ServerInfo, TensorInfo
from mainspring.client.retrying import Retries, exchange
from mainspring.client.rows import Row, predictions_of, tensors_of
from mainspring.client.talk import Answer, Lost, Send, Talk
from mainspring.core.errors import Invalid, MainspringError

if TYPE_CHECKING:
    import numpy as np

_BINARY = "binary_tensor_data"
_HEADER = "inference-header-content-length"
_JSON = {"content-type": "application/json"}
_encode = msgspec.json.encode


class Protocol:
    """Protocol with one server, and a cache of its metadata: its extensions and its endpoints' inputs.

    Args:
        url: The server, for messages.
        retries: Retry policy.
        timeout_s: Time-out of a call, over all attempts, unless the call gives its own.
    """

    def __init__(self, url: str, retries: Retries, timeout_s: float) -> None:
        self._url = url
        self._retries = retries
        self._timeout_s = timeout_s
        self._models: dict[tuple[str, str], ModelInfo] = {}
        self._server: ServerInfo | None = None

    def ready(self, endpoint: str | None) -> Talk[bool]:
        """Ask once whether the server, or one endpoint, is ready; an unreachable server is not.

        Raises:
            Denied, NotFound: The key may not ask, or there is no such endpoint.
        """
        path = "/v2/health/ready" if endpoint is None else f"{_path(endpoint)}/ready"
        try:
            yield from self._get(path, Retries(most=0, monotonic=self._retries.monotonic))
        except MainspringError as error:
            if error.retryable:
                return False
            raise
        return True

    def server(self) -> Talk[ServerInfo]:
        """Ask for the server's name, version and extensions."""
        body = _object((yield from self._get("/v2")))
        self._server = ServerInfo(body["name"], body["version"], frozenset(body.get("extensions") or ()))
        return self._server

    def metadata(self, endpoint: str, version: str | None) -> Talk[ModelInfo]:
        """Request an endpoint's metadata: its inputs and outputs."""
        body = _object((yield from self._get(_path(endpoint, version))))
        found = _model(body)
        self._models[endpoint, version or ""] = found
        return found

    def predict(
        self,
        endpoint: str,
        rows: Row | Sequence[Row],
        *,
        outputs: Sequence[str] | None,
        statuses: bool,
        version: str | None,
        id: str | None,
        priority: int,
        timeout_s: float | None,
    ) -> Talk[Predictions]:
        """Request one prediction per row. The endpoint's inputs are requested once, and again after a change."""
        many = [rows] if isinstance(rows, Mapping) else list(rows)
        known = self._models.get((endpoint, version or ""))
        model = known or (yield from self.metadata(endpoint, version))
        request = _request(outputs, id, priority, {"feature_statuses": True} if statuses else {})
        try:
            inputs = tensors_of(many, model)
            reply = yield from self._infer(endpoint, version, {**request, "inputs": inputs}, timeout_s)
        except Invalid:
            # A promotion may have changed the inputs meanwhile. A rejected request made no prediction, so it can be
            # repeated.
            if known is None or (yield from self.metadata(endpoint, version)) == known:
                raise
            inputs = tensors_of(many, self._models[endpoint, version or ""])
            reply = yield from self._infer(endpoint, version, {**request, "inputs": inputs}, timeout_s)
        return predictions_of(endpoint, _object(reply), len(many))

    def infer(
        self,
        endpoint: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        outputs: Sequence[str] | None,
        version: str | None,
        id: str | None,
        priority: int,
        parameters: Mapping[str, Any] | None,
        timeout_s: float | None,
    ) -> Talk[Inference]:
        """Request predictions for arrays, sent as bytes if the server supports that."""
        from mainspring.client import tensors  # imports NumPy

        server = self._server or (yield from self.server())
        request = _request(outputs, id, priority, parameters or {})
        if _BINARY in server.extensions:
            heads, content = tensors.binary(inputs)
            request = {**request, "inputs": heads, "parameters": {**request["parameters"], "binary_data_output": True}}
        else:
            content = b""
            request = {**request, "inputs": tensors.in_json(inputs)}
        answer = yield from self._infer(endpoint, version, request, timeout_s, content)
        size = int(answer.headers.get(_HEADER, len(answer.body)))
        body = _object(Answer(answer.status, answer.headers, answer.body[:size]))
        try:
            found = tensors.arrays(body["outputs"], memoryview(answer.body)[size:])
        except (KeyError, ValueError, TypeError) as error:
            raise ServerFailed(f"The reply of {self._url} cannot be read: {error}.") from error
        return Inference(
            endpoint=endpoint,
            version=str(body.get("model_version", "")),
            outputs=found,
            id=body.get("id"),
            parameters=body.get("parameters") or {},
        )

    def _infer(
        self,
        endpoint: str,
        version: str | None,
        request: Mapping[str, Any],
        timeout_s: float | None,
        content: bytes = b"",
    ) -> Talk[Answer]:
        path = f"{_path(endpoint, version)}/infer"

        def make(left_s: float) -> Send:
            asked = dict(request)
            if timeout_s is not None:  # so that the server rejects a request that would be answered too late
                asked["parameters"] = {**request["parameters"], "timeout": max(1, int(left_s * 1e6))}
            head = _encode(asked)
            headers = {**_JSON, _HEADER: str(len(head))} if content else _JSON
            if content:
                headers = {**headers, "content-type": "application/octet-stream"}
            return Send("POST", path, headers, head + content, left_s)

        return (yield from exchange(make, self._retries, timeout_s=timeout_s or self._timeout_s, url=self._url))

    def stream(self, endpoint: str, inputs: Mapping[str, Any], version: str | None, timeout_s: float | None) -> Any:
        """Return the arguments of httpx's request for an answer in parts."""
        return question(f"{_path(endpoint, version)}/generate_stream", inputs, timeout_s or self._timeout_s)

    def broken(self, found: Lost) -> MainspringError:
        """Return the error for an answer in parts that did not come, or not to its end."""
        return lost(found, self._url, sent_twice=False)

    def _get(self, path: str, retries: Retries | None = None) -> Talk[Answer]:
        def make(left_s: float) -> Send:
            return Send("GET", path, {}, b"", left_s)

        return (
            yield from exchange(make, retries or self._retries, timeout_s=self._timeout_s, url=self._url, harmless=True)
        )


def _path(endpoint: str, version: str | None = None) -> str:
    path = f"/v2/models/{quote(endpoint, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _request(
    outputs: Sequence[str] | None, id: str | None, priority: int, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    request: dict[str, Any] = {"parameters": dict(parameters)}
    if priority:
        request["parameters"]["priority"] = priority
    if outputs is not None:
        request["outputs"] = [{"name": name} for name in outputs]
    if id is not None:
        request["id"] = id
    return request


def _object(answer: Answer) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        body = None
    if not isinstance(body, dict):
        raise ServerFailed(
            f"The server's response is not a JSON object: {answer.body[:100].decode(errors='replace')!r}.",
            fix="check that the address is that of an Open Inference Protocol server.",
        )
    return body


def _model(body: Mapping[str, Any]) -> ModelInfo:
    parameters = dict(body.get("parameters") or {})
    keyed = parameters.pop("keyed_inputs", ())
    optional = parameters.pop("optional_keyed_inputs", ())
    return ModelInfo(
        name=body["name"],
        versions=tuple(body.get("versions") or ()),
        platform=body.get("platform", ""),
        inputs=_tensors(body.get("inputs") or ()),
        outputs=_tensors(body.get("outputs") or ()),
        keyed=_tensors(keyed),
        optional=frozenset(optional),
        parameters=parameters,
    )


def _tensors(found: Sequence[Mapping[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(each["name"], each["datatype"], tuple(each["shape"])) for each in found)
