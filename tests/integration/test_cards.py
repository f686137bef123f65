"""Cards of a trained model: figures against plain loops over the held-out rows, and gaps where something is missing."""

from __future__ import annotations

import io
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from kit.bakery import Bakery, late_model
from mainspring.delivery.gates import judge, judge_card
from mainspring.governance.cards import build
from mainspring.governance.energy import Points
from mainspring.governance.model import Card
from mainspring.governance.page import page
from mainspring.governance.performance import SMALLEST_GROUP
from mainspring.governance.rendering import markdown
from mainspring.governance.resources import Price
from mainspring.registry.lineage import lineage_of
from mainspring.registry.model import Bundle
from mainspring.stats import metrics
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.gate_kinds import Gate
from mainspring.training.gates import complete_card

WORDS = "\n".join(f"## {name}\nSaid.\n" for name in ("Intended use", "Limits", "Ethical considerations", "Contact"))


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    made.ingest()
    made.trainer.train(late_model())
    return made


@pytest.fixture(scope="module")
def bundle(bakery: Bakery) -> Bundle:
    return bakery.bundles.load(bakery.versions.get("late-order", "1").digest)


def card_of(bakery: Bakery, bundle: Bundle, **changed: Any) -> Card:
    version = bakery.versions.get("late-order", "1")
    run = bakery.tracking.get(version.run_id)
    run = replace(run, tags={**run.tags, "mainspring.user": "local:baker"})
    settings: dict[str, Any] = {
        "run": run,
        "history": lambda metric: bakery.tracking.history(version.run_id, metric),
        "tables": {"orders": 0},
        "words": WORDS,
        "words_file": "cards/late-order.md",
        **changed,
    }
    lineage = lineage_of(version, bundle.manifest, settings["run"], bakery.versions.all())
    return build(bundle, lineage, **settings)


@pytest.fixture(scope="module")
def card(bakery: Bakery, bundle: Bundle) -> Card:
    return card_of(bakery, bundle)


def test_nothing_required_is_missing(card: Card) -> None:
    assert [gap for gap in card.gaps if gap.required] == []
    assert card.complete
    assert any(gap.what.startswith("The cost is unknown") for gap in card.gaps)


def test_metrics_are_the_recorded_ones_within_their_intervals(card: Card, bundle: Bundle) -> None:
    assert card.performance is not None
    assert card.performance.rows == bundle.manifest.extra["holdout_rows"]
    for each in card.performance.metrics:
        assert each.value == bundle.manifest.metrics[each.metric]
        assert each.baseline == bundle.manifest.metrics[f"baseline.{each.metric}"]
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high


def test_slices_are_what_a_loop_over_the_rows_finds(card: Card, bundle: Bundle) -> None:
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    scores, labels = score_bundle(bundle, held_out), np.array(held_out["_label"].to_pylist())
    assert card.performance is not None
    assert [each.feature for each in card.performance.slices] == ["Order.kind", "Order.gift"]
    for each in card.performance.slices:
        values = [None if value is None else str(value) for value in held_out[each.feature].to_pylist()]
        assert sum(group.rows for group in each.groups) + each.left_out_rows == len(values)
        for group in each.groups:
            wanted = group.value if each.feature == "Order.kind" or group.value is None else group.value.capitalize()
            places = [place for place, value in enumerate(values) if value == wanted]
            assert group.rows == len(places) >= SMALLEST_GROUP
            assert {one.metric: one.value for one in group.metrics} == metrics.score(
                "binary", labels[places], scores[places]
            )


def test_small_groups_are_only_counted(bakery: Bakery, bundle: Bundle) -> None:
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    kinds: list[str | None] = ["bread"] * held_out.num_rows
    kinds[:51] = [f"rare {number % 3}" for number in range(51)]
    place = held_out.column_names.index("Order.kind")
    out = io.BytesIO()
    pq.write_table(held_out.set_column(place, "Order.kind", [kinds]), out)
    changed = replace(bundle, files={**bundle.files, "holdout.parquet": out.getvalue()})
    found = card_of(bakery, changed)
    assert found.performance is not None
    kind = found.performance.slices[0]
    assert [group.value for group in kind.groups] == ["bread"]
    assert (kind.left_out_groups, kind.left_out_rows) == (3, 51)
    assert "rare" not in markdown(found) + page(found)
    # Other inputs, so other answers: a model that does not answer as recorded is a gap.
    assert any("predictions differ from those at training time" in gap.what for gap in found.gaps)
    assert not found.complete


