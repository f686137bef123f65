"""A small real model to serve: flights by carrier, with stored and requested features, as a signed bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mainspring as ms
from mainspring.core.settings import Limits
from mainspring.core.time import HOUR, ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.declaring import request_features
from mainspring.features.definitions import dump
from mainspring.features.model import Observations
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.ports import PredictionLog
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles, seal
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import KeyScope
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.signing import SigningKey
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.onnx_explainer import OnnxExplainer
from mainspring.serving.http.gateway import Gateway
from mainspring.serving.http.hosted import Hosted
from mainspring.serving.model import Arm, Route
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.placement import Devices
from mainspring.serving.residency.memory import Memory

NOW = 1_372_636_800_000_000  # 2013-07-01T00:00:00Z
KEY = SigningKey(bytes(range(32)))
PEPPER = bytes(32)

carrier = ms.Entity("carrier", keys={"carrier": ms.String})
flight = ms.Entity("flight", keys={"flight_id": ms.Int64})
departures = ms.Source("departures", schema={"carrier": ms.String, "delay": ms.Float32}, event_time="departed_at")
schedule = ms.Source(
    "schedule",
    schema={"carrier": ms.String, "flight_id": ms.Int64, "distance": ms.Float32, "tail": ms.String},
    event_time="scheduled_at",
)


@ms.feature_view(entity=carrier, source=departures)
class Carrier:
    flights_1h = ms.count(window="1h")
    delay_1h = ms.mean("delay", window="1h")


@request_features
class Schedule:
    thousands = ms.col("distance") / 1000.0
    hour = ms.col("scheduled_at").hour().cast(ms.Int64)


OBSERVATIONS = Observations(schedule, keys=[flight, carrier], at=ms.col("scheduled_at") - ms.hours(2))
INPUTS = (
    Input("Carrier.flights_1h", ms.Int64),
    Input("Carrier.delay_1h", ms.Float32),
    Input("Schedule.thousands", ms.Float64),
    Input("Schedule.hour", ms.Int64),
)
WEIGHTS = np.array([0.01, 0.02, -0.3, 0.05], np.float32)
FEATURES = {
    "Carrier.flights_1h": ("INT64", [3, 4]),
    "Carrier.delay_1h": ("FP32", [12.5, None]),
    "Schedule.thousands": ("FP64", [0.5, 1.25]),
    "Schedule.hour": ("INT64", [7, 23]),
}


def expected(columns: Mapping[str, Sequence[Any]], bias: float = 0.0) -> list[float]:
    """Return the model's answers by arithmetic: a logistic regression in which null counts as zero."""
    matrix = np.array([columns[each.name] for each in INPUTS], np.float32)
    matrix[np.isnan(matrix)] = 0
    logits = matrix.T.astype(np.float64) @ WEIGHTS.astype(np.float64) + bias
    return list(1 / (1 + np.exp(-logits)))


