"""LitServe around what `answering` gives: peer_litserve.py PORT. Its own processes import this module again."""

import sys
from typing import Any

import litserve as ls

from answering import BATCH, chosen


class Service(ls.LitAPI):
    def setup(self, device: Any) -> None:  # noqa: ARG002
        _, self.answer = chosen()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would be the body's schema
        return request["row"]

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, rows: Any) -> Any:
        return self.answer(rows)

    def unbatch(self, output: Any) -> Any:
        return output.tolist()

    def encode_response(self, output: Any) -> Any:
        return {"answer": output}


if __name__ == "__main__":
    server = ls.LitServer(Service(max_batch_size=BATCH, batch_timeout=0.001), accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
