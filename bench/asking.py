"""How each kind of server is asked for what `answering` gives, and where its answer stands."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.serving.load.generator import Load, http_request, run

HOST = "127.0.0.1"
ROW_IN_JSON = ("litserve", "ray")  # others speak the Open Inference Protocol, or take rows
PREDICT = "/predict"
Headers = Sequence[tuple[str, str]]
_UNTIL_READY = (404, 500, 502, 503)
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Server:
    """A server that answers, and what to ask it."""

    port: int
    requests: Sequence[bytes]

    def load(self, connections: int, seconds: float) -> Load:
        return run((HOST, self.port), self.requests, connections=connections, seconds=seconds)


def request(kind: str, answers: str, port: int, row: Any, headers: Headers = ()) -> bytes:
    """Return the request for the answer to one row: of floats, or of a text's token ids and its mask."""
    path = f"/v2/models/{answers}/infer"
    if kind in ROW_IN_JSON:
        path, document = PREDICT, {"row": row}
    elif kind == "bentoml":
        path, document = PREDICT, {"rows": [row]}
    else:
        document = {"inputs": _tensors(kind, answers, row)}
    return http_request(f"{HOST}:{port}", path, json.dumps(document).encode(), headers)


def _tensors(kind: str, answers: str, row: Any) -> list[dict[str, Any]]:
    if answers == "mlp":
        return [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}]
    ids, mask = row
    # MLServer joins the values of a batch's requests, so each says how many it has.
    named = {"input_ids": ids, "attention_mask": mask} | ({"length": [len(ids)]} if kind == "mlserver" else {})
    return [
        {"name": name, "shape": [1, len(values)], "datatype": "INT64", "data": values} for name, values in named.items()
    ]


def values(kind: str, document: Any) -> list[float]:
    """Return the answer to one row from a server's answer."""
    if kind in ROW_IN_JSON:
        found = document["answer"]
    else:
        found = document[0] if kind == "bentoml" else document["outputs"][0]["data"]
    return [float(value) for value in np.ravel(found)]


def ask(port: int, asked: bytes) -> Any:
    """Return the JSON that a server answers, asking again while it is not ready yet.

    Raises:
        RuntimeError: It answers with another status than 200.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with socket.create_connection((HOST, port), _PATIENCE_S) as sock:
            sock.sendall(asked)
            answer = http.client.HTTPResponse(sock, method="POST")
            answer.begin()
            content = answer.read()
        if answer.status == 200:
            return json.loads(content)
        if answer.status not in _UNTIL_READY or time.monotonic() > deadline:
            raise RuntimeError(f"it answered {answer.status}: {content[:200].decode(errors='replace')}")
        time.sleep(0.2)


def check(found: Iterable[Sequence[float]], wanted: Sequence[Sequence[float]], most: float) -> None:
    """Return if answers are the model's.

    Raises:
        RuntimeError: One is missing, is of another shape, or is off by more than `most`.
    """
    found = list(found)
    if len(found) != len(wanted):
        raise RuntimeError(f"it gave {len(found)} answers, not {len(wanted)}")
    for row, (mine, right) in enumerate(zip(found, wanted, strict=True)):
        if len(mine) != len(right):
            raise RuntimeError(f"its answer to row {row} has {len(mine)} values, the model's {len(right)}")
        gap = float(np.abs(np.subtract(mine, right)).max())
        if not gap <= most:
            raise RuntimeError(f"its answer to row {row} differs from the model's by {gap:.2g}")
