"""What is declared wrongly is refused where it stands, with the value and what to write instead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.bakery import START, Order, Traffic, fit_trees, late_model, order, orders, outcomes, shop, visits
from mainspring.core.errors import Invalid, InvalidDefinition
from mainspring.core.time import to_datetime
from mainspring.operations.apply import apply
from mainspring.project import open_project
from mainspring.project.definitions.contents import content
from mainspring.project.definitions.loading import load_definitions
from mainspring.project.settings import load_settings

space = ms.space(depth=ms.integer(1, 3))
any_: Any = ms  # as a project without a type checker uses it


def view(**changed: Any) -> Any:
    class Some:
        visits = ms.count(window="1h")

    return ms.feature_view(**{"entity": shop, "source": visits, **changed})(Some)


def watched(**changed: Any) -> Any:
    return ms.Observations(**{"source": orders, "keys": [order, shop], "at": ms.col("placed_at"), **changed})


def served(**changed: Any) -> Any:
    return ms.Endpoint("late", **{"model": "late@champion", **changed})


def documents(name: Any) -> Any:
    return ms.Collection(
        name, source=comments, text="text", key="shop", chunk=ms.chunks.tokens(64), encoder=ms.Encoder("small")
    )


comments = ms.Source("comments", schema={"shop": ms.String, "text": ms.String}, event_time="at")
returned = ms.Source("returned", schema={"order": ms.Int64, "minutes": ms.Int32, "paid": ms.Float64}, event_time="at")
complaints = ms.Source("complaints", schema={"shop": ms.String, "number": ms.Int64}, event_time="at")
named_like = ms.metric(name="rmse.paid", higher_is_better=True)(lambda y, score: 0.0)


def several(*labels: Any, **changed: Any) -> Any:
    return late_model(**{"label": list(labels), "task": "regression", "gates": [], **changed})


NEEDED = ("observations", "features", "label", "task")
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "entity: name": (lambda: any_.Entity(3, keys={"id": ms.Int64}), "3, of type int, cannot name"),
    "entity: keys": (lambda: any_.Entity("card", keys="id"), "has the columns 'id', of type str"),
    "entity: list": (lambda: any_.Entity("card", keys=["id"]), r"has the columns \['id'\], of type list"),
    "entity: type": (lambda: any_.Entity("card", keys={"id": str}), "'id' with the type <class 'str'>"),
    "entity: number": (lambda: any_.Entity("card", keys={3: ms.Int64}), "a column 3"),
    "source: type of name": (lambda: any_.Source(3, schema={}, event_time="at"), "3, of type int, cannot name"),
    "source: long": (lambda: ms.Source("s" * 118, schema={}, event_time="at"), "has 118 characters"),
    "collection: name": (lambda: documents(3), "3, of type int, cannot name"),
    "collection: long": (lambda: documents("c" * 116), "has 116 characters"),
    "endpoint: long": (lambda: ms.Endpoint("e" * 129, model="m@champion"), "has 129 characters"),
    "job: characters": (lambda: ms.job(name="a/b")(lambda run, project: None), "'a/b' cannot name a job"),
    "job: long": (lambda: ms.job(name="j" * 129)(lambda run, project: None), "has 129 characters"),
    "source: schema": (lambda: any_.Source("pay", schema="x", event_time="at"), "has the columns 'x'"),
    "source: time": (lambda: any_.Source("pay", schema={}, event_time=3), "a column 3"),
    "source: lag": (lambda: any_.Source("pay", schema={}, event_time="at", lag=1.5), "1.5 is not a duration"),
    "source: name": (
        lambda: any_.Source("heads__pay", schema={}, event_time="at"),
        "'heads__pay' would share a table with derived data",
    ),
    "source: id": (
        lambda: any_.Source("pay", schema={}, event_time="at", id=5),
        "id of source 'pay' is 5, of type int",
    ),
    "source: ids": (lambda: any_.Source("pay", schema={}, event_time="at", id=[["a"]]), r"One of the id .* is \['a'\]"),
    "source: retracted": (
        lambda: any_.Source("pay", schema={}, event_time="at", id="at", retracted=["void"]),
        r"retraction of source 'pay' is \['void'\], of type list",
    ),
    "view: source": (lambda: view(source="visits"), "source of a feature view is 'visits', of type str"),
    "view: entity": (lambda: view(entity="shop"), "entity of a feature view is 'shop'"),
    "observations: source": (lambda: watched(source="orders"), "source of observations is 'orders'"),
    "observations: one key": (lambda: watched(keys=order), "keys of observations is Entity"),
    "observations: key": (lambda: watched(keys=["order"]), "One of the keys of observations is 'order'"),
    "observations: at": (lambda: watched(at="placed_at"), r"time of observations is 'placed_at'.*ms.col"),
    "endpoint: model": (lambda: served(model=late_model()), 'model of endpoint .* is <binary.*"late-order@champion"'),
    "endpoint: log": (lambda: served(log="sync"), "log of endpoint 'late' is 'sync'"),
    "endpoint: deadline": (lambda: served(deadline=0.05), "0.05 is not a duration"),
    "endpoint: queue": (lambda: served(max_queue_rows="4096"), "queue of endpoint 'late' is '4096'"),
    "model: name": (lambda: any_.model(fit_trees, **dict.fromkeys(NEEDED)), "cannot name a model"),
    "model: observations": (lambda: late_model(observations="placed"), "observations of model .* is 'placed'"),
    "model: source": (lambda: late_model(observations=orders), "observations of model .* is Source"),
    "model: feature": (lambda: late_model(features=["Traffic.visits_1h"]), "'Traffic.visits_1h' in its features"),
    "model: one group": (lambda: late_model(features=Order), "features=<request features Order"),
    "model: a function": (lambda: late_model(features=[fit_trees]), "has <function fit_trees.* in its features"),
    "model: baseline": (lambda: late_model(baseline="Traffic"), "baseline='Traffic'"),
    "model: label": (lambda: late_model(label="outcomes.late"), "label of model .* is 'outcomes.late'"),
    "model: labels": (lambda: late_model(label=[outcomes.late, outcomes.minutes]), "has 2 labels.*one model per label"),
    "model: no label": (lambda: late_model(label=[]), "has an empty list of labels"),
    "model: one of its labels": (
        lambda: several(outcomes.minutes, "outcomes.late"),
        "One of the labels of model .* is 'outcomes.late', of type str",
    ),
    "model: a label twice": (
        lambda: several(outcomes.minutes, ms.Label(outcomes.minutes)),
        "has 2 labels, outcomes.minutes, outcomes.minutes, but minutes is the name of more than one",
    ),
    "model: a name twice": (
        lambda: several(outcomes.minutes, returned.minutes),
        "but minutes is the name of more than one.*rename one column",
    ),
    "model: labels of other types": (
        lambda: several(outcomes.minutes, outcomes.late, outcomes.delivered_at),
        "outcomes.late is a Boolean, outcomes.delivered_at is a Timestamp, which is not a number",
    ),
    "model: labels of other things": (
        lambda: several(outcomes.minutes, complaints.number),
        "which have different keys: outcomes.minutes by order, complaints.number by shop",
    ),
    "model: labels and a threshold": (
        lambda: several(outcomes.minutes, returned.paid, threshold=ms.Costs(false_positive=1, false_negative=1)),
        "of the task 'regression' has the threshold",
    ),
    "model: a label's metric": (
        lambda: several(outcomes.minutes, returned.paid, metrics=[named_like]),
        "has the metric 'rmse.paid', which is also the name of a label's metric",
    ),
    "model: label's source": (lambda: late_model(label=outcomes), "label of model .* is Source"),
    "model: task": (lambda: late_model(task=["binary"]), r"the task \['binary'\]"),
    "model: gates": (lambda: late_model(gates=["auc > 0.7"]), "One of the gates of model .* is 'auc > 0.7'"),
    "model: one gate": (lambda: late_model(gates=ms.beats("auc")), "gates of model .* is Gate"),
    "model: search": (lambda: late_model(search="auc"), "search of model .* is 'auc'"),
    "model: seed": (lambda: late_model(seed="7"), "seed of model .* is '7'"),
    "model: holdout": (lambda: late_model(holdout=None), "holdout of model .* is None"),
    "model: findings": (lambda: late_model(accept_findings="shadow:x"), "findings of model .* is 'shadow:x'"),
    "model: function": (lambda: late_model(train=Traffic.visits_1h), "is made of FeatureColumn"),
    "gate: metric": (lambda: any_.beats(7), "metric of a gate is 7"),
    "gate: value": (lambda: any_.at_most("brier", "0.2"), "gate on brier is '0.2'"),
    "gate: people": (lambda: any_.approved(by="ana"), "number of approvals is 'ana'"),
    "search: metric": (lambda: any_.Search(7, space=space), "optimise 7"),
    "search: space": (lambda: any_.Search("auc", space=["depth"]), r"space of a search is \['depth'\]"),
    "search: trials": (lambda: any_.Search("auc", space=space, trials="40"), "'40' trials"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_refused_where_it_stands(wrong: str) -> None:
    build, message = WRONG[wrong]
    with pytest.raises(Invalid, match=message) as refused:
        build()
    assert refused.value.fix


MODULE = """\
import mainspring as ms