def test_what_may_identify_a_person_is_no_slice(bakery: Bakery, bundle: Bundle) -> None:
    found = card_of(bakery, bundle, hidden={"Order.kind"})
    assert found.performance is not None
    assert [each.feature for each in found.performance.slices] == ["Order.gift"]
    assert "cake" not in markdown(found) + page(found)
    assert found.complete


def test_time_and_cost_are_the_runs(bakery: Bakery, bundle: Bundle) -> None:
    version = bakery.versions.get("late-order", "1")
    run = replace(bakery.tracking.get(version.run_id), started_at=0, ended_at=1800 * 1_000_000)
    run = replace(run, metrics={"system/process_cpu_utilization_percentage": 100.0})

    def history(metric: str) -> Points:
        return [(run.metrics[metric], 0, 0)]

    found = card_of(bakery, bundle, run=run, history=history, price=Price(0.5, "EUR")).resources
    assert (found.seconds, found.cost, found.currency) == (1800.0, 0.25, "EUR")
    assert found.energy_wh == pytest.approx(6.0)


def test_the_same_card_twice(bakery: Bakery, bundle: Bundle, card: Card) -> None:
    assert card_of(bakery, bundle) == card


def test_what_is_missing_is_a_gap_and_never_an_error(bakery: Bakery, bundle: Bundle) -> None:
    bare = Bundle(
        bundle.digest,
        msgspec.structs.replace(bundle.manifest, extra={}, metrics={}, dataset_commit="", code_version=""),
        {"model.onnx": bundle.files["model.onnx"]},
    )
    found = card_of(bakery, bare, run=None, tables=None, words="")
    missing = {gap.section for gap in found.gaps if gap.required}
    assert missing == {"In the words of its makers", "Data", "Performance", "Lineage", "Resources"}
    assert found.performance is None
    assert markdown(found).count("Not known.") == page(found).count("Not known.") == 3
    result = judge_card(found)
    assert not result.passed
    assert "Intended use has not been written yet" in str(result)


def test_a_run_that_is_elsewhere_is_a_gap(bakery: Bakery, bundle: Bundle) -> None:
    found = card_of(bakery, bundle, run=None)
    assert {gap.section for gap in found.gaps if gap.required} == {"Lineage", "Resources"}
    assert found.performance is not None
    running = replace(bakery.tracking.get(bakery.versions.get("late-order", "1").run_id), ended_at=None)
    assert card_of(bakery, bundle, run=running).resources.seconds is None


def test_the_gate_is_no_metrics(card: Card) -> None:
    assert str(complete_card()) == "complete card"
    assert judge([complete_card(), Gate("at_least", "auc", 0.5)], {"auc": 0.6}, {}, None)[0].gate == "auc at least 0.5"
    assert judge_card(card).passed


class Tags(HTMLParser):
    """Every tag opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_in_a_card_is_markup_but_ours(bakery: Bakery, bundle: Bundle) -> None:
    wild = "<script>alert(1)</script> | `x` [a](javascript:b)"
    words = f"## Limits\n{wild}\n## {wild}\n- {wild}\n"
    found = card_of(bakery, bundle, words=words, owner=wild, tables={wild: 1})
    parser = Tags()
    parser.feed(page(found))
    assert parser.open == []
    assert not parser.seen & {"script", "a", "img"}
    owner = next(line for line in markdown(found).splitlines() if line.startswith("- **Owner**"))
    assert r"\<script\>alert(1)\</script\> \| \`x\` \[a\](javascript:b)" in owner
    tables = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len(tables) > 20


def test_a_page_needs_nothing_from_elsewhere(card: Card) -> None:
    assert "http" not in page(card)
    assert "src=" not in page(card)
