"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.client.certificates import Certificates
from mainspring.client.events import EventReader
from mainspring.client.failures import refusal
from mainspring.client.protocol import Protocol
from mainspring.client.results import Inference, ModelInfo, Predictions, ServerInfo
from mainspring.client.retrying import Retries
from mainspring.client.rows import Row
from mainspring.client.talk import Answer, Done, Loss, Lost, Pause, Send, Talk, go_on
from mainspring.client.transport import answer_of, asked, library, lost_by, options

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Client:
    """Client of a server of the Open Inference Protocol. Threads may share it; create it once, or use `with`.

    Args:
        url: `http://127.0.0.1:8080`, or `https://...`, with the path in front of `/v2`, if any.
        key: As `mainspring keys create` printed it.
        timeout_s: For each call, with all its attempts and waits.
        retries: Retry policy. Only safe requests are retried: see `Retries`.
        headers: Sent with every request.
        tls: Private authority or client certificate: files, or a context of the standard library.
        connections: Maximum number of open connections.

    Raises:
        MissingExtra: httpx is not installed.
        Invalid: `url` is not an HTTP address, or `tls` names files that cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        tls: SSLContext | Certificates | None = None,
        connections: int = 16,
    ) -> None:
        self._httpx = library()
        self._http = self._httpx.Client(**options(url, key, headers, tls, connections))
        self._protocol = Protocol(url, retries or Retries(), timeout_s)

    def predict(
        self,
        endpoint: str,
        rows: Row | Sequence[Row],
        *,
        outputs: Sequence[str] | None = None,
        statuses: bool = False,
        version: str | None = None,
        id: str | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Predictions:
        """Return one prediction per row.

        Args:
            endpoint: The name of the endpoint.
            rows: One row or several, each name -> value: the entity keys and the request's fields, or every feature.
                An instant is a datetime with a zone, UTC epoch microseconds, or ISO 8601 text with an offset.
            outputs: Names of the requested outputs; all by default.
            statuses: Whether to return the status of each stored feature.
            version: A version to use instead of the ones that the endpoint serves.
            id: Your own request id; a request without keys is assigned to a version by it.
            priority: 1 is the highest; 0, the default, the lowest.
            timeout_s: Overrides the client's. It is sent to the server, which rejects at once a request that would be
                late.

        Raises:
            Invalid: The endpoint does not accept a name or value.
            Denied: The key is invalid, or lacks permission.
            NotFound: There is no such endpoint or version.
            Overloaded, DeadlineExceeded, Unavailable: No capacity or no time, after all safe retries.
            ServerFailed: The model or the server failed.
        """
        return self._run(
            self._protocol.predict(
                endpoint,
                rows,
                outputs=outputs,
                statuses=statuses,
                version=version,
                id=id,
                priority=priority,
                timeout_s=timeout_s,
            )
        )

    def infer(
        self,
        endpoint: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        id: str | None = None,
        priority: int = 0,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Inference:
        """Return the model's outputs as arrays. Arrays are sent as bytes if the server supports it, else as JSON.

        Args:
            inputs: Input -> array of the type and shape in `metadata`; text as objects or `str`.
            parameters: Additional request parameters.

        The other arguments and the errors are those of `predict`.
        """
        return self._run(
            self._protocol.infer(
                endpoint,
                inputs,
                outputs=outputs,
                version=version,
                id=id,
                priority=priority,
                parameters=parameters,
                timeout_s=timeout_s,
            )
        )

    def stream(
        self, endpoint: str, inputs: Mapping[str, Any], *, version: str | None = None, timeout_s: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the parts of a prediction as the model makes them: output -> value, beside `model_version` and
        `parameters`. Nothing is repeated.

        Close the generator to end the answer early.

        Args:
            inputs: Input -> value of one row.
            timeout_s: Longest wait for a part; by default that of the client.

        Raises:
            MainspringError: As of `infer`; also after the first part, where the model fails or the deadline passes.
        """
        asked = self._protocol.stream(endpoint, inputs, version, timeout_s)
        try:
            with self._http.stream(**asked) as response:
                if response.status_code != 200:
                    raise refusal(answer_of(response, response.read()))
                events = EventReader()
                for piece in response.iter_bytes():
                    yield from events.feed(piece)
        except (self._httpx.HTTPError, OSError) as error:
            raise self._protocol.broken(lost_by(error)) from error

    def metadata(self, endpoint: str, *, version: str | None = None) -> ModelInfo:
        """Return the inputs and outputs of an endpoint."""
        return self._run(self._protocol.metadata(endpoint, version))

    def server(self) -> ServerInfo:
        """Return the server's name, version and extensions."""
        return self._run(self._protocol.server())

    def ready(self, endpoint: str | None = None) -> bool:
        """Return whether the server, or one endpoint, is ready. It is asked once; an unreachable one is not ready."""
        return self._run(self._protocol.ready(endpoint))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, talk: Talk[T]) -> T:
        step = go_on(talk)
        while not isinstance(step, Done):
            step = go_on(talk, self._take(step))
        return step.result

    def _take(self, step: Send | Pause) -> Answer | Lost | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        until = time.monotonic() + step.timeout_s
        parts = []
        try:
            with self._http.stream(**asked(step)) as response:
                for part in response.iter_bytes():  # httpx limits each part of an exchange, not the whole
                    parts.append(part)
                    if time.monotonic() > until:
                        return Lost(Loss.LATE, f"{sum(map(len, parts))} bytes were received")
                return answer_of(response, b"".join(parts))
        except (self._httpx.HTTPError, OSError) as error:
            return lost_by(error)
