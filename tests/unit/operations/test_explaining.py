"""Explanations of logged predictions and of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import to_builtins

from kit.explained import explained, logged
from kit.models import KEY, mlp_bundle
from kit.waiting import wait_until
from mainspring.core.errors import Invalid, NotFound
from mainspring.jobs.model import Status
from mainspring.ledger.model import REQUESTED, SAMPLED, Asked, KeptExplanation
from mainspring.ledger.recording import Recorder
from mainspring.operations.explaining import explain_prediction, explain_version
from mainspring.operations.jobs.queue import begin, run_here
from mainspring.operations.prediction import NotInLog
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.project.explainers import load_explainer
from mainspring.project.settings import load_settings
from mainspring.registry.model import ModelVersion
from mainspring.serving.explanation import ANSWER, NotExplainable

pytestmark = pytest.mark.slow

VERSION = ModelVersion("made", "1", "0" * 64, "run", 0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "explained"\nmodules = []\n')
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    return Project(settings, signing_key=KEY)


@pytest.mark.parametrize("kind", ["sklearn_trees", "sklearn_linear", "xgboost"])
def test_a_logged_prediction_is_explained_and_answered_again(project: Project, kind: str) -> None:
    pytest.importorskip("xgboost")
    made = explained(kind, "texts")
    ids = logged(project, made.bundle, {name: values[:9] for name, values in made.rows.items()})
    found = explain_prediction(project, ids[4])
    assert found.inputs == {name: values[4] for name, values in made.rows.items()}
    assert found.verdict.outcome == "identical"
    assert found.explanation.exact
    output = found.explanation.outputs["probability"]
    total = output.base + sum(output.contributions.values()) + output.residual
    assert total == pytest.approx(output.total, abs=1e-6)
    assert 1 / (1 + np.exp(-total)) == pytest.approx(found.outputs["probability"], abs=1e-5)


def test_a_kept_explanation_is_compared_and_outlives_its_bundle(project: Project) -> None:
    made = explained("sklearn_linear", "float32, booleans")
    (one,) = logged(project, made.bundle, {name: values[:1] for name, values in made.rows.items()})
    new = explain_prediction(project, one)
    assert (new.kept, new.why) == ((), "")
    found = project.predictions.find(one)
    about = {name: getattr(found, name) for name in ("id", "endpoint", "model", "version", "digest", "at")}
    other = msgspec.structs.replace(new.explanation.outputs["probability"], base=9.0)
    wrong = msgspec.structs.replace(new.explanation, outputs={"probability": other})
    project.prediction_log.explain(
        [
            KeptExplanation(**about, origin=REQUESTED, **new.explanation.kept()),
            KeptExplanation(**about, origin=SAMPLED, **wrong.kept()),
        ]
    )
    wait_until(lambda: len(project.predictions.explanations(one)) == 2, "both to be written")
    agreeing, differing = explain_prediction(project, one).kept
    assert (agreeing.origin, agreeing.difference, agreeing.agrees) == (REQUESTED, 0.0, True)
    assert (differing.origin, differing.agrees) == (SAMPLED, False)
    assert differing.difference == pytest.approx(9 - new.explanation.outputs["probability"].base)
    project.blobs.delete(made.bundle.digest)
    gone = explain_prediction(project, one)
    assert gone.explanation == new.explanation
    assert "bundle" in gone.why
    assert gone.verdict.outcome == "cannot"
    with pytest.raises(NotFound):
        explain_prediction(project, one, wanted="probability < 0.1")


def test_any_model_can_be_explained_by_sampling(project: Project) -> None:
    made = explained("sklearn_mlp", "float32, booleans")
    (one,) = logged(project, made.bundle, {name: values[:1] for name, values in made.rows.items()})
    with pytest.raises(NotExplainable, match="--sampled"):
        explain_prediction(project, one)
    found = explain_prediction(project, one, sampled=True, calls=100 * 8 * 5).explanation
    assert (found.exact, found.method.exact, found.method.space) == (False, False, ANSWER)
    output = found.outputs["probability"]

    assert abs(output.residual) < 1e-6  # each background row came equally often
    assert 0 < max(output.errors.values()) < 0.05
    again = explain_prediction(project, one, sampled=True, calls=100 * 8 * 5).explanation
    assert again == found


def test_a_job_explains_several_predictions(project: Project) -> None:
    made = explained("sklearn_mlp", "float32, booleans")
    ids = logged(project, made.bundle, {name: values[:2] for name, values in made.rows.items()})
    with pytest.raises(Invalid, match="names no prediction"):
        begin(project, "explain", {})
    with pytest.raises(NotFound):
        begin(project, "explain", {"predictions": ["nobody"]})
    done = run_here(project, begin(project, "explain", {"predictions": ids, "budget": 200}).id)
    assert done.status is Status.DONE
    assert isinstance(done.result, dict)
    one = explain_prediction(project, ids[1], sampled=True, calls=200).explanation
    assert done.result[ids[1]] == to_builtins(one)
    assert done.result.keys() == set(ids)


def test_a_time_limit_ends_the_sampling(project: Project) -> None:
    made = explained("sklearn_mlp", "float32, booleans")
    (one,) = logged(project, made.bundle, {name: values[:1] for name, values in made.rows.items()})
    short = explain_prediction(project, one, sampled=True, calls=10**9, seconds=0)
    assert max(short.explanation.outputs["probability"].errors.values()) > 0


def test_estimates_agree_with_the_exact_contributions_of_a_sum(project: Project) -> None:
    """A random forest's sum is its answer, so both methods explain the same."""
    made = explained("sklearn_forest", "regression around 1e6")
    (one,) = logged(project, made.bundle, {name: values[:1] for name, values in made.rows.items()})
    exact = explain_prediction(project, one).explanation.outputs["value"]
    estimated = explain_prediction(project, one, sampled=True, calls=100 * 8 * 10).explanation.outputs["value"]
    for column, value in exact.contributions.items():
        assert abs(value - estimated.contributions[column]) <= 4 * estimated.errors[column] + 1e-3


