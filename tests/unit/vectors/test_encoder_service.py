"""An encoder behind `/v1/embeddings`, against a server that answers, refuses, fails and lies."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import UpstreamServer
from mainspring.project.backends.retrieval import service_encoder
from mainspring.vectors.adapters import service_calls
from mainspring.vectors.adapters.encoder_service import ServiceEncoder
from mainspring.vectors.declaring import Encoder
from mainspring.vectors.model import EncoderAway


class Provider:
    """Answers with vectors of the texts' lengths, after the statuses that are planned."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        self.statuses: list[int] = []
        self.change: Any = lambda answer: answer
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                provider.asked.append((self.path, self.headers["Authorization"], body))
                status = provider.statuses.pop(0) if provider.statuses else 200
                data = [{"index": n, "embedding": [3.0, len(t)]} for n, t in enumerate(body["input"])][::-1]
                content = json.dumps(provider.change({"object": "list", "data": data})).encode()
                self.send_response(status)
                self.send_header("Retry-After", "7")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.waited: list[float] = []

    def encoder(self, key: str = "secret", dimension: int = 2, *, for_queries: bool = False) -> ServiceEncoder:
        server = UpstreamServer("local", f"http://127.0.0.1:{self.server.server_port}/v1")
        within_s = 3.0 if for_queries else None
        return ServiceEncoder(server, lambda: key, "small", dimension, within_s=within_s, sleep=self.waited.append)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_vectors_are_of_length_one_in_the_order_of_the_texts(provider: Provider) -> None:
    texts = ["abcd"] + ["x" * 4] * 99 + ["abcdefghijkl"]
    found = provider.encoder().encode(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[0, -1]], [[0.6, 0.8], [3 / 153**0.5, 12 / 153**0.5]], rtol=1e-6)
    assert [(path, key, len(body["input"])) for path, key, body in provider.asked] == [
        ("/v1/embeddings", "Bearer secret", 64),
        ("/v1/embeddings", "Bearer secret", 37),
    ]
    assert provider.asked[0][2]["model"] == "small"
    assert provider.encoder().encode([]).shape == (0, 2)


def test_another_attempt_is_made_where_it_may_help(provider: Provider) -> None:
    provider.statuses = [429, 503]
    assert provider.encoder().encode(["abcd"]).shape == (1, 2)
    assert provider.waited == [7.0, 7.0]
    provider.statuses = [500] * 9
    with pytest.raises(Unavailable, match="status 500"):
        provider.encoder().encode(["abcd"])
    assert len(provider.asked) == 3 + 4


def test_a_server_that_is_away_is_unavailable(provider: Provider) -> None:
    encoder = provider.encoder()
    provider.server.shutdown()
    provider.server.server_close()
    with pytest.raises(Unavailable, match=r"does not answer\. Fix: start it, or correct its address http://127"):
        encoder.encode(["abcd"])


@pytest.mark.parametrize(("status", "kind"), [(400, Invalid), (401, Denied), (404, Invalid)])
def test_what_is_refused_is_not_tried_again(provider: Provider, status: int, kind: type[MainspringError]) -> None:
    provider.statuses = [status]
    with pytest.raises(kind) as error:
        provider.encoder().encode(["abcd"])
    assert len(provider.asked) == 1
    assert "secret" not in str(error.value)


def test_a_query_is_tried_once_more_and_waits_shortly(provider: Provider) -> None:
    encoder = provider.encoder(for_queries=True)
    provider.statuses = [503]
    assert encoder.encode(["abcd"]).shape == (1, 2)
    assert provider.waited == [0.5]  # not the 7 s that the service says
    provider.statuses = [503] * 9
    with pytest.raises(EncoderAway, match="status 503"):
        encoder.encode(["abcd"])
    assert len(provider.asked) == 2 + 2
    provider.server.shutdown()
    provider.server.server_close()
    with pytest.raises(EncoderAway, match="does not answer"):
        provider.encoder(for_queries=True).encode(["abcd"])
    assert provider.waited[-1] == 0.25


