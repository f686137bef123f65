"""The other servers of bench/encoder.py, each run by its own environment's Python: encoder_side.py NAME PORT MODEL.

All answer with the same ONNX model in one intra-op thread, and batch what comes together. Of a batch, rows of one
length run together, which on a processor costs less than padding them to the longest.

`encoder_side.py ceiling MODEL LENGTH...` serves nothing: it prints how fast the model is by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_side import session

BATCH = 64
SIZES = (1, 2, 4, 8, 16, 32)
ALSO = (64, 128)  # of short rows, where large batches gain
LEAST_S = 0.6
HEAD = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom encoder_side import encoder\n"


def encoder(model: str) -> Callable[[list[Any]], list[list[float]]]:
    """Return what takes rows, each of its token ids and its mask, and gives their embeddings in the same order."""
    import numpy as np

    run = session(model).run

    def embed(rows: list[Any]) -> list[list[float]]:
        found: list[list[float]] = [[]] * len(rows)
        places: dict[int, list[int]] = {}
        for place, (ids, _) in enumerate(rows):
            places.setdefault(len(ids), []).append(place)
        for alike in places.values():
            ids, mask = (np.array([rows[place][part] for place in alike], np.int64) for part in (0, 1))
            (vectors,) = run(["embedding"], {"input_ids": ids, "attention_mask": mask})
            for place, vector in zip(alike, vectors.tolist(), strict=True):
                found[place] = vector
        return found

    return embed


def litserve(port: int, model: str) -> None:
    # It starts processes of its own, which import the module that the class is in.
    service = Path(model).parent / "lit_service.py"
    service.write_text(
        f"{HEAD}"
        "import litserve as ls\n"
        "class Encoder(ls.LitAPI):\n"
        "    def setup(self, device):\n"
        f"        self.embed = encoder({model!r})\n"
        "    def decode_request(self, request):\n"
        "        return request['input_ids'], request['attention_mask']\n"
        "    def batch(self, inputs):\n"
        "        return inputs\n"
        "    def predict(self, rows):\n"
        "        return self.embed(rows)\n"
        "    def unbatch(self, output):\n"
        "        return output\n"
        "    def encode_response(self, output):\n"
        "        return {'embedding': output}\n"
        "if __name__ == '__main__':\n"
        f"    encoder = Encoder(max_batch_size={BATCH}, batch_timeout=0.001)\n"
        "    server = ls.LitServer(encoder, accelerator='cpu', timeout=60)\n"
        f"    server.run(host='127.0.0.1', port={port}, log_level='error', generate_client_file=False)\n"
    )
    os.execv(sys.executable, [sys.executable, str(service)])


def bentoml(port: int, model: str) -> None:
    folder = Path(model).parent
    (folder / "bento_service.py").write_text(
        "from __future__ import annotations\n"
        f"{HEAD}"
        "import bentoml\n"
        "@bentoml.service(workers=1, traffic={'timeout': 60})\n"
        "class Encoder:\n"
        "    def __init__(self) -> None:\n"
        f"        self.embed = encoder({model!r})\n"
        f"    @bentoml.api(batchable=True, max_batch_size={BATCH}, max_latency_ms=30000)\n"
        "    def predict(self, rows: list[list[list[int]]]) -> list[list[float]]:\n"
        "        return self.embed(rows)\n"
    )
    program = str(Path(sys.executable).parent / "bentoml")
    os.chdir(folder)
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    os.execv(program, [program, "serve", "bento_service:Encoder", "--host", "127.0.0.1", "--port", str(port)])


def mlserver(port: int, model: str) -> None:
    """Its batches join the values of all requests whatever their shapes, so each says beside them how many it has."""
    folder = Path(model).parent / "mlserver"
    folder.mkdir(exist_ok=True)
    settings = {
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1",
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    served = {
        "name": "encoder", "implementation": "mlserver_runtime.Encoder", "max_batch_size": BATCH,
        "max_batch_time": 0.001,
    }  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps(served))
    (folder / "mlserver_runtime.py").write_text(
        f"{HEAD}"
        "import numpy as np\n"
        "from mlserver import MLModel\n"
        "from mlserver.codecs import NumpyCodec\n"
        "from mlserver.types import InferenceRequest, InferenceResponse\n"
        "class Encoder(MLModel):\n"
        "    async def load(self) -> bool:\n"
        f"        self.embed = encoder({model!r})\n"
        "        return True\n"
        "    async def predict(self, payload: InferenceRequest) -> InferenceResponse:\n"
        "        values = {each.name: getattr(each.data, 'root', each.data) for each in payload.inputs}\n"
        "        rows, start = [], 0\n"
        "        for length in values['length']:\n"
        "            part = slice(start, start + length)\n"
        "            rows.append((values['input_ids'][part], values['attention_mask'][part]))\n"
        "            start += length\n"
        "        found = NumpyCodec.encode_output('embedding', np.array(self.embed(rows), np.float32))\n"
        "        return InferenceResponse(model_name=self.name, outputs=[found])\n"
    )
    program = str(Path(sys.executable).parent / "mlserver")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    os.execv(program, [program, "start", "."])


def ceiling(model: str, lengths: list[int]) -> None:
    """Print length -> batch size -> seconds of a call: their mean, their median, and of the processor."""
    import numpy as np

    run, chance = session(model).run, np.random.default_rng(3)
    found: dict[int, dict[int, tuple[float, float, float]]] = {}
    for length in lengths:
        for size in (*SIZES, *(ALSO if length < 16 else ())):
            ids = chance.integers(1000, 30_000, (size, length))
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            run(["embedding"], feed)  # the first call of a shape allocates its memory
            took: list[float] = []
            busy = time.process_time()
            while sum(took) < LEAST_S:
                begun = time.perf_counter()
                run(["embedding"], feed)
                took.append(time.perf_counter() - begun)
            busy = (time.process_time() - busy) / len(took)
            found.setdefault(length, {})[size] = (sum(took) / len(took), sorted(took)[len(took) // 2], busy)
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "ceiling":
        ceiling(sys.argv[2], [int(each) for each in sys.argv[3:]])
    else:
        {"litserve": litserve, "bentoml": bentoml, "mlserver": mlserver}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
