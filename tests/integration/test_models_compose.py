"""An ensemble of trained models: asked by the same entity keys, and answered by their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kit.depot import MODEL, Depot, opened
from kit.models import mlp
from mainspring.core.errors import Invalid
from mainspring.operations.models.adding import add_file
from mainspring.operations.models.composing import Plan, Step, compose
from mainspring.project.executors import executors
from mainspring.serving.plane import runtime

pytestmark = pytest.mark.slow


def test_an_ensemble_of_trained_models_takes_their_features_and_keys(depot: Depot, tmp_path: Path) -> None:
    project = opened(depot)
    features = [each.name for each in project.bundles.load(project.versions.get(MODEL, "1").digest).manifest.inputs]
    same = {name: name for name in features}

    def plan(second: str) -> Plan:
        return Plan(
            (
                Step(name="one", model=f"{MODEL}@1", inputs=same),
                Step(name="two", model=second, inputs=same),
                Step(name="mean", combine="mean", inputs={"a": "one.probability", "b": "two.probability"}),
            ),
            {"probability": "mean.value"},
        )

    added = compose(project, "pair", plan(f"{MODEL}@2"))
    load = executors(project)

    def ready(digest: str) -> runtime.Runtime:
        return runtime.load(project.bundles.load(digest), project.online, load)

    one, two = (ready(project.versions.get(MODEL, version).digest) for version in ("1", "2"))
    both = ready(added.digest)
    assert both.key_names == one.key_names
    assert both.schema.keyed == one.schema.keyed
    assert both.stored
    assert [spec.name for spec in both.inputs] == features
    rows = {name: [None, 1, 2, 3] if one.executor.nullable(name) else [0, 1, 2, 3] for name in features}
    parts = [each.executor.predict(rows, 4)["probability"].astype(np.float64) for each in (one, two)]
    found = both.executor.predict(rows, 4)["probability"]
    np.testing.assert_allclose(found, np.mean(parts, axis=0), rtol=1e-6)

    (tmp_path / "m.onnx").write_bytes(mlp())
    add_file(project, "network", tmp_path / "m.onnx")
    with pytest.raises(Invalid):
        compose(project, "mixed", plan("network@1"))
