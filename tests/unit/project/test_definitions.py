"""A project's modules, loaded more than once in one process: nothing is lost, and nothing of before stays."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.errors import InvalidDefinition
from mainspring.core.schema import DType
from mainspring.project import open_project
from mainspring.project.definitions.functions import load_code, source_digest
from mainspring.project.definitions.loading import load_definitions, load_function
from mainspring.project.definitions.model import Definitions
from mainspring.project.settings import load_settings
from mainspring.registry.model import Code

PACKAGE = "shop_d6"
FILES = {
    "mainspring.toml": f'name = "shop"\nmodules = ["{PACKAGE}.sources", "{PACKAGE}.views"]\n',
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/kinds.py": "class Row(dict):\n    pass\n",
    f"{PACKAGE}/sources.py": (
        "import mainspring as ms\n"
        f"from {PACKAGE}.kinds import Row\n"
        'orders = ms.Source("orders", schema={"buyer": ms.String, "paid": ms.Float64}, event_time="at")\n'
        'buyer = ms.Entity("buyer", keys={"buyer": ms.String})\n'
        "def rows():\n"
        f"    from {PACKAGE} import kinds\n"
        "    return Row is kinds.Row\n"
    ),
    f"{PACKAGE}/views.py": (
        "import mainspring as ms\n"
        "from .sources import buyer, orders\n"
        "@ms.feature_view(entity=buyer, source=orders)\n"
        "class Bought:\n"
        '    orders_1h = ms.count(window="1h")\n'
    ),
    f"{PACKAGE}/landing.py": (
        f"from {PACKAGE} import kinds, sources\n"
        "def rows():\n    return [kinds.Row(buyer='ana')] if sources.Row is kinds.Row else 'stale'\n"
    ),
    f"{PACKAGE}/score.py": f"from {PACKAGE}.kinds import Row\ndef score(x):\n    return Row(x=x)\n",
}


def write(root: Path, **changed: str) -> Path:
    for name, content in (FILES | {f"{PACKAGE}/{name}.py": text for name, text in changed.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = list(sys.path)
    yield write(tmp_path / "one")
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def load(root: Path) -> Definitions:
    return load_definitions(load_settings(root, environment={}))


def test_the_second_time_it_is_the_same(root: Path) -> None:
    first, second = load(root), load(root)
    assert second.views.keys() == {"Bought"}
    assert second.view("Bought") is first.view("Bought")
    assert open_project(load_settings(root, environment={})).definitions.source("orders") is first.source("orders")


def test_modules_that_somebody_imported_before_are_found_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root))
    __import__(f"{PACKAGE}.views")
    assert load(root).views.keys() == {"Bought"}


def test_a_change_is_seen_however_soon_it_comes_and_classes_are_of_one_time(root: Path) -> None:
    """Of the same length and the same second, so that Python's own cache of bytecode would not notice."""
    load(root)
    path = root / PACKAGE / "sources.py"
    status = path.stat()
    path.write_text(path.read_text().replace("ms.Float64", "ms.Float32"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = load(root)
    assert found.source("orders").columns["paid"] is DType.Float32
    assert found.view("Bought").source is found.source("orders")  # the file of the view has not changed
    assert sys.modules[f"{PACKAGE}.sources"].rows()


def test_a_change_of_what_a_module_merely_imports_is_seen(root: Path) -> None:
    first = load(root)
    (root / PACKAGE / "kinds.py").write_text("class Row(list):\n    pass\n")
    second = load(root)
    assert second.view("Bought") is not first.view("Bought")
    assert issubclass(sys.modules[f"{PACKAGE}.sources"].Row, list)


def test_another_project_with_a_package_of_the_same_name_and_back(root: Path, tmp_path: Path) -> None:
    views = FILES[f"{PACKAGE}/views.py"].replace("Bought", "Sold")
    other = write(tmp_path / "two", views=views)
    for _ in range(2):
        assert load(root).views.keys() == {"Bought"}
        assert Path(str(sys.modules[f"{PACKAGE}.kinds"].__file__)).is_relative_to(root)
        assert sys.modules[f"{PACKAGE}.sources"].rows()
        assert load(other).views.keys() == {"Sold"}
        assert Path(str(sys.modules[f"{PACKAGE}.kinds"].__file__)).is_relative_to(other)


@pytest.mark.parametrize("broken", ["import mainspring as ms\n!\n", "raise ValueError('no')\n", "import nowhere_d6\n"])
def test_what_could_not_be_imported_is_imported_when_it_can(root: Path, broken: str) -> None:
    for _ in range(2):
        write(root, views=broken)
        for _ in range(2):
            with pytest.raises(InvalidDefinition, match=rf"views\.py:{2 if '!' in broken else 1}"):
                load(root)
        write(root)
        assert load(root).views.keys() == {"Bought"}


def test_a_module_may_read_what_lies_beside_it(root: Path) -> None:
    (root / PACKAGE / "names.txt").write_text("orders")
    text = "from importlib.resources import files\nfrom pathlib import Path\n" + FILES[f"{PACKAGE}/sources.py"].replace(
        '"orders"', "Path(__file__).with_name('names.txt').read_text()"
    )
    text += f"assert files({PACKAGE!r}).joinpath('names.txt').read_text() == 'orders'\n"
    write(root, sources=text)
    assert load(root).sources.keys() == {"orders"}


def test_a_function_that_lands_data_shares_the_classes_of_the_definitions(root: Path) -> None:
    settings, first = load_settings(root, environment={}), load(root)
    rows = load_function(settings, f"{PACKAGE}.landing:rows")
    assert rows() == [{"buyer": "ana"}]
    assert load(root).view("Bought") is first.view("Bought")
    (root / PACKAGE / "landing.py").write_text("def rows():\n    return 7\n")
    assert load_function(settings, f"{PACKAGE}.landing:rows")() == 7
    assert rows() == [{"buyer": "ana"}]
    assert load(root).views.keys() == {"Bought"}
    assert sys.modules[f"{PACKAGE}.sources"].rows()


def test_functions_that_serve_and_definitions_leave_each_other_alone(root: Path) -> None:
    first = load(root)
    code = Code(f"{PACKAGE}.score:score", source_digest(root, f"{PACKAGE}.score:score"))
    score = load_code(root, code)
    assert load(root).views.keys() == {"Bought"}
    assert score(3) == {"x": 3}
    assert type(score(3)) is sys.modules[f"{PACKAGE}.kinds"].Row
    assert first.view("Bought").features.keys() == {"orders_1h"}


ROLLOUT_MODEL = (
    "import mainspring as ms\n"
    "from .sources import buyer, orders\n"
    "from .views_of import Bought\n"
    "seen = ms.Observations(orders, keys=[buyer], at=ms.col('at'))\n"
    "@ms.model('big', observations=seen, features=[Bought], label=orders.paid, task='regression')\n"
    "def train(data, run):\n    return None\n"
    "ms.Endpoint('big', model='big@champion')\n"
)


def test_a_rollout_is_a_definition_like_others(root: Path) -> None:
    rollout = "ms.Rollout('big', steps=(0.1, 0.5), guards=[ms.guards.errors(), ms.guards.outcome(orders.paid)])\n"
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + rollout)
    definitions = load(root)
    assert definitions.rollouts["big"].plan.steps == (0.1, 0.5)
    assert '"metric": "paid"' in definitions.contents()["rollout", "big"]


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ("ms.Rollout('big')\nms.Rollout('big')", "There are two rollouts named 'big'; the first is at"),
        (
            "ms.Rollout('small')",
            "of the endpoint 'small', which is not declared. Fix: the project's endpoints and chains of answers are",
        ),
        ("ms.Rollout('big', guards=[ms.guards.quality('brier')])", "brier, which a regression model does not have"),
        ("ms.Rollout('big', goals=[ms.guards.outcome('won')])", "on the label 'won', which the model does not have"),
        ("ms.Rollout('big', steps=(0.5, 0.1))", "views.py:9: The rollout of 'big' has the step 0.1 after 0.5"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused_where_it_stands(root: Path, rollout: str, said: str) -> None:
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + rollout)
    with pytest.raises(InvalidDefinition) as refused:
        load(root)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("outputs", "said"),
    [("top=1", "answers the largest classes"), ("labels=True", "answers labels, which a regression has not")],
)
def test_outputs_that_a_model_has_not_are_refused_where_they_stand(root: Path, outputs: str, said: str) -> None:
    endpoint = f"ms.Endpoint('few', model='big@champion', outputs=[ms.Outputs({outputs})])"
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + endpoint)
    with pytest.raises(InvalidDefinition, match=said):
        load(root)


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        ("ms.Monitor('big')\nms.Monitor('big')", "There are two monitors named 'big'; the first is at"),
        (
            "ms.Monitor('small')",
            "of the endpoint 'small', which is not declared. Fix: the project's endpoints and chains of answers are",
        ),
        ("ms.Monitor('big', segments=['Bought.colour'])", "'Bought.colour', which is no input of its model"),
        ("ms.Monitor('big', segments='Bought.colour')", "segments of the monitor of 'big'"),
        ("ms.Monitor('big', notify=['ops'])", "notify of the monitor of 'big' is 'ops', of type str"),
        ("ms.Monitor('big', notify=[ms.notify.slack('a'), ms.notify.email('a')])", "two receivers 'a'"),
        ("ms.Monitor('big', actions=['retrain'])", "actions of the monitor of 'big' is 'retrain', of type str"),
        (
            "ms.Monitor('big', actions=[ms.actions.start('retrain')])",
            "starts the pipeline 'retrain', which is not declared",
        ),
        ("ms.Monitor('big', clean_windows=0)", "The monitor of 'big' has clean_windows=0"),
        ("ms.Monitor('big', cool_down='soon')", "'soon'"),
        ("ms.Monitor('big', objectives=[0.99])", "objectives of the monitor of 'big' is 0.99, of type float"),
        ("ms.Monitor('big', objectives=[ms.objectives.availability(0.9)] * 2)", "two objectives 'availability'"),
        (
            "ms.Monitor('big', objectives=[ms.objectives.freshness('Old', within='5m')])",
            "promises the freshness of 'Old', which is no feature view. Fix: use one of ['Bought']",
        ),
        ("ms.Monitor('big', ranking='query')", "The ranking of the monitor of 'big' is 'query', of type str"),
        ("ms.Monitor('big', ranking=ms.Ranking('query'))", "has the ranking 'query', which is no key or input"),
        ("ms.Monitor('big', ranking=ms.Ranking('buyer', k=0))", "A ranking has k=0"),
        ("ms.Monitor('big', forecast=ms.Forecast('days'))", "has the horizon 'days', which is no key or input"),
        ("ms.Monitor('big', forecast=ms.Forecast('buyer', naive='last'))", "has the naive forecast 'last', which is"),
        ("ms.Monitor('big', forecast=ms.Forecast('buyer', quantile=2))", "A forecast has quantile=2"),
        (
            "ms.Monitor('big', tolerances={'brier': 0})",
            "the tolerance 'brier': 0. Fix: write a number above 0 for one of",
        ),
        ("ms.Monitor('big', metrics=['SELECT 1'])", "metrics of the monitor of 'big'"),
        ("ms.Monitor('big', tolerances={'auc': 0.1})", "the tolerance 'auc': 0.1"),
        ("ms.Monitor('big', alarms_per_week=0)", "rarer than one a month. Fix: write 0.25 or more"),
    ],
)
def test_a_monitor_that_cannot_be_is_refused_where_it_stands(root: Path, monitor: str, said: str) -> None:
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + monitor + "\n")
    with pytest.raises(InvalidDefinition) as refused:
        load(root)
    assert said in str(refused.value)


