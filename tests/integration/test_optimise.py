"""`optimize` on a project: variants measured, and the chosen one a version like any, with a parent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from kit.depot import MODEL, Depot, copied, opened
from mainspring.core.errors import MainspringError
from mainspring.delivery.held_out import read_held_out
from mainspring.operations.optimise.bundling import with_model
from mainspring.operations.optimise.measuring import apart
from mainspring.operations.optimise.model import OptimiseReport
from mainspring.operations.optimise.optimising import optimise
from mainspring.operations.optimise.retraining import not_asked
from mainspring.operations.optimise.subject import Wish
from mainspring.project import Project
from mainspring.serving.plane.runtime import load
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import training_rows_again
from mainspring.training.sets.labels import SCORES

pytestmark = pytest.mark.slow

NETWORK = """
import mainspring as ms
from parcels.features import HubLoad, Parcel, deliveries, observations


@ms.model("network", observations=observations, features=[HubLoad, Parcel], label=deliveries.late, task="binary",
          gates=[ms.beats("auc", margin=0.05)])
def train(data, run):
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((48, 48), max_iter=25, random_state=run.seed)
    return make_pipeline(SimpleImputer(), StandardScaler(), network).fit(data.train.X, data.train.y)


@ms.model("torched", observations=observations, features=[Parcel], label=deliveries.late, task="binary",
          gates=[ms.at_least("auc", 0.0)])
def torched(data, run):
    import torch

    def rows(part):
        return torch.tensor(part.X.to_numpy("float32")), torch.tensor(part.y).float().reshape(-1, 1)

    class WithoutNulls(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = [torch.nn.Linear(len(data.features), 40), torch.nn.ReLU(), torch.nn.Linear(40, 40)]
            self.layers = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(40, 1), torch.nn.Sigmoid())

        def forward(self, rows):
            return self.layers(torch.nan_to_num(rows) / 10)

    torch.manual_seed(run.seed)
    network = WithoutNulls()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.005)
    return ms.fit_torch(network, rows(data.train), torch.nn.functional.binary_cross_entropy, optimiser=optimiser,
                        epochs=4, batch_size=64, run=run)


def double(x):
    return {"y": 2 * x}
