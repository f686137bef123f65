"""The other servers of bench/serve.py, each run by its own environment's Python: serve_side.py NAME PORT MODEL.

All answer `x`, rows of 30 floats, with the same ONNX model in one intra-op thread, and batch what comes together.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

BATCH = 64


def session(model: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def floor(port: int, model: str) -> None:
    """Granian's raw interface and a batcher of twenty lines: no key, no check of shapes, no metrics, no log."""
    import msgspec
    import numpy as np
    from granian.constants import HTTPModes
    from granian.server.embed import Server

    run = session(model).run
    waiting: list[tuple[Any, asyncio.Future[Any]]] = []
    headers = [("content-type", "application/json")]
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def batch() -> None:
        taken = waiting[:BATCH]
        del waiting[:BATCH]
        if waiting:
            asyncio.get_running_loop().call_soon(batch)
        rows = np.array([each for each, _ in taken], np.float32).reshape(len(taken), -1)
        (found,) = run(["y"], {"x": rows})
        for (_, future), row in zip(taken, found.tolist(), strict=True):
            future.set_result(row)

    async def app(_scope: Any, protocol: Any) -> None:
        tensor = decode(await protocol())["inputs"][0]
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not waiting:
            loop.call_soon(batch)
        waiting.append((tensor["data"], future))
        outputs = [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": await future}]
        protocol.response_bytes(200, headers, encode({"model_name": "mlp", "model_version": "1", "outputs": outputs}))

    async def binary(scope: Any, protocol: Any) -> None:
        """One tensor as it lies in memory, behind a header of a fixed length; the first two values of its mean back."""
        body = await protocol()
        header = int(scope.headers.get("inference-header-content-length"))
        decode(body[:header])
        rows = np.frombuffer(body, np.float32, offset=header).reshape(1, -1)
        (found,) = run(["y"], {"x": rows})
        protocol.response_bytes(200, headers, encode({"outputs": [{"name": "y", "data": found.tolist()[0]}]}))

    class App:
        def __rsgi__(self, scope: Any, protocol: Any) -> Any:
            return (binary if scope.headers.get("inference-header-content-length") else app)(scope, protocol)

    server = Server(
        App(), address="127.0.0.1", port=port, interface="rsgi", http=HTTPModes.http1, websockets=False,
        log_enabled=False,
    )  # fmt: skip
    asyncio.run(server.serve())


def litserve(port: int, model: str) -> None:
    # It starts processes of its own, which import the module that the class is in.
    service = Path(model).parent / "lit_service.py"
    service.write_text(
        "import sys\n"
        "import litserve as ls, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from serve_side import session\n"
        "class Mlp(ls.LitAPI):\n"
        "    def setup(self, device):\n"
        f"        self.run = session({model!r}).run\n"
        "    def decode_request(self, request):\n"
        "        return np.array(request['x'], np.float32)\n"
        "    def batch(self, inputs):\n"
        "        return np.stack(inputs)\n"
        "    def predict(self, rows):\n"
        "        return self.run(['y'], {'x': rows})[0]\n"
        "    def unbatch(self, output):\n"
        "        return output.tolist()\n"
        "    def encode_response(self, output):\n"
        "        return {'y': output}\n"
        "if __name__ == '__main__':\n"
        f"    server = ls.LitServer(Mlp(max_batch_size={BATCH}, batch_timeout=0.001), accelerator='cpu')\n"
        f"    server.run(host='127.0.0.1', port={port}, log_level='error', generate_client_file=False)\n"
    )
    os.execv(sys.executable, [sys.executable, str(service)])


def bentoml(port: int, model: str) -> None:
    folder = Path(model).parent
    service = folder / "bento_service.py"
    service.write_text(
        "from __future__ import annotations\n"
        "import sys\n"
        "import bentoml, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from serve_side import session\n"
        "@bentoml.service(workers=1, traffic={'timeout': 30})\n"
        "class Mlp:\n"
        "    def __init__(self) -> None:\n"
        f"        self.run = session({model!r}).run\n"
        f"    @bentoml.api(batchable=True, max_batch_size={BATCH}, max_latency_ms=1000)\n"
        "    def predict(self, x: np.ndarray) -> np.ndarray:\n"
        "        return self.run(['y'], {'x': x.astype(np.float32)})[0]\n"
    )
    program = str(Path(sys.executable).parent / "bentoml")
    os.chdir(folder)
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    os.execv(program, [program, "serve", "bento_service:Mlp", "--host", "127.0.0.1", "--port", str(port)])


def mlserver(port: int, model: str) -> None:
    import json

    folder = Path(model).parent / "mlserver"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "http_port": port,
                "grpc_port": port + 1,
                "metrics_port": port + 2,
                "host": "127.0.0.1",
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {"name": "mlp", "implementation": "mlserver_runtime.Mlp", "max_batch_size": BATCH, "max_batch_time": 0.001,
             "inputs": [{"name": "x", "shape": [-1, 30], "datatype": "FP32"}]}
        )
    )  # fmt: skip
    (folder / "mlserver_runtime.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from serve_side import session\n"
        "from mlserver import MLModel\n"
        "from mlserver.codecs import NumpyCodec\n"
        "from mlserver.types import InferenceRequest, InferenceResponse\n"
        "class Mlp(MLModel):\n"
        "    async def load(self) -> bool:\n"
        f"        self.run = session({model!r}).run\n"
        "        return True\n"
        "    async def predict(self, payload: InferenceRequest) -> InferenceResponse:\n"
        "        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)\n"
        "        found = self.run(['y'], {'x': rows})[0]\n"
        "        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output('y', found)])\n"
    )
    program = str(Path(sys.executable).parent / "mlserver")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    os.execv(program, [program, "start", "."])


def ray(port: int, model: str) -> None:
    import time

    import numpy as np
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(num_replicas=1, max_ongoing_requests=4 * BATCH)
    class Mlp:
        def __init__(self) -> None:
            self.run = session(model).run

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.001)
        async def answer(self, rows: list[Any]) -> list[Any]:
            return self.run(["y"], {"x": np.array(rows, np.float32)})[0].tolist()

        async def __call__(self, request: Request) -> dict[str, Any]:
            return {"y": await self.answer((await request.json())["x"])}

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Mlp.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)


if __name__ == "__main__":
    {"floor": floor, "litserve": litserve, "bentoml": bentoml, "mlserver": mlserver, "ray": ray}[sys.argv[1]](
        int(sys.argv[2]), sys.argv[3]
    )
