"""Vectors of a model of tensors, from the examples it is registered with to the sketches of its traffic."""

import msgspec
import numpy as np

from mainspring.core.time import HOUR
from mainspring.ledger.ports import Observed
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.served import served
from mainspring.monitoring.sketching import Sketching
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.training.vectors import vector_reference

RNG = np.random.default_rng(8)


def test_the_vectors_of_a_model_of_tensors_are_sketched_by_cells() -> None:
    examples = {"x": RNG.normal(size=(1_000, 4)).astype(np.float32), "ids": np.ones((1_000, 3), np.int64)}
    files = vector_reference({**examples, "long": RNG.normal(size=(300, 65)), "few": RNG.normal(size=(9, 4))})
    assert [*msgspec.json.decode(files["reference.json"])["columns"]] == ["x"]
    assert vector_reference({"few": examples["x"][:50]}) == {}
    manifest = Manifest(
        model="m", task="tensors", flavour="onnx", inputs=(), outputs=(), run_id="r", dataset_commit="c",
        tensors=(TensorSpec("x", "FP32", (-1, 4)), TensorSpec("ids", "INT64", (-1, 3))),
        output_tensors=(TensorSpec("y", "FP32", (-1, 2)),), features_digest="f", code_version="v", created_at=0,
    )  # fmt: skip
    store = MemorySketches()
    sketching = Sketching(store, lambda _: served(Bundle("d", manifest, files)))
    features = {"x": [[0.1, 0.2, 0.3, 0.4], None, [9e9] * 4, [1.0]], "ids": [[1, 2, 3]] * 4}
    times = np.arange(4, dtype=np.int64)
    seen = Observed("e", "1", "d", times, np.ones(4), times, features, [0.5] * 4)
    sketching.observe("first", [seen])
    (found,) = store.hours("e", 0, HOUR)
    assert (found.reason, found.sketch.columns, found.rows) == ("", ("x",), 4)
    assert [int(found.sketch.count(name)[0]) for name in ("rows", "nulls", "type_errors", "above")] == [4, 1, 1, 1]
