"""A model of each framework, from a training function to what serves it; and a network, from code to its executor."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from onnx import helper

import mainspring as ms
from kit.bakery import ORDERS, START, Bakery, Order, Traffic, late_model, orders
from kit.depth import deep
from kit.flavours import encoder, encoder_examples, network
from kit.models import onnx_model, sealed
from mainspring.core.errors import Corrupt, Invalid, NotConvertible
from mainspring.core.schema import DType
from mainspring.core.time import MINUTE, format_instant
from mainspring.operations.models.adding import add_file
from mainspring.project.executors import EXECUTORS, executors
from mainspring.registry.model import Bundle, Input
from mainspring.serving.plane.golden import warm_up
from mainspring.stats import metrics
from mainspring.training.flavours import estimator_scores
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.frames import to_frame

UNTIL = START + ORDERS * 10 * MINUTE


@ms.request_features
class Numbers:
    weight = ms.col("weight")
    gift = ms.col("gift")
    hour = ms.col("placed_at").hour()


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    (made.root / "model.py").write_text("x = 1\n")
    made.ingest()
    return made


@pytest.fixture(autouse=True)
def _frameworks_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def xgboost(data: Any, run: Any) -> Any:
    library = pytest.importorskip("xgboost")
    return library.XGBClassifier(n_estimators=20, n_jobs=1, random_state=run.seed).fit(data.train.X, data.train.y)


def lightgbm(data: Any, run: Any) -> Any:
    library = pytest.importorskip("lightgbm")
    made = library.LGBMClassifier(n_estimators=20, n_jobs=1, random_state=run.seed, verbose=-1)
    return made.fit(data.train.X, data.train.y)


def xgboost_by_category(data: Any, run: Any) -> Any:
    library = pytest.importorskip("xgboost")
    made = library.XGBClassifier(n_estimators=20, n_jobs=1, random_state=run.seed, enable_categorical=True)
    known = data.with_categories()
    return made.fit(known.train.X, known.train.y, eval_set=[(known.validation.X, known.validation.y)], verbose=False)


def lightgbm_by_category(data: Any, run: Any) -> Any:
    return lightgbm(data.with_categories(), run)


def catboost(data: Any, run: Any) -> Any:
    library = pytest.importorskip("catboost")
    made = library.CatBoostClassifier(
        iterations=20, thread_count=1, random_seed=run.seed, verbose=0, allow_writing_files=False
    )
    filled = data.train.X.fillna(dict.fromkeys(data.categorical, ""))
    return made.fit(filled, data.train.y, cat_features=data.categorical)


def torch(data: Any, run: Any) -> Any:
    library = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    library.manual_seed(run.seed)

    class Net(library.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.last = library.nn.Linear(len(data.features), 1)

        def forward(self, x: Any) -> Any:
            return library.sigmoid(self.last(library.nan_to_num(x)))[:, 0]

    return Net()


@pytest.mark.parametrize(
    ("train", "flavour", "file", "others"),
    [
        pytest.param(xgboost, "xgboost", "model.ubj", Numbers, marks=deep),
        pytest.param(lightgbm, "lightgbm", "model.txt", Numbers, marks=deep),
        (catboost, "catboost", "model.cbm", Order),
        (xgboost_by_category, "xgboost", "model.ubj", Order),
        (lightgbm_by_category, "lightgbm", "model.txt", Order),
        pytest.param(torch, "onnx", "model.onnx", Numbers, marks=deep),
    ],
)
def test_what_is_trained_is_what_is_served(
    bakery: Bakery, train: Callable[..., Any], flavour: str, file: str, others: Any
) -> None:
    kept: list[Any] = []

    def fit(data: Any, run: Any) -> Any:
        kept.append((train(data, run), list(data.features)))
        return kept[-1][0]

    model = late_model(fit, features=[Traffic, others], baseline=[], gates=[])
    report = bakery.trainer.train(model, since=START, until=UNTIL)
    params = bakery.tracking.get(report.run_id).params
    assert (params["since"], params["until"]) == (format_instant(START), format_instant(UNTIL))
    bundle = bakery.bundles.load(report.digest)
    assert (bundle.manifest.flavour, set(bundle.files) & {file}) == (flavour, {file})
    assert bundle.manifest.extra["proof"]["rows"] > 10_000
    assert bundle.manifest.extra["proof"]["worst"] <= (1e-5 if flavour == "onnx" else 0)

    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    scores = score_bundle(bundle, held_out)
    truth = held_out["_label"].to_numpy(zero_copy_only=False)
    assert metrics.score("binary", truth, scores) == report.metrics

    executor = EXECUTORS[flavour](_project(), bundle, False)
    warm_up(bundle, executor)
    golden = msgspec.json.decode(bundle.files["golden.json"])
    assert len(golden["probes"]["outputs"]["probability"]) > 20
    assert golden["held_out"]["rows"] == 10_000
    golden["probes"]["outputs"]["probability"][7] += 0.01
    changed = Bundle(bundle.digest, bundle.manifest, {**bundle.files, "golden.json": msgspec.json.encode(golden)})
    with pytest.raises(Corrupt, match=r"1 of \d+ probes"):
        warm_up(changed, executor)
    columns = {each.name: held_out[each.name].to_pylist() for each in bundle.manifest.inputs}
    served = executor.predict(columns, held_out.num_rows)["probability"]
    frame = to_frame(held_out, {each.name: each.dtype for each in bundle.manifest.inputs})
    expected = estimator_scores(kept[0][0], frame, "binary")[:, 0]
    assert np.abs(served - expected).max() <= (1e-6 if flavour == "onnx" else 1e-7)
    assert orders.name in bundle.files["features.json"].decode()


def _project() -> Any:
    class Settings:
        gateway_workers = 1
        model_time_us = 10_000_000
        model_memory_bytes = 2 << 30

    class Nobody:
        settings = Settings()

    return Nobody()


@deep
def test_the_same_training_of_catboost_makes_the_same_model(bakery: Bakery) -> None:
    model = late_model(catboost, features=[Order], baseline=[], gates=[])
    first, again = (bakery.trainer.train(model, since=START, until=UNTIL).digest for _ in range(2))
    files: list[Bundle] = [bakery.bundles.load(digest) for digest in (first, again)]
    assert files[0].files["model.cbm"] == files[1].files["model.cbm"]


class Mine:
    classes_ = np.array([0, 1])

    def predict(self, frame: Any) -> Any:
        return np.zeros(len(frame))

    def predict_proba(self, frame: Any) -> Any:
        return np.full((len(frame), 2), 0.5)


def test_a_training_that_returns_an_object_of_its_own_fails_by_name_and_registers_nothing(bakery: Bakery) -> None:
    before = bakery.versions.all("late-order")
    with pytest.raises(NotConvertible, match=r"Mine is not supported"):
        bakery.trainer.train(late_model(lambda _data, _run: Mine()), since=START, until=UNTIL)
    assert bakery.versions.all("late-order") == before


# Networks from code


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root: Path = tmp_path_factory.mktemp("networks")
    (root / "nets").mkdir()
    (root / "nets" / "__init__.py").write_text("")
    endpoints = [f'ms.Endpoint("{name}", model="{name}@champion", deadline="1s")\n' for name in ("network", "encoder")]
    (root / "nets" / "service.py").write_text("import mainspring as ms\n\n" + "".join(endpoints))
    (root / "mainspring.toml").write_text('name = "networks"\nmodules = ["nets.service"]\n\n[profiles.local]\n')
    return ms.open(root)


def test_an_onnx_file_with_two_outputs_of_one_name_is_no_model(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "twice.onnx"
    node = helper.make_node("Identity", ["x"], ["y"])
    path.write_bytes(onnx_model([node], [("x", "FP32", [None, 2])], [("y", "FP32", [None, 2])] * 2))
    with pytest.raises(Invalid, match=r"two tensors with the same name: \['y', 'y'\]"):
        add_file(project.services, "twice", path)
    assert project.services.versions.all("twice") == []


def test_an_onnx_file_that_answers_only_nan_is_no_model(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "nan.onnx"
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    path.write_bytes(onnx_model(nodes, [("x", "FP32", [None, 2])], [("y", "FP32", [None, 2])]))
    with pytest.raises(Invalid, match="returns infinite or missing numbers"):
        add_file(project.services, "nan", path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", pytest.param("encoder", marks=deep)])
def test_a_network_is_registered_and_answers(project: Any, kind: str) -> None:
    library = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = network() if kind == "network" else encoder()
    examples = {"x": np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)}
    examples = examples if kind == "network" else encoder_examples()
    added = project.register(kind, made, examples, alias="champion")
    assert (added.version, added.flavour, added.new) == ("1", "onnx", True)
    if kind == "network":
        assert project.register(kind, made, examples).new is False
    bundle = project.services.bundles.load(added.digest)
    assert bundle.manifest.extra["proof"]["rows"] > 10_000
    executor = executors(project.services)(bundle)
    rows = {name: values[:7] for name, values in examples.items()}
    found = next(iter(executor.predict(rows, 7).values()))
    with library.no_grad():
        tensors = [library.tensor(values) for values in rows.values()]
        expected = made.eval()(*tensors)
    expected = expected if kind == "network" else expected.logits
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_a_catboost_bundle_whose_manifest_says_otherwise_is_not_served() -> None:
    library = pytest.importorskip("catboost")
    rows = np.random.default_rng(0).normal(size=(50, 2))
    made = library.CatBoostRegressor(iterations=2, verbose=0, allow_writing_files=False).fit(rows, rows[:, 0])
    content = _saved(made)
    columns = (Input("V.a", DType.Float32), Input("V.b", DType.Float32))
    bundle = sealed("catboost", {"model.cbm": content}, task="regression", inputs=columns, outputs=("value",))
    executor = EXECUTORS["catboost"](_project(), bundle, False)
    given = {"V.a": rows[:, 0], "V.b": rows[:, 1]}
    assert np.array_equal(executor.predict(given, 50)["value"], made.predict(rows.astype(np.float32)))
    assert executor.nullable("V.a")
    for changes in (
        {"inputs": columns[:1]},
        {"inputs": (columns[0], Input("V.b", DType.String))},
        {"outputs": ("a", "b")},
    ):
        wrong = msgspec.structs.replace(bundle.manifest, **changes)
        with pytest.raises(Corrupt, match="manifest declares"):
            EXECUTORS["catboost"](_project(), Bundle(bundle.digest, wrong, bundle.files), False)


def _saved(model: Any) -> bytes:
    with TemporaryDirectory() as place:
        path = Path(place) / "model.cbm"
        model.save_model(str(path))
        return path.read_bytes()