def test_a_monitor_is_a_definition_like_others(root: Path) -> None:
    monitor = "ms.Monitor('big', segments=[next(iter(Bought.columns))], alarms_per_week=2, "
    monitor += "objectives=[ms.objectives.latency(0.99, within='50ms')])\n"
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + monitor)
    definitions = load(root)
    assert definitions.monitors["big"].alarms_per_week == 2
    assert '"alarms_per_week": 2' in definitions.contents()["monitor", "big"]
    assert '"within_us": 50000' in definitions.contents()["monitor", "big"]


def test_a_stream_has_one_name(root: Path) -> None:
    streams = (
        "ms.Stream(orders, topic='orders')\n"
        "ms.StreamEndpoint('orders', model='big@champion', topic='orders', source=orders, key='buyer')\n"
    )
    write(root, views_of=FILES[f"{PACKAGE}/views.py"], views=ROLLOUT_MODEL + streams)
    with pytest.raises(InvalidDefinition, match="'orders' has the name of a source with a stream"):
        load(root)


def test_a_gate_that_no_metric_decides_is_one(root: Path) -> None:
    model = (
        "import mainspring as ms\n"
        "from .sources import buyer, orders\n"
        "from .views_of import Bought\n"
        "seen = ms.Observations(orders, keys=[buyer], at=ms.col('at'))\n"
        "@ms.model('big', observations=seen, features=[Bought], label=orders.paid, task='regression', gates=[GATES])\n"
        "def train(data, run):\n    return None\n"
    )
    of = FILES[f"{PACKAGE}/views.py"]
    write(root, views_of=of, views=model.replace("GATES", "ms.approved(), ms.complete_card(), ms.at_most('mae', 1)"))
    assert [str(gate) for gate in load(root).model("big").gates] == ["approved by 1", "complete card", "mae at most 1"]
    write(root, views=model.replace("GATES", "ms.complete_card(), ms.at_least('auc', 1)"))
    with pytest.raises(InvalidDefinition, match="gate on 'auc'"):
        load(root)