"""


@pytest.fixture(scope="module")
def both(trained: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Depot:
    """The trained project with a network, of which no test changes more than by versions."""
    depot = copied(trained[0], tmp_path_factory.mktemp("optimise") / "depot")
    (depot.root / "parcels" / "network.py").write_text(NETWORK)
    settings = depot.root / "mainspring.toml"
    settings.write_text(settings.read_text().replace('"parcels.model",', '"parcels.model", "parcels.network",'))
    depot.json("train", "network")
    depot.json("train", "torched")
    return depot


@pytest.fixture(scope="module")
def project(both: Depot) -> Project:
    return opened(both)


def test_a_network_becomes_a_smaller_version_which_is_promoted_like_any(both: Depot, project: Project) -> None:
    def done() -> int:
        return [each.action for each in project.audit.read(1_000)].count("optimise")

    before = done()
    told = both.json("optimize", "network:1", "--for", "edge", "--within", "0.05", "--no-memory")
    report = msgspec.convert(told, OptimiseReport)
    by_name = {each.name: each for each in report.variants}
    assert by_name.keys() == {
        "parent", "graph", "fp16", "int8-static", "int8-dynamic", "int4-weights", "student-64",
        "student-16",
    }  # fmt: skip
    assert all(each.apart == 0.0 and not each.why_not for each in report.variants)
    assert report.chosen is not None
    chosen = by_name[report.chosen]
    assert chosen.chosen
    assert chosen.cost is not None
    assert chosen.cost.bytes == min(each.cost.bytes for each in report.variants if each.cost)
    shown = both.json("models", "show", f"network:{report.registered}")
    parent = project.versions.get("network", "1")
    assert shown["ancestors"] == [{"role": "parent", "digest": parent.digest, "version": "network:1"}]
    run = project.tracking.get(report.run_id or "")
    assert msgspec.json.decode(project.tracking.artefact(run.id, "optimise.json"), type=OptimiseReport) == report
    assert done() == before + 1
    assert not project.versions.get("network", report.registered or "").aliases
    card = both.json("models", "card", f"network:{report.registered}")
    assert f"{report.chosen} of version 1" in {each["name"]: each["value"] for each in card["made"]}["Optimised"]
    assert both.json("promote", "network", "1")["promoted"]
    promoted = both.json("promote", "network", report.registered)
    assert promoted["promoted"], promoted
    assert both.json("rollback", "network")["version"] == "1"
    name = report.chosen
    again = both.json("optimize", "network:1", "--for", "edge", "--only", name, "--choose", name, "--no-memory")
    assert again["registered"] == report.registered  # equal content is the same version


def test_a_variant_is_loaded_by_a_gateway_and_answers_near_its_parent(project: Project) -> None:
    report = optimise(project, f"{MODEL}:1", Wish("cpu", ["trees-50"]), chosen="trees-50")
    assert all(each.cost is not None and (each.cost.memory_bytes or 0) > 100_000 for each in report.variants)
    variant = project.bundles.load(project.versions.get(MODEL, report.registered or "").digest)
    made = variant.manifest.extra["optimised"]
    assert (made["variant"], made["parent_version"]) == ("trees-50", "1")
    assert variant.manifest.tolerance == made["largest_difference"] > 0
    from mainspring.project.executors import executors

    load(variant, project.online, executors(project)).executor.close()  # its golden rows are its own answers
    held_out = read_held_out(variant)
    before = read_held_out(project.bundles.load(project.versions.get(MODEL, "1").digest))
    ours, theirs = (np.array(table[SCORES].to_pylist()) for table in (held_out, before))
    assert 0 < np.abs(ours - theirs).max() <= 2 * made["largest_difference"]
    quality = next(each.quality for each in report.variants if each.chosen)
    assert quality is not None
    assert variant.manifest.metrics["auc"] == pytest.approx(quality.value)


def test_a_network_is_pruned_and_trained_further_and_a_gate_refuses_what_lost_too_much(
    both: Depot, project: Project
) -> None:
    """The gate asks for the AUC that the version has, so that a variant fails it just where it loses."""
    parent = project.bundles.load(project.versions.get("torched", "1").digest)
    code = both.root / "parcels" / "network.py"
    code.write_text(NETWORK.replace('at_least("auc", 0.0)', f'at_least("auc", {parent.manifest.metrics["auc"]!r})'))
    names = ["pruned-neurons-50", "pruned-weights-50", "int4-weights"]
    wanted = [word for name in names for word in ("--only", name)]
    told = both.json(
        "optimize", "torched:1", "--for", "edge", *wanted, "--epochs", "1", "--within", "0.9",
        "--choose", "pruned-neurons-50", "--device-memory", "512",
    )  # fmt: skip
    report = msgspec.convert(told, OptimiseReport)
    by_name = {each.name: each for each in report.variants}
    assert [*by_name] == ["parent", "int4-weights", "pruned-weights-50", "pruned-neurons-50"]
    for name, each in by_name.items():
        assert each.quality is not None, each
        assert each.cost is not None, each
        assert (each.quality.loss > 0) == bool(each.gates_failed), name
        assert (each.cost.memory_bytes or 0) > 10e6  # of a whole process
        assert each.apart == 0.0
    assert by_name["pruned-neurons-50"].how == "half of the neurons of each layer removed, then trained for 1 epoch"
    made = project.bundles.load(project.versions.get("torched", report.registered or "").digest)
    shapes = {
        name: [
            tuple(each.dims) for each in onnx.load_model_from_string(content).graph.initializer if len(each.dims) == 2
        ]
        for name, content in (("parent", parent.files["model.onnx"]), ("made", made.files["model.onnx"]))
    }
    assert shapes == {"parent": [(40, 1), (40, 40), (1, 40)], "made": [(20, 1), (20, 20), (1, 20)]}
    assert len(made.files["model.onnx"]) < 0.6 * len(parent.files["model.onnx"])
    failing = bool(by_name["pruned-neurons-50"].gates_failed)
    promoted = both.run("promote", "torched", report.registered, "--json")
    assert json.loads(promoted.stdout)["promoted"] == (not failing)
    assert [each.why_not for each in not_asked(parent.files["model.onnx"])] == [
        "It trains the network further: give --retrain, or name it by --only."
    ] * 4


def test_calibration_rows_are_those_of_the_training(project: Project) -> None:
    model = project.definitions.model("network")
    version = project.versions.get("network", "1")
    bundle = project.bundles.load(version.digest)
    commit = project.snapshots.get(bundle.manifest.dataset_commit)
    table = training_rows_again(bundle, model.labels, lambda name: pinned_scan(project.lake, commit, name), 50)
    _, frame = project.trainer.inspect(
        model, "look", lambda observed, *_: observed.data.train.X, until=bundle.manifest.extra["until"]
    )
    chosen = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, 50).astype(int))]
    assert table.num_rows == len(chosen) == 50
    for name in frame.columns:
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), float), chosen[name].to_numpy(float))


def test_a_model_whose_rows_depend_on_their_batch_is_found(project: Project, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    bundle = project.bundles.load(project.versions.get("network", "1").digest)
    assert apart(project, bundle) == 0.0
    quantize_dynamic(onnx.load_model_from_string(bundle.files["model.onnx"]), tmp_path / "dynamic.onnx")
    dynamic = with_model(bundle, (tmp_path / "dynamic.onnx").read_bytes())
    assert apart(project, dynamic) > 0.001


def test_bad_input_is_refused_with_its_fix(both: Depot, project: Project) -> None:
    for words, said in (
        (["network:1", "--only", "int3"], "There is no variant 'int3'"),
        (["network:1", "--within", "2"], "The largest loss 2 is not a share"),
        (["network:1", "--for", "cuda"], "no CUDAExecutionProvider here"),
        (["network:9"], "There is no network:9"),
        (["network:1", "--rows", "posted.csv"], "network:1 has held-out rows"),
        (["network:1", "--epochs", "0"], "cannot be trained for 0 epochs"),
        (["network:1", "--device-memory", "8"], "ONNX Runtime alone takes more than 8 MiB"),
        (
            ["network:1", "--only", "pruned-neurons-50", "--choose", "pruned-neurons-50", "--dry-run", "--no-memory"],
            "not one of PyTorch",
        ),
        (
            ["network:1", "--only", "openvino", "--choose", "openvino", "--dry-run", "--no-memory"],
            "ONNX Runtime has no OpenVINOExecutionProvider here",
        ),
        (
            [f"{MODEL}:1", "--only", "fp16", "--choose", "fp16", "--dry-run", "--no-memory"],
            "does not suit this model, which can have graph, trees-",
        ),
    ):
        ran = both.run("optimize", *words)
        assert (ran.code != 0, said in ran.stderr) == (True, True), ran
    both.json(
        "models", "function", "twice", "parcels.network:double", "--input", "x:FP32:-1,1", "--output", "y:FP32:-1,1"
    )
    with pytest.raises(MainspringError, match="no graph to optimise: its model is a function"):
        optimise(project, "twice:1", Wish("cpu"))


def test_without_the_data_only_what_needs_it_is_missing(both: Depot, tmp_path: Path) -> None:
    depot = copied(both.root, tmp_path / "depot")
    shutil.rmtree(depot.state / "lake")
    told = depot.json(
        "optimize", "network:1", "--only", "int8-static", "--only", "int8-dynamic", "--dry-run", "--no-memory"
    )
    why = {each["name"]: each["why_not"] for each in told["variants"]}
    assert "Its training rows cannot be read" in why["int8-static"]
    assert why["int8-dynamic"] == ""
    assert told["run_id"] is told["registered"] is None
