"""A server of `/rerank`, as Cohere, Jina, vLLM and llama.cpp have it: it answers, stalls, drips, refuses and lies."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mainspring.core.settings import UpstreamServer


class RerankServer:
    """Scores a pair by a digest of it, and answers with the best first.

    Attributes:
        asked: Path, authorization and body of each request.
        status: Of each answer.
        wait_s: Before an answer.
        drip: Whether the body comes one byte each tenth of a second.
        change: Changes the results of an answer.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        self.status, self.wait_s, self.drip = 200, 0.0, False
        self.change: Callable[[list[Any]], Any] = lambda results: results
        self.gone = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, self.headers["Authorization"], body))
                server.gone.wait(server.wait_s)
                scores = [(number, score(body["query"], text)) for number, text in enumerate(body["documents"])]
                results = [{"index": number, "relevance_score": each} for number, each in scores]
                results.sort(key=lambda each: -each["relevance_score"])
                content = json.dumps({"results": server.change(results[: body["top_n"]])}).encode()
                with suppress(OSError):  # who asked has left
                    self.send_response(server.status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    for byte in content if server.drip else ():
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                    if not server.drip:
                        self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def upstream(self) -> UpstreamServer:
        return UpstreamServer("judge", f"http://127.0.0.1:{self.http.server_port}/v1/")


def score(query: str, text: str) -> float:
    """Return a score in [-1, 1] that depends on both alone."""
    return int.from_bytes(hashlib.sha256(f"{query}\x1f{text}".encode()).digest()[:4], "big") / 2**31 - 1


@contextmanager
def rerank_server() -> Iterator[RerankServer]:
    """Context with a running server."""
    made = RerankServer()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.gone.set()
        made.http.shutdown()
        made.http.server_close()
        thread.join(5)