def model(bias: float = 0.0, *, slow: bool = False, exact_hour: bool = False, mates: bool = False) -> bytes:
    """Return the ONNX model: an input of shape (rows, 1) a feature, and the output `probability`, shape (rows,).

    Args:
        slow: It takes some 10 ms a row.
        exact_hour: It takes the hour as an integer, which cannot be null.
        mates: An answer depends on the other rows of the batch.
    """
    names = [each.name for each in INPUTS]
    whole = {"Schedule.hour"} if exact_hour else set()
    nodes = [helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in names]
    nodes += [helper.make_node("IsNaN", [f"{name}_float"], [f"{name}_null"]) for name in names]
    nodes += [
        helper.make_node("Where", [f"{name}_null", "zero", f"{name}_float"], [f"{name}_filled"]) for name in names
    ]
    logit, constants, extra = "logit", [], []
    if slow:
        constants.append(numpy_helper.from_array(np.zeros((2048, 2048), np.float32), "work"))
        constants.append(numpy_helper.from_array(np.zeros((1, 2048), np.float32), "wide"))
        extra = [helper.make_node("Add", ["logit", "wide"], ["work0"])]
        extra += [helper.make_node("MatMul", [f"work{n}", "work"], [f"work{n + 1}"]) for n in range(8)]
        extra.append(helper.make_node("ReduceSum", ["work8", "one"], ["worked"], keepdims=1))
        extra.append(helper.make_node("Add", ["logit", "worked"], ["slow_logit"]))
        logit = "slow_logit"
    if mates:
        extra = [
            helper.make_node("ReduceMax", ["logit", "nought"], ["largest"], keepdims=1),
            helper.make_node("Sub", ["logit", "largest"], ["mates_logit"]),
        ]
        logit = "mates_logit"
    nodes += [
        helper.make_node("Concat", [f"{name}_filled" for name in names], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w", "b"], ["logit"]),
        *extra,
        helper.make_node("Sigmoid", [logit], ["p"]),
        helper.make_node("Reshape", ["p", "flat"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64 if name in whole else TensorProto.FLOAT, [None, 1])
            for name in names
        ],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        [
            numpy_helper.from_array(WEIGHTS.reshape(-1, 1), "w"),
            numpy_helper.from_array(np.array([bias], np.float32), "b"),
            numpy_helper.from_array(np.array([0], np.float32), "zero"),
            numpy_helper.from_array(np.array([-1], np.int64), "flat"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([0], np.int64), "nought"),
            *constants,
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def golden(bias: float = 0.0) -> bytes:
    columns = {name: values for name, (_, values) in FEATURES.items()}
    return json.dumps({"inputs": columns, "outputs": {"probability": expected(columns, bias)}}).encode()


def bundle(bias: float = 0.0, **files: bytes) -> Bundle:
    """Return a signed bundle whose answers are shifted by `bias`. `files` replaces files, `model_onnx=...`."""
    manifest = Manifest(
        model="late",
        task="binary",
        flavour="onnx",
        inputs=INPUTS,
        outputs=("probability",),
        run_id="run",
        dataset_commit="commit",
        features_digest="",
        code_version="",
        created_at=NOW,
    )
    content = {
        "model.onnx": model(bias),
        "features.json": dump([Carrier, Schedule], OBSERVATIONS),
        "golden.json": golden(bias),
    }
    content |= {name.replace("_", "."): value for name, value in files.items()}
    return seal(manifest, content, KEY)


@cache
def heavy(bias: float, mb: int) -> Bundle:
    """Return a bundle of a model with so many megabytes of weights, which add nothing to an answer."""
    made = onnx.load_from_string(model(bias))
    weights = {
        "ballast": np.full(mb * 250_000, bias, np.float32),
        "nothing": np.zeros(1, np.float32),
        "first": np.zeros(1, np.int64),
    }
    made.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in weights.items())
    place = next(place for place, node in enumerate(made.graph.node) if node.op_type == "Sigmoid")
    made.graph.node[place].input[0] = "shifted"
    added = [
        helper.make_node("Cast", ["Schedule.hour_filled"], ["hour"], to=TensorProto.INT64),
        helper.make_node("Mul", ["hour", "first"], ["which"]),
        helper.make_node("Gather", ["ballast", "which"], ["found"]),
        helper.make_node("Mul", ["found", "nothing"], ["added"]),
        helper.make_node("Add", ["logit", "added"], ["shifted"]),
    ]
    for node in reversed(added):
        made.graph.node.insert(place, node)
    return bundle(bias, model_onnx=made.SerializeToString())


def route(*arms: Arm, endpoint: str = "late-arrival", deadline_us: int = 10_000_000, rows: int = 4096) -> Route:
    return Route(endpoint=endpoint, model="late", arms=arms, deadline_us=deadline_us, max_queue_rows=rows)


@dataclass
class Kit:
    """A gateway over memory adapters, with what it was built from."""

    routes: Any = field(default_factory=lambda: CatalogRoutes(memory_catalog()))
    online: Any = field(default_factory=MemoryOnlineStore)
    log: PredictionLog | Any = field(default_factory=MemoryLedger)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    bundles: Bundles = field(default_factory=lambda: Bundles(MemoryBlobs(), KEY.public))
    keys: CatalogKeyStore = field(default_factory=lambda: CatalogKeyStore(memory_catalog()))
    max_body_bytes: int = 1 << 20
    limits: Limits = field(default_factory=Limits)
    executors: Any = OnnxExecutor
    explainers: Any = OnnxExplainer
    surface: Any = None
    erasures: Any = str
    memory: int | None = None
    devices: Devices | None = None
    hosted: Hosted | None = None

    def gateway(self, counts: Counts | None = None) -> Gateway:
        return Gateway(
            routes=self.routes,
            bundles=self.bundles,
            online=self.online,
            log=self.log,
            executors=self.executors,
            explainers=self.explainers,
            authenticator=Authenticator(self.keys, PEPPER, self.clock),
            authoriser=CedarAuthoriser(),
            clock=self.clock,
            allowed_hosts={"127.0.0.1", "localhost"},
            max_body_bytes=self.max_body_bytes,
            counts=counts,
            erasures=self.erasures,
            memory=None if self.memory is None else Memory(self.memory),
            devices=self.devices,
            surface=self.surface,
            hosted=self.hosted,
        )

    def key(self, *scopes: KeyScope) -> str:
        """Return an `Authorization` header; without scopes it may predict and scrape."""
        token = issue(
            self.keys,
            name="test",
            scopes=scopes or (KeyScope.PREDICT, KeyScope.SCRAPE),
            lifetime_us=24 * 365 * HOUR,
            clock=self.clock,
            pepper=PEPPER,
        )
        return f"Bearer {token}"

    def publish(self, *versions: str, weights: Sequence[float] = (), rows: int = 4096, **shape: bool) -> None:
        """Put versions behind the endpoint; version n answers with the bias n - 1. `shape` is as in `model`."""
        arms = []
        for place, version in enumerate(versions):
            bias = float(version) - 1
            made = bundle(bias, model_onnx=model(bias, **shape))
            self.bundles.save(made)
            arms.append(Arm(version, made.digest, weights[place] if weights else 1.0))
        self.routes.publish([route(*arms, rows=rows)])

    def roll_out(self, *versions: str, weights: Sequence[float], slow: bool = False, **changes: Any) -> None:
        """Put versions behind the endpoint as the arms of a rollout; `changes` are of the route."""
        self.publish(*versions, weights=weights, slow=slow)
        (made,) = self.routes.current().values()
        self.routes.publish([msgspec.structs.replace(made, **{"rollout": "r1", "salt": "grain", **changes})])


def full_request(**changes: Any) -> dict[str, Any]:
    """Return an `infer` body with every feature of two rows; `changes` replaces its fields."""
    inputs = [
        {"name": name, "shape": [2], "datatype": datatype, "data": values}
        for name, (datatype, values) in FEATURES.items()
    ]
    return {"inputs": inputs, **changes}


def keyed_request(*carriers: str | None, **changes: Any) -> dict[str, Any]:
    """Return an `infer` body by entity key, a row a carrier."""
    rows = len(carriers)

    def tensor(name: str, datatype: str, values: list[Any]) -> dict[str, Any]:
        return {"name": name, "shape": [rows], "datatype": datatype, "data": values}

    inputs = [
        tensor("carrier", "BYTES", list(carriers)),
        tensor("flight_id", "INT64", list(range(1, rows + 1))),
        tensor("distance", "FP32", [500.0] * rows),
        tensor("scheduled_at", "BYTES", ["2013-07-01T02:00:00Z"] * rows),
    ]
    return {"inputs": inputs, **changes}
