"""A real engine of a language model: a tiny GPT-2 with random weights, over bytes, behind OpenAI's chat completions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

CONTEXT = 256


class TinyEngine:
    """The model. Its tokens are bytes; it generates greedily."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2)
        self._model = GPT2LMHeadModel(config).eval()
        self._lock = threading.Lock()

    @staticmethod
    def prompt(messages: list[dict[str, Any]]) -> bytes:
        return "".join(f"{each['role']}: {each['content']}\n" for each in messages).encode()

    def generate(self, prompt: bytes, count: int) -> Iterator[str]:
        """Yield so many tokens, each as one character."""
        tokens = list(prompt)[-(CONTEXT - count) :]
        for _ in range(count):
            with self._lock, torch.inference_mode():
                token = int(self._model(torch.tensor([tokens])).logits[0, -1].argmax())
            tokens.append(token)
            yield chr(token)


def _handler(engine: TinyEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt, count = engine.prompt(asked["messages"]), asked.get("max_tokens", 16)
            usage = {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}
            about = {"id": "chatcmpl-tiny", "created": 1, "model": asked["model"]}
            self.send_response(200)
            if not asked.get("stream"):
                message = {"role": "assistant", "content": "".join(engine.generate(prompt, count))}
                choice = {"index": 0, "message": message, "finish_reason": "length"}
                body = json.dumps({**about, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for token in engine.generate(prompt, count):
                self._event({**about, "choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]})
            self._event({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
            self._event({**about, "choices": [], "usage": usage})
            self._part(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, told: dict[str, Any]) -> None:
            self._part(b"data: " + json.dumps(told).encode() + b"\n\n")

        def _part(self, part: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    return Handler


@contextmanager
def serving(engine: TinyEngine) -> Iterator[str]:
    """Serve the model; yield its address, with `/v1`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(engine))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
