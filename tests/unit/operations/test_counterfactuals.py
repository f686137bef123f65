"""What would have to change: fewest changes of mutable inputs, answered by the model."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.explained import explained, logged
from kit.models import KEY
from mainspring.core.errors import Invalid
from mainspring.governance.counterfactual import read_target, search
from mainspring.operations.explaining import explain_prediction
from mainspring.project import Project
from mainspring.project.settings import load_settings
from mainspring.training.mutable import check_mutable


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "explained"\nmodules = []\n')
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    return Project(settings, signing_key=KEY)


SEEN = {"a": [0.0, 1.0, 2.0, 3.0], "b": [0.0, 1.0, 2.0, None], "kind": ["x", "y", "y", "z"]}


def model(columns: Any, rows: int) -> Any:
    """Return a + 2 b + 10 where the kind is z, null as 0."""
    values = [
        a + 2 * (b or 0) + (10 if kind == "z" else 0)
        for a, b, kind in zip(columns["a"], columns["b"], columns["kind"], strict=True)
    ]
    return np.array(values, float)[:, None]


def found(row: dict[str, Any], wanted: str, mutable: dict[str, str], most: int = 3) -> Any:
    return search(row, SEEN, mutable, model, read_target(wanted, ["value"]), ["value"], most)


def test_the_fewest_changes_are_found_and_none_needs_fewer() -> None:
    row = {"a": 0.0, "b": 0.0, "kind": "x"}
    mutable = {"a": "any", "b": "any"}
    result = found(row, "value >= 6", mutable)
    assert [set(each.changes) for each in result.found] == [{"a", "b"}]
    assert result.found[0].answer >= 6
    singles = [model({**{n: [v] for n, v in row.items()}, name: [value]}, 1)[0, 0]
               for name in mutable for value in SEEN[name] if value is not None]  # fmt: skip
    assert max(singles) < 6
    one = found(row, "value > 3", {**mutable, "kind": "any"})
    assert {frozenset(each.changes) for each in one.found} == {frozenset({"b"}), frozenset({"kind"})}
    assert one.found[0].distance <= one.found[1].distance


def test_directions_are_kept() -> None:
    row = {"a": 1.0, "b": 1.0, "kind": "y"}
    assert found(row, "value < 3", {"a": "increase", "b": "increase"}).found == []
    (lower,) = found(row, "value < 3", {"a": "decrease", "b": "increase"}).found
    assert lower.changes == {"a": 0.0}
    none = found({**row, "b": None}, "value > 4", {"b": "increase"})
    assert none.found == []  # a null neither rises nor falls
    assert found({**row, "b": None}, "value > 4", {"b": "any"}).found[0].changes == {"b": 2.0}


def test_nothing_found_is_said_with_what_was_tried() -> None:
    result = found({"a": 0.0, "b": 0.0, "kind": "x"}, "value > 99", {"a": "any", "b": "any"}, most=2)
    assert (result.found, result.met, result.most) == ([], False, 2)
    assert result.tried == 1 + 5 + len(list(product(range(3), range(2))))
    assert found({"a": 3.0, "b": 0.0, "kind": "x"}, "value > 2", {"a": "any"}).met


@pytest.mark.parametrize(
    "text", ["", "value", "value = 3", "value < x", "other < 3", "value < nan", "< 1e", "value << 3"]
)
def test_a_target_that_is_none(text: str) -> None:
    with pytest.raises(Invalid, match=r"value < 0\.3"):
        read_target(text, ["value"])


def test_targets() -> None:
    assert str(read_target("< 0.3", ["value"])) == "value < 0.3"
    assert read_target("no show>=-1e-3", ["no show", "show"]).bound == -0.001
    with pytest.raises(Invalid, match="the outputs are a, b"):
        read_target("< 3", ["a", "b"])


def test_mutable_inputs_are_checked() -> None:
    with pytest.raises(Invalid, match=r"no input 'V\.z'"):
        check_mutable({"V.z": "any"}, {"V.a": False}, "model 'm'")
    with pytest.raises(Invalid, match=r"by 'rise'.*any or increase or decrease"):
        check_mutable({"V.a": "rise"}, {"V.a": False}, "model 'm'")
    with pytest.raises(Invalid, match=r"by 'increase'.*write any"):
        check_mutable({"V.t": "increase"}, {"V.t": True}, "model 'm'")


def test_a_logged_prediction_gets_another_answer(project: Project) -> None:
    made = explained("sklearn_trees", "texts")
    ids = logged(project, made.bundle, made.rows)
    predictions = [project.predictions.find(each) for each in ids]
    one = max(predictions, key=lambda each: float(each.outputs["probability"]))  # type: ignore[arg-type]
    mutable = {"V.a": "decrease", "V.kind": "any"}
    result = explain_prediction(project, one.id, wanted="probability < 0.4", mutable=mutable).counterfactuals
    assert result is not None
    assert result.found
    for each in result.found:
        assert set(each.changes) <= set(mutable)
        assert each.answer < 0.4
        assert "V.a" not in each.changes or each.changes["V.a"] < one.features["V.a"]
    (again,) = logged(project, made.bundle, {
        name: [result.found[0].changes.get(name, value)] for name, value in one.features.items()
    })  # fmt: skip
    assert project.predictions.find(again).outputs["probability"] == pytest.approx(result.found[0].answer)
    with pytest.raises(Invalid, match="No input of model 'made' is declared as mutable"):
        explain_prediction(project, one.id, wanted="probability < 0.4")