card = ms.Entity("card", keys={"card": ms.String})
pay = ms.Source("pay", schema={"card": ms.String, "fraud": ms.Boolean, "score": ms.Float32}, event_time="at")
seen = ms.Observations(pay, keys=[card], at=ms.col("at"))

@ms.feature_view(entity=card, source=pay)
class Card:
    n_1h = ms.count(window="1h")
    newest = ms.last("at")

@ms.model("fraud", observations=seen, features=[Card.n_1h], label=pay.fraud, task="binary")
def train(data, run):
    ...
"""


def write(folder: Path, old: str = "", new: str = "") -> None:
    assert old in MODULE
    (folder / "mainspring.toml").write_text('name = "pay"\nmodules = ["wrong_pay"]\n')
    (folder / "wrong_pay.py").write_text(MODULE.replace(old, new, 1))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(old: str = "", new: str = "") -> Any:
        write(tmp_path, old, new)
        return load_definitions(load_settings(tmp_path, environment={}))

    yield load
    sys.modules.pop("wrong_pay", None)


def test_replicas_say_that_they_have_no_effect_and_change_nothing() -> None:
    with pytest.warns(FutureWarning, match=r"replicas=\(1, 4\) of endpoint 'late'.*Fix: .*executors=\(1, 4\)") as said:
        old = served(replicas=(1, 4))
    assert said[0].filename == __file__
    assert content(old) == content(served())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "entity=card, source=pay",
            'entity=card, source="pay"',
            r"wrong_pay.py:7: .*source of a feature view is 'pay'",
        ),
        ("[Card.n_1h]", '["Card.n_1h"]', r"wrong_pay.py:12: .*has 'Card.n_1h' in its features"),
        ("label=pay.fraud", 'label="pay.fraud"', r"wrong_pay.py:12: .*label of model 'fraud' is 'pay.fraud'"),
        ("label=pay.fraud", "label=[pay.fraud, pay.score]", r"wrong_pay.py:12: .*has 2 labels"),
    ],
)
def test_apply_says_the_line_and_the_value(project: Callable[..., Any], old: str, new: str, message: str) -> None:
    assert list(project().models) == ["fraud"]
    with pytest.raises(InvalidDefinition, match=message):
        project(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[Card.n_1h]", "[Card]", "Feature 'Card.newest' is a Timestamp, which models do not accept"),
        ("label=pay.fraud", "label=pay.card", "Label pay.card is a String, which is not a label for the task 'binary'"),
        ("label=pay.fraud", "label=pay.at", "Label pay.at is a Timestamp"),
    ],
)
def test_apply_knows_what_no_training_can_take(project: Callable[..., Any], old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidDefinition, match=message):
        project(old, new)


def test_a_change_of_the_search_and_of_the_metrics_is_a_change(project: Callable[..., Any]) -> None:
    key = ("model", "fraud")
    plain = project().contents()[key]
    searched = 'task="binary", search=ms.Search("auc", space=ms.space(depth=ms.integer(2, {})))'
    contents = [project('task="binary"', searched.format(most)).contents()[key] for most in (4, 8)]
    assert len({plain, *contents}) == 3
    assert "search" not in plain
    assert project('task="binary"', 'task="binary", metrics=[ms.recall_at_k(5)]').contents()[key] != plain


def test_apply_knows_what_has_landed_and_is_no_class(project: Callable[..., Any], tmp_path: Path) -> None:
    project("label=pay.fraud", "label=pay.score")
    opened = open_project(load_settings(tmp_path, environment={}))
    assert apply(opened)[0]  # nothing has landed
    source = opened.definitions.source("pay")
    row = {"at": to_datetime(START), "card": "a", "fraud": True}
    opened.ingestor.ingest(source, [{**row, "score": 1.0}, {**row, "score": None}], keyings={})
    apply(opened)  # a number may be a class
    opened.ingestor.ingest(source, [{**row, "card": "b", "score": 0.5}], keyings={})
    with pytest.raises(
        InvalidDefinition, match=r"Label pay.score of model 'fraud' is a Float32 with values such as 0.5"
    ):
        apply(opened, dry_run=True)
    corrected = {**row, "card": "b", "score": 0.0, "at": to_datetime(START + 1)}
    opened.ingestor.ingest(source, [corrected], keyings={})
    apply(opened)  # no training would take the row that it replaces
    opened.close()


def test_apply_notes_the_texts_that_a_library_will_not_take(tmp_path: Path) -> None:
    write(tmp_path, 'ms.last("at")', 'ms.last("card")')
    module = tmp_path / "wrong_pay.py"
    text = module.read_text().replace("[Card.n_1h]", "[Card]")
    module.write_text(
        text.replace("    ...\n", "    import xgboost\n\n    return xgboost.XGBClassifier().fit(data.train.X)\n")
    )
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", "apply", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (notice,) = (each for each in json.loads(done.stdout)["notices"] if "texts" in each)
    assert "model 'fraud' uses xgboost, which does not accept texts: Card.newest" in notice


SEARCHED = """
import sys
sys.modules["optuna"] = None
from mainspring.project.settings import load_settings
from mainspring.project import open_project
from mainspring.operations.search.searching import search
from mainspring.core.errors import MissingExtra
from pathlib import Path
project = open_project(load_settings(Path(sys.argv[1]), environment={}))
try:
    search(project, "fraud")