def test_options_of_a_source_are_its_content_only_where_they_are_used(root: Path) -> None:
    content = load(root).contents()["source", "orders"]
    assert not any(f'"{each}"' in content for each in ("id", "retracted", "retention", "privacy", "signed_by"))
    used = 'event_time="at", retention=ms.Retention(days=90), privacy=ms.Privacy(budget=0.5, keys="buyer")'
    write(root, sources=FILES[f"{PACKAGE}/sources.py"].replace('event_time="at"', used))
    content = load(root).contents()["source", "orders"]
    assert '"days": 90' in content
    assert '"budget": 0.5' in content


def test_an_evaluation_set_is_a_definition_like_others(root: Path) -> None:
    asked = (
        "asked = ms.Source('asked', schema={'q': ms.String, 'doc': ms.String, 'kind': ms.String}, event_time='at')\n"
        "ms.EvaluationSet('questions', source=asked, query='q', relevant='doc', tags='kind')\n"
    )
    sources = FILES[f"{PACKAGE}/sources.py"]
    write(root, sources=sources + asked)
    definitions = load(root)
    assert definitions.evaluation_set("questions").tags == ("kind",)
    assert '"source": "asked"' in definitions.contents()["evaluation set", "questions"]
    write(root, sources=sources + asked + asked.splitlines()[1])
    with pytest.raises(InvalidDefinition, match="two evaluation sets named 'questions'"):
        load(root)


