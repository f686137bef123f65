"""`optimize` on models without labels: a network of tensors, and an encoder of texts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.depot import Depot, copied, opened
from kit.encoders import ENCODER_WORDS, write_encoder
from mainspring.core.errors import Invalid, NotConvertible
from mainspring.delivery.held_out import read_held_out
from mainspring.operations.models.encoders import add_encoder
from mainspring.operations.optimise.bundling import with_model
from mainspring.operations.optimise.model import OptimiseReport
from mainspring.operations.optimise.on_device import device_costs
from mainspring.operations.optimise.optimising import optimise
from mainspring.operations.optimise.subject import Wish
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.providers import with_provider
from mainspring.serving.adapters.sessions import available_providers
from mainspring.training.flavours.scoring import score_bundle
from mainspring.vectors.declaring import Encoder

pytestmark = pytest.mark.slow
SIDE, CHANNELS, CLASSES = 8, 8, 5


@pytest.fixture(scope="module")
def depot(trained: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Depot:
    return copied(trained[0], tmp_path_factory.mktemp("unlabelled") / "depot")


@pytest.fixture(scope="module")
def project(depot: Depot) -> Project:
    return opened(depot)


def pictures_model() -> bytes:
    """Return a convolution and two dense layers."""
    rng = np.random.default_rng(0)
    flat = CHANNELS * SIDE * SIDE
    shapes = {"filters": (CHANNELS, 1, 3, 3), "first": (flat, 64), "last": (64, CLASSES)}
    constants = [
        numpy_helper.from_array((rng.normal(size=shape) / np.sqrt(np.prod(shape) / shape[-1])).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["picture", "filters"], ["seen"], name="edges", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["seen"], ["bright"]),
        helper.make_node("Flatten", ["bright"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "last"], ["c"]),
        helper.make_node("Softmax", ["c"], ["kinds"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [None, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("kinds", TensorProto.FLOAT, [None, CLASSES])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def test_a_network_of_tensors_is_judged_by_its_own_answers(depot: Depot, project: Project, tmp_path: Path) -> None:
    (tmp_path / "pictures.onnx").write_bytes(pictures_model())
    depot.json("models", "add", "pictures", tmp_path / "pictures.onnx")
    rows = np.random.default_rng(1).normal(size=(80, 1, SIDE, SIDE)).round(3).tolist()
    (tmp_path / "rows.json").write_text(json.dumps({"inputs": {"picture": rows}}))
    told = depot.json(
        "optimize", "pictures:1", "--for", "edge", "--rows", tmp_path / "rows.json", "--within", "0.2",
        "--device-memory", "512",
    )  # fmt: skip
    report = msgspec.convert(told, OptimiseReport)
    by_name = {each.name: each for each in report.variants}
    assert [*by_name] == ["parent", "graph", "fp16", "int8-static", "int8-dynamic", "int4-weights"]
    assert (report.metric, report.judged_on) == ("r2", "60 given rows")
    for name, each in by_name.items():
        assert each.why_not == "", each
        assert (each.apart or 0) <= (0.0 if name == "int8-static" else 1e-6), name
        assert each.quality is not None
        assert each.quality.loss_high is not None
        assert each.quality.loss_high >= each.quality.loss >= 0
    assert by_name["int8-static"].kept == ""
    assert by_name["int4-weights"].kept == ""  # 72 weights of the convolution are not worth a word
    assert report.chosen in ("int4-weights", "int8-dynamic")
    version = project.versions.get("pictures", report.registered or "")
    made = project.bundles.load(version.digest)
    parent = project.bundles.load(project.versions.get("pictures", "1").digest)
    assert version.tags["parent"] == parent.digest
    assert made.manifest.tensors == parent.manifest.tensors
    given = {"picture": np.array(rows, np.float32)}
    ours, theirs = (executors(project)(each).predict(given, 80)["kinds"] for each in (made, parent))
    judged = np.arange(80) % 4 != 3
    spread = ((theirs - theirs[judged].mean(axis=0)) ** 2)[judged].sum()
    loss = ((ours - theirs) ** 2)[judged].sum() / spread
    quality = by_name[report.chosen].quality
    assert quality is not None
    assert quality.loss == pytest.approx(loss, rel=1e-4)
    assert made.manifest.extra["optimised"]["parent_version"] == "1"
    for inputs, said in (
        ({"image": rows}, "lack the inputs picture"),
        ({"picture": []}, "There are no rows"),
        ({"picture": [[1.0]]}, "Input 'picture' has the shape"),
        ({"picture": [["a"]]}, "Input 'picture' contains a value that is not FP32"),
    ):
        (tmp_path / "rows.json").write_text(json.dumps({"inputs": inputs}))
        with pytest.raises(Invalid, match=said):
            optimise(project, "pictures:1", Wish("cpu", rows=tmp_path / "rows.json"))


def test_an_encoder_is_judged_by_the_neighbours_of_texts(depot: Depot, project: Project, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    add_encoder(project, "words", write_encoder(tmp_path, width=64, num_attention_heads=4))
    with pytest.raises(Invalid, match="There are 0 texts by which"):
        optimise(project, "words:1", Wish("cpu"))
    words = ENCODER_WORDS[3:]
    texts = [" ".join(each) for each in itertools.islice(itertools.permutations(words, 5), 0, 12_000, 100)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    told = depot.json(
        "optimize", "words:1", "--rows", tmp_path / "texts.txt", "--no-memory", "--only", "fp16", "--only",
        "int8-dynamic", "--only", "int8-static", "--only", "int4-weights", "--choose", "int8-dynamic",
    )  # fmt: skip
    report = msgspec.convert(told, OptimiseReport)
    by_name = {each.name: each for each in report.variants}
    assert (report.metric, report.judged_on) == ("neighbours-10", "90 given texts")
    cosines = {name: each.cosine for name, each in by_name.items()}
    assert cosines["parent"] == pytest.approx(1.0)
    assert 1.0 > (cosines["int8-dynamic"] or 0) > (cosines["int4-weights"] or 0) > 0.5
    quality = by_name["int8-dynamic"].quality
    assert quality is not None
    assert quality.loss_high is not None
    assert "multiply computed matrices" in by_name["int8-dynamic"].kept  # those of the attention
    judged = [text for place, text in enumerate(texts) if place % 4 != 3]
    sides = [
        project.encoder(Encoder(f"words-{each}", model=f"words:{each}")).encode(judged).astype(np.float64)
        for each in ("1", report.registered)
    ]
    shared = []
    for row in range(len(judged)):
        near = []
        for vectors in sides:
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            alike = [(-float(unit[row] @ unit[other]), other) for other in range(len(judged)) if other != row]
            near.append({other for _, other in sorted(alike)[:10]})
        shared.append(len(near[0] & near[1]) / 10)
    assert quality.value == pytest.approx(np.mean(shared), abs=0.01)
    # What nobody promoted is not what the encoder's name means.
    assert project.encoder_version(Encoder("words-now", model="words")).version == "1"


def test_a_model_that_is_sealed_for_a_provider_is_refused_where_it_is_not(project: Project) -> None:
    bundle = project.bundles.load(project.versions.get("late-parcel", "1").digest)
    sealed = with_provider(with_model(bundle, bundle.files["model.onnx"]), "OpenVINOExecutionProvider")
    with pytest.raises(Invalid, match="is sealed for OpenVINOExecutionProvider") as refused:
        executors(project)(sealed)
    assert f"The model of bundle {sealed.digest[:12]} is sealed" in refused.value.what
    assert refused.value.fix == (
        "install onnxruntime-openvino in place of onnxruntime, or promote the version that it was made of."
    )


def test_a_model_that_is_sealed_for_a_provider_is_judged_by_its_answers(project: Project) -> None:
    """Where the provider is not, by those of the processor."""
    bundle = project.bundles.load(project.versions.get("late-parcel", "1").digest)
    rows, wanted = read_held_out(bundle), score_bundle(bundle, read_held_out(bundle))
    np.testing.assert_array_equal(score_bundle(with_provider(bundle, "OpenVINOExecutionProvider"), rows), wanted)
    here = "AzureExecutionProvider"  # of each build of the runtime, and without an operator
    assert here in available_providers()
    with pytest.raises(NotConvertible, match=f"{here} cannot run the model"):
        score_bundle(with_provider(bundle, here), rows)


def test_a_device_with_too_little_memory_runs_nothing_and_says_so() -> None:
    rows = {"picture": np.zeros((4, 1, SIDE, SIDE), np.float32)}
    contents = {"pictures": pictures_model()}
    found, failed = device_costs(contents, {"pictures": rows}, 8 << 20)
    assert found == {}
    assert failed["pictures"].startswith("it does not run in a process with one processor and 8 MiB: ")