except MissingExtra as error:
    print(error, project.applied.current())
"""


def test_a_search_without_optuna_says_so_before_anything_is_done(tmp_path: Path) -> None:
    write(tmp_path, 'task="binary"', 'task="binary", search=ms.Search("auc", space=ms.space(depth=ms.integer(2, 3)))')
    done = subprocess.run([sys.executable, "-c", SEARCHED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "needs the extra 'search'" in done.stdout, done.stderr
    assert done.stdout.strip().endswith("{}")


def test_gates_and_a_search_go_by_the_metric_of_a_label_or_by_their_mean() -> None:
    made = several(outcomes.minutes, returned.paid, gates=[ms.beats("rmse.paid"), ms.at_most("mae", 3)])
    assert made.metric_names == ("rmse", "mae", "rmse.minutes", "rmse.paid", "mae.minutes", "mae.paid")
    assert repr(made) == "<regression model 'late-order' of outcomes.minutes, returned.paid from Traffic, Order>"
    several(outcomes.minutes, returned.paid, search=ms.Search("rmse.paid", space=space))
    with pytest.raises(Invalid, match=r"a search by 'rmse.late'.*rmse.minutes, rmse.paid, mae.minutes"):
        several(outcomes.minutes, returned.paid, search=ms.Search("rmse.late", space=space))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ('endpoint="fraud"', "The budget 'b' is of the endpoint 'fraud', which is not declared"),
        ('model="frau"', "of the model 'frau', which is not declared.*did you mean 'fraud'"),
        ('endpoint="chat", act=["shed"]', "endpoint 'chat', which has no executors and sheds nothing.*ms.Quota"),
        ('model="fraud")\nms.Budget("b", project=True, month="1 EUR"', "two budgets named 'b'"),
    ],
)
def test_a_budget_of_what_is_not_declared_is_refused(project: Callable[..., Any], budget: str, message: str) -> None:
    chat = 'ms.LanguageModel("chat", upstreams=[ms.UpstreamModel("here", "small")])\n'
    assert set(project("card = ms", f'ms.Budget("b", model="fraud", month="1 EUR")\n{chat}card = ms').budgets) == {"b"}
    with pytest.raises(InvalidDefinition, match=message):
        project("card = ms", f'ms.Budget("b", month="1 EUR", {budget})\n{chat}card = ms')
