"""What each kind of server is asked, what is read from its answer, and when an answer is not the model's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

import asking

ROW = [0.5, -1.0, 2.0]
TEXT = ([101, 7, 102, 0], [1, 1, 1, 0])


def sent(raw: bytes) -> tuple[str, Any]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head.split(b" ")[1].decode(), json.loads(body)


@pytest.mark.parametrize("kind", ["litserve", "ray"])
def test_a_row_in_json(kind: str) -> None:
    assert sent(asking.request(kind, "mlp", 1, ROW)) == ("/predict", {"row": ROW})
    assert asking.values(kind, {"answer": [1.5, 2]}) == [1.5, 2.0]


def test_bentoml_takes_rows() -> None:
    assert sent(asking.request("bentoml", "encoder", 1, TEXT)) == ("/predict", {"rows": [[*map(list, TEXT)]]})
    assert asking.values("bentoml", [[1.5, 2]]) == [1.5, 2.0]


@pytest.mark.parametrize("kind", ["ours", "granian", "httptools", "mlserver"])
def test_the_open_inference_protocol(kind: str) -> None:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": ROW}
    assert sent(asking.request(kind, "mlp", 1, ROW)) == ("/v2/models/mlp/infer", {"inputs": [tensor]})
    assert asking.values(kind, {"outputs": [{"data": [[1.5, 2]]}]}) == [1.5, 2.0]


@pytest.mark.parametrize(("kind", "names"), [("ours", 2), ("mlserver", 3)])
def test_texts_as_tensors(kind: str, names: int) -> None:
    path, document = sent(asking.request(kind, "encoder", 1, TEXT, [("Authorization", "Bearer k")]))
    assert path == "/v2/models/encoder/infer"
    found = {each["name"]: each["data"] for each in document["inputs"]}
    assert found == dict(list({"input_ids": TEXT[0], "attention_mask": TEXT[1], "length": [4]}.items())[:names])


def test_answers_that_are_the_models() -> None:
    asking.check([[1.0, 2.0]], [[1.0, 2.000009]], 1e-5)


@pytest.mark.parametrize(
    ("found", "said"),
    [([[1.0, 2.1]], "differs"), ([[1.0]], "has 1 values"), ([[1.0, float("nan")]], "differs"), ([], "0 answers")],
)
def test_answers_that_are_not(found: list[list[float]], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        asking.check(found, [[1.0, 2.0]], 1e-5)


@contextmanager
def answering(*statuses: int) -> Iterator[int]:
    """Serve each status once, the last for ever."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = left.pop(0) if len(left) > 1 else left[0]
            body = json.dumps({"status": status}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_server_that_is_not_ready_is_asked_again() -> None:
    with answering(503, 404, 200) as port:
        assert asking.ask(port, asking.request("ray", "mlp", port, ROW)) == {"status": 200}


def test_a_server_that_refuses_is_not() -> None:
    with answering(422, 200) as port, pytest.raises(RuntimeError, match="it answered 422"):
        asking.ask(port, asking.request("ray", "mlp", port, ROW))