def test_gates_of_a_collection_are_on_metrics_of_retrieval(root: Path) -> None:
    declared = (
        "texts = {'q': ms.String, 'doc': ms.String}\n"
        "asked = ms.Source('asked', schema=texts, event_time='at')\n"
        "questions = ms.EvaluationSet('questions', source=asked, query='q', relevant='doc')\n"
        "ms.Collection('docs', source=asked, text='q', key='doc', chunk=ms.chunks.tokens(64),\n"
        "              encoder=ms.Encoder('e'), evaluation=questions, gates=[GATE])\n"
    )
    sources = FILES[f"{PACKAGE}/sources.py"]
    write(root, sources=sources + declared.replace("GATE", "ms.gates.at_least('recall@10', 0.9)"))
    assert '"recall@10 at least 0.9"' in load(root).contents()["collection", "docs"]
    for gate, words in (("ms.gates.at_least('auc', 0.9)", "'auc' is no metric"), ("'recall@10'", "not on a metric")):
        write(root, sources=sources + declared.replace("GATE", gate))
        with pytest.raises(InvalidDefinition, match=words):
            load(root)


def test_a_step_builds_only_collections_that_are_declared(root: Path) -> None:
    declared = (
        "asked = ms.Source('asked', schema={'q': ms.String, 'doc': ms.String}, event_time='at')\n"
        "ms.Collection('docs', source=asked, text='q', key='doc', chunk=ms.chunks.tokens(64),\n"
        "              encoder=ms.Encoder('e'))\n"
        "@ms.step\ndef chosen():\n    return 'dosc'\n"
        "@ms.pipeline\ndef nightly(name: str = 'dosc'):\n    ms.task('collections'BUILT)\n"
    )
    sources = FILES[f"{PACKAGE}/sources.py"]
    for built in ("", ", collections=['docs']", ", collections=['docs', chosen()]", ", collections=name"):
        write(root, sources=sources + declared.replace("BUILT", built))
        assert set(load(root).pipelines) == {"nightly"}
    for built in (", collections=['docs', 'dosc']", ", collections=['dosc', chosen()]"):
        write(root, sources=sources + declared.replace("BUILT", built))
        with pytest.raises(InvalidDefinition, match=r"builds the collection 'dosc'.* did you mean 'docs'\?"):
            load(root)


def test_answers_are_definitions_like_others_with_a_name_that_no_endpoint_has(root: Path) -> None:
    declared = (
        "asked = ms.Source('asked', schema={'q': ms.String, 'doc': ms.String}, event_time='at')\n"
        "docs = ms.Collection('docs', source=asked, text='q', key='doc', chunk=ms.chunks.tokens(64),\n"
        "                     encoder=ms.Encoder('e'))\n"
        "ms.Answers('NAME', retriever=ms.Retriever('nearest', collection=docs))\n"
    )
    of = FILES[f"{PACKAGE}/views.py"]
    write(root, views_of=of, views=ROLLOUT_MODEL + declared.replace("NAME", "help"))
    definitions = load(root)
    assert definitions.answer_chain("help").retriever.collection.name == "docs"
    assert '"collection": "docs"' in definitions.contents()["answers", "help"]
    assert dict(definitions.prompts) == {}
    write(root, views_of=of, views=ROLLOUT_MODEL + declared.replace("NAME", "big"))
    with pytest.raises(InvalidDefinition, match="name of an endpoint"):
        load(root)