def test_a_value_that_the_log_hides_is_named_until_it_is_revealed(project: Project) -> None:
    made = explained("sklearn_trees", "texts")
    (one,) = logged(project, made.bundle, {name: values[:1] for name, values in made.rows.items()}, personal=["V.a"])
    with pytest.raises(NotInLog, match=r"V\.a of prediction .* is encrypted.*--reveal"):
        explain_prediction(project, one)
    assert explain_prediction(project, one, revealed=True).inputs["V.a"] == made.rows["V.a"][0]


def test_an_unknown_prediction(project: Project) -> None:
    with pytest.raises(NotFound):
        explain_prediction(project, "0" * 26)


@pytest.mark.parametrize("case", ["texts", "several classes", "regression around 1e6"])
def test_a_version_as_a_whole(project: Project, case: str) -> None:
    made = explained("sklearn_trees", case)
    found = explain_version(VERSION, made.bundle, executors(project)(made.bundle), columns=["V.a"])
    assert (found.rows, found.why) == (150, "")
    assert {each.column for each in found.importances} == set(made.rows)
    first = found.importances[0]
    assert first.column in ("V.a", "V.b")  # the label follows them
    assert first.contribution is not None
    assert first.permutation is not None
    assert first.contribution.low < first.contribution.value < first.contribution.high
    assert first.permutation.low > 0
    weights: list[Any] = [each.contribution for each in found.importances]
    assert [each.value for each in weights] == sorted((each.value for each in weights), reverse=True)
    assert [each.output for each in found.dependences] == list(made.bundle.manifest.outputs)
    curve = found.dependences[-1]
    assert (curve.column, len(curve.values)) == ("V.a", 12)
    assert curve.mean[-1] > curve.mean[0]  # the last class, the probability and the number grow with it
    assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))
    assert 0 <= curve.interaction <= 1


def test_the_dependence_on_a_text_and_on_an_additive_model(project: Project) -> None:
    made = explained("sklearn_linear", "regression around 1e6")
    found = explain_version(VERSION, made.bundle, executors(project)(made.bundle))
    curves = [each for each in found.dependences if each.column != "V.flag"]
    assert max(each.interaction for each in curves) < 1e-3  # of rounding in float32 around 1e6
    made = explained("sklearn_trees", "texts")
    found = explain_version(VERSION, made.bundle, executors(project)(made.bundle), columns=["V.kind"])
    (curve,) = found.dependences
    assert curve.values == ["bread", "cake", "pie", "tart"]
    assert max(curve.mean) == curve.mean[1]


def test_a_model_without_an_exact_way_has_the_rest(project: Project) -> None:
    made = explained("sklearn_mlp", "float32, booleans")
    found = explain_version(VERSION, made.bundle, executors(project)(made.bundle), columns=[])
    assert found.method is None
    assert "no exact explanation" in found.why
    assert all(each.contribution is None and each.permutation is not None for each in found.importances)


def test_what_cannot_be_explained_is_said(project: Project) -> None:
    made = explained("sklearn_trees", "texts")
    executor = executors(project)(made.bundle)
    with pytest.raises(NotFound, match=r"no input V\.z.*V\.kind"):
        explain_version(VERSION, made.bundle, executor, columns=["V.z"])
    with pytest.raises(NotExplainable, match="tensors"):
        explain_version(VERSION, mlp_bundle(), executor)


def test_of_tensors_the_error_names_another_way_than_an_estimate(project: Project) -> None:
    network = mlp_bundle()
    project.bundles.save(network)
    Recorder(project.prediction_log, endpoint="net", model="net", version="1", digest=network.digest).record(
        at=1, ids=["net-1"], asked=[Asked("key", 1, 1)], features={"x": np.zeros((1, 8))}, outputs={"y": [0.5]}
    )
    wait_until(lambda: any(each.id == "net-1" for each in project.predictions.recent()), "the prediction")
    for sampled in (False, True):
        with pytest.raises(NotExplainable, match="gradients") as refused:
            explain_prediction(project, "net-1", sampled=sampled)
        assert "--sampled" not in str(refused.value)
    with pytest.raises(NotExplainable, match="gradients"):
        load_explainer(network)