def test_queries_wait_for_a_silent_service_twice_and_then_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000]
    monkeypatch.setattr(service_calls, "_now", lambda: now[0])
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        server = UpstreamServer("silent", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        waited: list[float] = []
        encoder = ServiceEncoder(server, str, "small", 2, within_s=0.6, sleep=waited.append)

        def queries(count: int) -> float:
            """Return how long so many queries at once take."""

            def one(_number: int) -> None:
                with pytest.raises(EncoderAway, match="does not answer"):
                    encoder.encode(["abcd"])

            began = time.monotonic()
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(one, range(count)))
            return time.monotonic() - began

        assert 0.6 <= queries(2) < 1.2
        assert queries(9) < 0.3, "its circuit is open"
        now[0] += 1_000_000
        with ThreadPoolExecutor(1) as probe:
            probing = probe.submit(queries, 1)
            time.sleep(0.1)
            assert queries(9) < 0.3, "one query probes it"
            assert probing.result() >= 0.6
        now[0] += 1_500_000
        assert queries(3) < 0.3, "after a probe in vain it rests twice as long"
        assert not waited


def test_a_service_that_is_there_again_is_asked_by_all(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000]
    monkeypatch.setattr(service_calls, "_now", lambda: now[0])
    encoder = provider.encoder(for_queries=True)
    provider.statuses = [503] * 4
    for _ in range(3):
        with pytest.raises(EncoderAway):
            encoder.encode(["abcd"])
    assert len(provider.asked) == 4
    now[0] += 1_000_000
    for _ in range(3):
        assert encoder.encode(["abcd"]).shape == (1, 2)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens."}}, Invalid),
        (400, {"message": "The input (9000 tokens) is longer than the model's context length (512)."}, Invalid),
        (400, {"error": "the input length exceeds the context length"}, Invalid),
        (413, {"error": "Input validation error: `inputs` must have less than 512 tokens", "error_type": "x"}, Invalid),
        (413, "", Invalid),
        (400, {"error": {"message": "encoding_format is not supported."}}, EncoderAway),
        (401, {"error": {"message": "Incorrect API key."}}, EncoderAway),
        (403, {}, EncoderAway),
        (400, {"error": {"message": "secret: too long"}}, Invalid),
        (404, {"error": {"message": "The model 'small' does not exist."}}, EncoderAway),
    ],
)
def test_a_querys_fault_is_told_from_the_operators(
    provider: Provider, status: int, said: Any, kind: type[MainspringError]
) -> None:
    provider.statuses, provider.change = [status], lambda _: said
    with pytest.raises(kind) as error:
        provider.encoder(for_queries=True).encode(["abcd"])
    assert "secret" not in str(error.value)
    if kind is Invalid:
        assert "local" not in str(error.value)
    if "tokens" in str(said):
        assert "tokens" in str(error.value)


def test_another_dimension_is_no_querys_fault(provider: Provider) -> None:
    with pytest.raises(EncoderAway, match="dimension=2"):
        provider.encoder(dimension=3, for_queries=True).encode(["abcd"])


def one_less(answer: Any) -> Any:
    return {"data": answer["data"][1:]}


def one_twice(answer: Any) -> Any:
    return {"data": [answer["data"][0]] * 2}


@pytest.mark.parametrize("change", [one_less, one_twice, lambda _: {"data": [{"index": 0}]}, lambda _: "no"])
def test_strange_answers_are_named(provider: Provider, change: Any) -> None:
    provider.change = change
    with pytest.raises(Unavailable, match="answers with"):
        provider.encoder().encode(["abcd", "ef"])


def test_another_dimension_is_named(provider: Provider) -> None:
    with pytest.raises(Invalid, match="dimension=2"):
        provider.encoder(dimension=3).encode(["abcd"])


def test_tokens_are_estimated_by_bytes_and_empty_texts_refused(provider: Provider) -> None:
    assert provider.encoder().count_tokens(["", "abc", "abcd ", "漢字"]) == [0, 1, 2, 2]
    with pytest.raises(Invalid, match="is empty"):
        provider.encoder().encode(["a", " "])


def test_a_declared_service_is_an_upstream_of_the_profile(provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "key").chmod(0o600)
    port = provider.server.server_port
    servers = {
        "FAR": UpstreamServer("far", f"http://127.0.0.1:{port}/v1", key_file=tmp_path / "key"),
        "OTHER": UpstreamServer("other", "https://example.org", protocol="anthropic"),
    }
    settings: Any = SimpleNamespace(upstreams=servers, profile="local")
    encoder = service_encoder(settings, Encoder("e", service="far", model="small", dimension=2))
    encoder.encode(["abcd"])
    assert provider.asked[0][1] == "Bearer from-file"
    with pytest.raises(NotFound, match="no upstream 'near'"):
        service_encoder(settings, Encoder("e", service="near", dimension=2))
    with pytest.raises(Invalid, match="speaks 'anthropic'"):
        service_encoder(settings, Encoder("e", service="other", dimension=2))
    with pytest.raises(Invalid, match="no dimension"):
        Encoder("e", service="far")
