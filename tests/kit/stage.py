"""A registry with real bundles: small scikit-learn models as ONNX, signed, with held-out rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from kit.auditing import audit_log
from mainspring.core.schema import DType
from mainspring.core.time import HOUR, ManualClock
from mainspring.delivery.model import Promotion
from mainspring.delivery.promote import promote, rollback
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs, MemoryVersions
from mainspring.registry.bundles import Bundles, seal
from mainspring.registry.model import Bundle, Input, Manifest, ModelVersion
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.signing import SigningKey
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.model import Endpoint
from mainspring.stats import metrics
from mainspring.training.gate_kinds import Gate

ROWS = 600
BASELINE = {"auc": 0.5, "brier": 0.24}


def rows(seed: int = 0, count: int = ROWS) -> pa.Table:
    """Return rows an hour apart whose label "a" tells much of, "b" a little, and "c" nothing."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    return pa.table(
        {
            "V.a": (truth * 1.5 + rng.normal(size=count)).astype(np.float32),
            "V.b": (truth * 0.5 + rng.normal(size=count)).astype(np.float32),
            "V.c": rng.normal(size=count).astype(np.float32),
            "_label": truth.astype(np.int64),
        }
    )


def hours(count: int, first: int = 0) -> pa.Array[Any]:
    """Return instants an hour apart, from that many hours after the epoch on."""
    return pa.array([(first + hour) * HOUR for hour in range(count)], pa.timestamp("us", tz="UTC"))


def fitted(features: Sequence[str], training: pa.Table) -> LogisticRegression:
    return LogisticRegression().fit(frame(training, features), training["_label"].to_numpy())


def as_onnx(estimator: LogisticRegression, features: Sequence[str]) -> bytes:
    """Return sigmoid(x w + b), with one input of shape (rows, 1) a feature."""
    float32, make = onnx.TensorProto.FLOAT, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            make("Concat", list(features), ["x"], axis=1),
            make("Gemm", ["x", "w", "b"], ["z"]),
            make("Sigmoid", ["z"], ["p"]),
            make("Reshape", ["p", "flat"], ["probability"]),
        ],
        "logistic",
        [onnx.helper.make_tensor_value_info(name, float32, [None, 1]) for name in features],
        [onnx.helper.make_tensor_value_info("probability", float32, [None])],
        [
            onnx.numpy_helper.from_array(estimator.coef_.T.astype(np.float32), "w"),
            onnx.numpy_helper.from_array(estimator.intercept_.astype(np.float32), "b"),
            onnx.numpy_helper.from_array(np.array([-1]), "flat"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def frame(table: pa.Table, features: Sequence[str]) -> pd.DataFrame:
    return table.select(list(features)).to_pandas()


@dataclass
class Stage:
    """Everything a promotion touches, in memory."""

    folder: Path
    endpoints: Sequence[Endpoint] = (Endpoint("late", model="late@champion"),)
    versions: MemoryVersions = field(default_factory=MemoryVersions)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    routes: CatalogRoutes = field(default_factory=lambda: CatalogRoutes(memory_catalog()))
    audit: CatalogAuditLog = field(default_factory=audit_log)
    clock: ManualClock = field(default_factory=lambda: ManualClock(1_000))

    def __post_init__(self) -> None:
        self.key = SigningKey.load_or_create(self.folder / "signing.key")
        self.bundles = Bundles(self.blobs, self.key.public)

    def register(
        self,
        features: Sequence[str],
        *,
        held_out: pa.Table | None = None,
        training: pa.Table | None = None,
        baseline: Mapping[str, float] | None = None,
        measured: Mapping[str, float] | None = None,
        **changes: Any,
    ) -> ModelVersion:
        """Train on `features`, seal the bundle with its held-out rows and metrics, and register it."""
        held_out = rows(seed=1) if held_out is None else held_out
        estimator = fitted(features, rows(seed=0) if training is None else training)
        scores = estimator.predict_proba(frame(held_out, features))[:, 1]
        inputs = tuple(Input(name, DType.Float32) for name in features)
        manifest = Manifest(
            **{
                "model": "late", "task": "binary", "flavour": "onnx", "inputs": inputs, "outputs": ("probability",),
                "run_id": "r", "dataset_commit": "c", "features_digest": "f", "code_version": "v", "created_at": 0,
                "metrics": {
                    **(measured or metrics.score("binary", held_out["_label"].to_numpy(), scores)),
                    **{f"baseline.{name}": value for name, value in (baseline or BASELINE).items()},
                },
                **changes,
            }
        )  # fmt: skip
        if "_at" not in held_out.column_names:
            held_out = held_out.append_column("_at", hours(held_out.num_rows))
        kept = held_out.select([*features, "_at", "_label"])
        files = {"model.onnx": as_onnx(estimator, features), "holdout.parquet": parquet(kept)}
        return self.add(seal(manifest, files, self.key))

    def add(self, bundle: Bundle) -> ModelVersion:
        self.bundles.save(bundle)
        return self.versions.register(bundle.manifest.model, bundle.digest, bundle.manifest.run_id, {}, 0)

    def promote(self, version: str, gates: Sequence[Gate] = (), **changes: Any) -> Promotion:
        arguments: dict[str, Any] = {
            "gates": gates, "versions": self.versions, "load": self.bundles.load, "routes": self.routes,
            "endpoints": self.endpoints, "gated": {"late"}, "audit": self.audit, "clock": self.clock, "actor": "ana",
            **changes,
        }  # fmt: skip
        return promote("late", version, **arguments)

    def rollback(self, **changes: Any) -> Promotion:
        arguments: dict[str, Any] = {
            "versions": self.versions, "load": self.bundles.load, "routes": self.routes, "endpoints": self.endpoints,
            "gated": {"late"}, "audit": self.audit, "clock": self.clock, "actor": "ana", **changes,
        }  # fmt: skip
        return rollback("late", **arguments)

    @property
    def champion(self) -> str:
        return self.versions.get("late", "champion").version

    @property
    def live(self) -> dict[str, str]:
        """Return endpoint -> version."""
        return {name: route.arms[0].version for name, route in self.routes.current().items()}


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
