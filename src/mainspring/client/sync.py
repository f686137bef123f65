"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.client.certificates import Certificates
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
    """A server of the Open Inference Protocol. Threads may share one; make it once and keep it, or use `with`.

    Args:
        url: `http://127.0.0.1:8080`, or `https://...`, with the path that `/v2` stands under, if any.
        key: As `mainspring keys create` printed it.
        timeout_s: For each call, with all its attempts and waits.
        retries: Retry policy. Only safe requests are retried: see `Retries`.
        headers: Sent with every request.
        tls: For an authority of your own, or a client's certificate: files, or a context of the standard library.
        connections: Largest number of open connections.

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
        """Return a prediction a row.

        Args:
            endpoint: The name of the endpoint.
            rows: One row or several, each name -> value: the entity keys and the request's fields, or every feature.
                An instant is a datetime with a zone, UTC epoch microseconds, or ISO 8601 text with an offset.
            outputs: Names of the requested outputs; all by default.
            statuses: Whether to say how each stored feature was found.
            version: One version instead of what the endpoint serves.
            id: Yours; a request without keys sticks to a version by it.
            priority: 1 goes first; 0, the default, last.
            timeout_s: Instead of the client's; the server is told, and refuses at once what would come too late.

        Raises:
            Invalid: A name or value that the endpoint does not take.
            Denied: The key is wrong, or may not.
            NotFound: There is no such endpoint or version.
            Overloaded, DeadlineExceeded, Unavailable: No room or no time, after the attempts that were safe.
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
        """Return the model's outputs as arrays. Arrays travel as bytes where the server takes them, else as JSON.

        Args:
            inputs: Input -> array, of the type and shape that `metadata` says; text as objects or `str`.
            parameters: More parameters of the request.

        The other arguments, and what is raised, are those of `predict`.
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

    def metadata(self, endpoint: str, *, version: str | None = None) -> ModelInfo:
        """Return what an endpoint takes and gives."""
        return self._run(self._protocol.metadata(endpoint, version))

    def server(self) -> ServerInfo:
        """Return the server's name, version and extensions."""
        return self._run(self._protocol.server())

    def ready(self, endpoint: str | None = None) -> bool:
        """Return whether the server, or one endpoint, takes requests. It is asked once; a server away is not ready."""
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
                for part in response.iter_bytes():  # httpx's own limit is for each part
                    parts.append(part)
                    if time.monotonic() > until:
                        return Lost(Loss.LATE, f"{sum(map(len, parts))} bytes were received")
                return answer_of(response, b"".join(parts))
        except (self._httpx.HTTPError, OSError) as error:
            return lost_by(error)
